package bundle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kubewright/kubewright/host"
)

// resolved is an image that a registry was asked for.
type resolved struct {
	raw    []byte // its manifest
	digest string
	size   int64 // of all its distinct blobs
	secure bool  // it was said over TLS
}

// resolve asks a registry, or its mirrors, which image a reference means on a platform.
func (r *Remote) resolve(ctx context.Context, image, platform string) (*resolved, error) {
	ref, err := name.ParseReference(image, name.StrictValidation)
	if err != nil {
		return nil, err
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, err
	}
	endpoints, err := r.endpoints(ref)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range endpoints {
		found, err := r.resolveAt(ctx, e, ref, *p)
		if err == nil || ctx.Err() != nil {
			return found, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", e.repo, advise(err, e)))
	}
	return nil, r.hint(fmt.Errorf("image %s for %s: %w", image, platform, errors.Join(errs...)), image)
}

func (r *Remote) resolveAt(ctx context.Context, e endpoint, ref name.Reference, p v1.Platform) (*resolved, error) {
	var at name.Reference = e.repo.Tag(ref.Identifier())
	if _, ok := ref.(name.Digest); ok {
		at = e.repo.Digest(ref.Identifier())
	}
	// Of an index, Image is the manifest of the platform; it refuses one that has no such.
	d, err := remote.Get(at, remote.WithContext(ctx), remote.WithTransport(e.transport), remote.WithAuthFromKeychain(r.keychain), remote.WithPlatform(p))
	if err != nil {
		return nil, err
	}
	img, err := d.Image()
	if err != nil {
		return nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	if m.Config.Size > maxManifest { // it would be read whole
		return nil, fmt.Errorf("its config has %d bytes", m.Config.Size)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if config.OS != p.OS || config.Architecture != p.Architecture {
		return nil, fmt.Errorf("the image there is for %s/%s", config.OS, config.Architecture)
	}
	found := &resolved{raw: raw, digest: host.Digest(raw), size: int64(len(raw)), secure: e.scheme == "https"}
	for _, x := range imageBlobs(m) {
		found.size += x.size
	}
	return found, nil
}

// advise says what to do about an answer of a registry.
func advise(err error, e endpoint) error {
	// The registry's library has no type of its own for these.
	for _, other := range []string{"does not match requested digest", "error verifying sha256 checksum"} {
		if strings.Contains(err.Error(), other) {
			return fmt.Errorf("%w: %w", err, errWrong)
		}
	}
	var t *transport.Error
	if !errors.As(err, &t) {
		return err
	}
	switch t.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: log in with `docker login %s`, as the user who runs this", err, e.repo.RegistryStr())
	case http.StatusNotFound:
		return fmt.Errorf("%w: is the version right, and does the mirror have it?", err)
	}
	return err
}
