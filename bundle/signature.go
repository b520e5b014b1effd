package bundle

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/ctutil"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Who signs the binaries of a Kubernetes release, and who said so to Fulcio: see "Verify Signed
// Kubernetes Artifacts" in Kubernetes' documentation.
const (
	releaseIdentity = "krel-staging@k8s-releng-prod.iam.gserviceaccount.com"
	releaseIssuer   = "https://accounts.google.com"
)

// trustedRoot are the keys of sigstore's public instance: Fulcio's certificate authorities and the logs.
// It is examples/trusted-root-public-good.json of github.com/sigstore/sigstore-go v1.3.0, unchanged. When
// sigstore adds a key, what was signed under it is refused here until this file is replaced.
//
//go:embed trusted_root.json
var trustedRoot []byte

// publicGood is sigstore's public instance, as known when this was built. It asks no network.
func publicGood() (root.TrustedMaterial, error) {
	r, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("trusted root of sigstore: %w", err)
	}
	return r, nil
}

// verifySignature checks a keyless signature of cosign, made when Kubernetes was released. digest is the
// sha256:<hex> of the file, signature is base64, certificate is PEM or base64 of it, as upstream publishes them.
//
// Nil proves that Fulcio gave a certificate to the release identity, signed in by the release issuer; that a log
// of certificates which we know has promised to list it, so that a certificate given wrongly can be found out; and
// that the key of that certificate signed this digest.
//
// It does not prove when. The certificate is taken at the time when it began to be valid, and is good for
// ten minutes only; but the entry in the transparency log which says that the signature was made in these is not
// published beside the file. So whoever gets hold of the key later, which is thrown away after signing, can sign
// something else. Nor does it prove that the file is of the version that was asked for: a signed file of another
// one passes. And nobody asks whether the logs still list what they promised.
func verifySignature(trusted root.TrustedMaterial, digest string, signature, certificatePEM []byte) error {
	if !digestForm.MatchString(digest) {
		return fmt.Errorf("digest %q is not sha256: and 64 hex digits", digest)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(signature)))
	if err != nil {
		return fmt.Errorf("the signature is not base64: %w", err)
	}
	cert, err := parseCertificate(certificatePEM)
	if err != nil {
		return err
	}
	chains, err := fulcioChains(trusted, cert)
	if err != nil {
		return err
	}
	if err := checkTimestamps(trusted, chains); err != nil {
		return err
	}
	of, err := certificate.SummarizeCertificate(cert)
	if err != nil {
		return fmt.Errorf("the certificate does not say whose it is: %w", err)
	}
	if of.SubjectAlternativeName != releaseIdentity {
		return fmt.Errorf("the certificate is of the identity %q, not of %s", of.SubjectAlternativeName, releaseIdentity)
	}
	if of.Issuer != releaseIssuer {
		return fmt.Errorf("the certificate's identity was given by the issuer %q, not by %s", of.Issuer, releaseIssuer)
	}
	// cosign makes no other keys; of an Ed25519 key the digest alone would not do.
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("the certificate has a key of type %T, not ECDSA", cert.PublicKey)
	}
	if !ecdsa.VerifyASN1(key, sum, sig) {
		return fmt.Errorf("the signature is not of %s", digest)
	}
	return nil
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	data = bytes.TrimSpace(data)
	if plain, err := base64.StdEncoding.DecodeString(string(data)); err == nil {
		data = plain
	}
	certs, err := cryptoutils.UnmarshalCertificatesFromPEM(data)
	if err == nil && len(certs) != 1 {
		err = fmt.Errorf("it holds %d certificates, should hold one", len(certs))
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate is not PEM, nor base64 of PEM: %w", err)
	}
	return certs[0], nil
}

// fulcioChains are the ways from the certificate to an authority of Fulcio's that was valid when it was.
func fulcioChains(trusted root.TrustedMaterial, cert *x509.Certificate) ([][]*x509.Certificate, error) {
	var last error
	for _, ca := range trusted.FulcioCertificateAuthorities() {
		chains, err := ca.Verify(cert, cert.NotBefore)
		if err == nil {
			return chains, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no certificate authority of the trusted root has signed the certificate: %w", cmp.Or(last, errors.New("it has none")))
}

// checkTimestamps wants one signed certificate timestamp (RFC 6962) in the certificate, by a log of the trusted
// root. sigstore-go's package verify does the same, but brings clients of Rekor with it: 2.7 MB.
func checkTimestamps(trusted root.TrustedMaterial, chains [][]*x509.Certificate) error {
	leaf := chains[0][0]
	scts, err := x509util.ParseSCTsFromCertificate(leaf.Raw)
	if err != nil {
		return fmt.Errorf("signed certificate timestamps of the certificate: %w", err)
	}
	last := errors.New("there is none")
	for _, sct := range scts {
		log, ok := trusted.CTLogs()[hex.EncodeToString(sct.LogID.KeyID[:])]
		if !ok {
			last = fmt.Errorf("the log %x is unknown", sct.LogID.KeyID)
			continue
		}
		when := ct.TimestampToTime(sct.Timestamp)
		if when.Before(log.ValidityPeriodStart) || !log.ValidityPeriodEnd.IsZero() && when.After(log.ValidityPeriodEnd) {
			last = fmt.Errorf("the log %s was not in use at %s", log.BaseURL, when)
			continue
		}
		for _, chain := range chains {
			if last = checkTimestamp(log, chain, sct); last == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("no known log of certificates has a signed certificate timestamp in the certificate: %w", last)
}

// checkTimestamp checks the log's signature. It is over the certificate without its timestamps, and the key of its issuer.
func checkTimestamp(log *root.TransparencyLog, chain []*x509.Certificate, sct *ct.SignedCertificateTimestamp) error {
	if len(chain) < 2 {
		return errors.New("the certificate is an authority's own")
	}
	pair, err := ctx509.ParseCertificates(append(bytes.Clone(chain[0].Raw), chain[1].Raw...))
	if err != nil {
		return err
	}
	return ctutil.VerifySCT(log.PublicKey, pair, sct, true)
}
