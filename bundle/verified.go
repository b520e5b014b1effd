package bundle

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var sumForm = regexp.MustCompile(`^[0-9a-f]{64}\b`)

// sum asks for the digest of a version that the catalogue does not know.
func (x *resolver) sum(ctx context.Context, d Download) (string, error) {
	if d.SumURL == "" {
		return "", errors.New("the catalogue has no digest for it")
	}
	at, err := x.remote.address(d.SumURL)
	if err != nil {
		return "", err
	}
	if !isSecure(at) {
		return "", fmt.Errorf("the catalogue has no digest for this version, and what %s says of it without TLS is worth nothing: use a version that the catalogue has, a mirror with https, or a catalogue of your own", at)
	}
	data, err := x.remote.get(ctx, at, 1<<10)
	if err != nil {
		return "", fmt.Errorf("%s: %w: is there such a version?", at, err)
	}
	hex := sumForm.FindString(strings.TrimSpace(string(data)))
	if hex == "" {
		return "", fmt.Errorf("%s does not begin with a sha256: try another --mirror, or a version that the catalogue has", at)
	}
	return "sha256:" + hex, nil
}

// signed tells whether a download has a signature, and checks the one that it has.
func (r *Remote) signed(ctx context.Context, d Download, digest string) (bool, error) {
	if d.SignatureURL == "" {
		return false, nil
	}
	var at [2]string
	var parts [2][]byte
	for i, url := range []string{d.SignatureURL, d.CertificateURL} {
		var err error
		if at[i], err = r.address(url); err != nil {
			return false, err
		}
		if parts[i], err = r.get(ctx, at[i], 64<<10); i == 0 && errors.Is(err, errNowhere) {
			return false, nil // mirrors often leave them out
		} else if err != nil {
			return false, fmt.Errorf("signature: %s: %w", at[i], err)
		}
	}
	trusted, err := r.trusted()
	if err != nil {
		return false, fmt.Errorf("signature: %w", err)
	}
	if err := verifySignature(trusted, digest, parts[0], parts[1]); err != nil {
		return false, fmt.Errorf("signature %s: %w: somebody has changed it or the file, or the project signs with keys that this kubewright is too old to know: take a newer one, or a catalogue without signatures (--catalogue)", at[0], err)
	}
	return true, nil
}
