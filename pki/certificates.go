package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	cfssl "github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/csr"
	"github.com/cloudflare/cfssl/helpers"
	"github.com/cloudflare/cfssl/initca"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"
	"k8s.io/client-go/util/keyutil"

	"github.com/kubewright/kubewright/host"
)

// backdate allows for clocks that differ a little; kubeadm's value.
const backdate = 5 * time.Minute

// UnsignedError lists certificates that only an external CA can sign. The files that came
// with it hold their keys and requests: write them, have the requests signed, put each
// certificate in its place, and run again.
type UnsignedError struct{ Missing []Unsigned }

// Unsigned is one of them, as paths.
type Unsigned struct{ Certificate, Request, CA string }

func (e *UnsignedError) Error() string {
	var b strings.Builder
	b.WriteString("certificates are missing whose CA has its key elsewhere: have these requests signed and put the certificates there, then run again:")
	for _, m := range e.Missing {
		fmt.Fprintf(&b, "\n  - sign %s with %s, write %s", m.Request, m.CA, m.Certificate)
	}
	return b.String()
}

func (e *UnsignedError) orNil() error {
	if len(e.Missing) == 0 {
		return nil
	}
	return e
}

// Certificates are the certificates and keys that the host lacks, in the order in which to
// write them: each key before its certificate, so that a run that is killed in between
// leaves a key, from which the next makes the certificate.
//
// With an *[UnsignedError] come the files that could be made.
func (s *Secrets) Certificates() ([]host.File, error) { return s.certificates() }

func (s *Secrets) makeCertificates() ([]host.File, error) {
	var files []host.File
	var unsigned UnsignedError
	for _, sp := range table {
		if !on(sp, s.cluster, s.node) || sp.isKubeconfig() {
			continue
		}
		if sp.isCA() {
			if s.controlPlane() {
				files = s.addMissing(files, sp.name+".key", s.have[sp.name+".key"])
			}
			files = s.addMissing(files, sp.name+".crt", s.have[sp.name+".crt"])
			continue
		}
		if sp.name == KubeletServing && s.pairs[CA].key == nil {
			continue // the kubelet makes one for itself
		}
		if s.pairs[sp.name].certs != nil {
			continue
		}
		i, err := s.issue(sp)
		if err != nil {
			return nil, err
		}
		files = s.addMissing(files, sp.name+".key", i.key)
		if i.request != nil {
			files = s.addRequest(files, sp, i, &unsigned)
			continue
		}
		files = s.addMissing(files, sp.name+".crt", i.cert)
	}
	if s.controlPlane() {
		files = s.addMissing(files, ServiceAccount+".key", s.have[ServiceAccount+".key"])
		files = s.addMissing(files, ServiceAccount+".pub", s.have[ServiceAccount+".pub"])
	}
	return files, unsigned.orNil()
}

func (s *Secrets) addMissing(files []host.File, path string, content []byte) []host.File {
	if _, ok := s.onHost[path]; ok || content == nil {
		return files
	}
	f := host.File{Path: path, Mode: 0o600, Content: host.Bytes(content), Secret: true}
	switch {
	case strings.HasSuffix(path, ".crt"), strings.HasSuffix(path, ".csr"):
		f.Mode, f.Secret = 0o644, false
	case strings.HasSuffix(path, ".pub"):
		f.Secret = false // 0600 all the same, as kubeadm writes it
	}
	return append(files, f)
}

// addRequest adds what an external CA has to sign, unless the same request is there.
func (s *Secrets) addRequest(files []host.File, sp spec, i issued, unsigned *UnsignedError) []host.File {
	path := sp.name + ".csr"
	unsigned.Missing = append(unsigned.Missing, Unsigned{Certificate: sp.name + ".crt", Request: path, CA: sp.parent + ".crt"})
	if bytes.Equal(s.have[path], i.request) {
		return files
	}
	return append(files, host.File{Path: path, Mode: 0o644, Content: host.Bytes(i.request)})
}

// issued is a key with its certificate or, where the CA's key is elsewhere, a request for it. All PEM.
type issued struct{ key, cert, request []byte }

// issue makes a leaf, from its key if there is one.
func (s *Secrets) issue(sp spec) (i issued, err error) {
	p, ca := s.pairs[sp.name], s.pairs[sp.parent]
	key, keyPEM, err := s.key(p.key)
	if err != nil {
		return i, fmt.Errorf("make %s.key: %w", sp.name, err)
	}
	i.key = keyPEM
	request := &csr.CertificateRequest{CN: sp.commonName(s.node), Hosts: sp.hosts(s.cluster, s.node)}
	if sp.org != "" {
		request.Names = []csr.Name{{O: sp.org}}
	}
	csrPEM, err := csr.Generate(key, request)
	if err != nil {
		return i, fmt.Errorf("make %s.csr: %w", sp.name, err)
	}
	if ca.key == nil {
		i.request = csrPEM
		if old := s.have[sp.name+".csr"]; sameRequest(old, csrPEM) {
			i.request = old
		}
		return i, nil
	}
	usages := append([]string{"digital signature"}, sp.usages...)
	if _, ok := key.(*rsa.PrivateKey); ok {
		// Only RSA keys can encipher; kubeadm still writes it for ECDSA: kubernetes#141838.
		usages = append(usages, "key encipherment")
	}
	i.cert, err = s.sign(ca, csrPEM, &cfssl.SigningProfile{Usage: usages}, s.cluster.Spec.PKI.Validity.Duration)
	if err != nil {
		return i, fmt.Errorf("make %s.crt: %w", sp.name, err)
	}
	return i, nil
}

// selfSign is initca.New, but with a key that may exist and at a time that is given.
func (s *Secrets) selfSign(sp spec, key crypto.Signer) ([]byte, error) {
	csrPEM, err := csr.Generate(key, &csr.CertificateRequest{CN: sp.cn, CA: &csr.CAConfig{}})
	if err != nil {
		return nil, err
	}
	return s.sign(pair{key: key}, csrPEM, initca.CAPolicy().Default, s.cluster.Spec.PKI.CAValidity.Duration)
}

// sign signs a request; a CA without certificate signs its own.
func (s *Secrets) sign(ca pair, csrPEM []byte, profile *cfssl.SigningProfile, validity time.Duration) ([]byte, error) {
	profile.Expiry = validity // NotAfter below decides, but cfssl takes no profile without
	var caCert *x509.Certificate
	if ca.certs != nil {
		caCert = ca.certs[0]
	}
	l, err := local.NewSigner(ca.key, caCert, signer.DefaultSigAlgo(ca.key), &cfssl.Signing{Default: profile})
	if err != nil {
		return nil, err
	}
	return l.Sign(signer.SignRequest{Request: string(csrPEM), NotBefore: s.now.Add(-backdate), NotAfter: s.now.Add(validity)})
}

// algorithms are the choices of spec.pki.algorithm, for cfssl.
var algorithms = map[string]csr.KeyRequest{
	"ECDSA-P256": {A: "ecdsa", S: 256},
	"ECDSA-P384": {A: "ecdsa", S: 384},
	"RSA-2048":   {A: "rsa", S: 2048},
	"RSA-3072":   {A: "rsa", S: 3072},
	"RSA-4096":   {A: "rsa", S: 4096},
}

// key returns old, or a new key if it is nil, with its PEM.
func (s *Secrets) key(old crypto.Signer) (crypto.Signer, []byte, error) {
	if old == nil {
		request, ok := algorithms[s.cluster.Spec.PKI.Algorithm]
		if !ok {
			return nil, nil, fmt.Errorf("unknown spec.pki.algorithm %q", s.cluster.Spec.PKI.Algorithm)
		}
		k, err := request.Generate()
		if err != nil {
			return nil, nil, err
		}
		old = k.(crypto.Signer)
	}
	b, err := keyutil.MarshalPrivateKeyToPEM(old)
	return old, b, err
}

func publicKeyPEM(k crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyutil.PublicKeyBlockType, Bytes: der}), nil
}

// sameRequest tells whether two requests ask for the same; their signatures always differ.
func sameRequest(a, b []byte) bool {
	x, rest, err := helpers.ParseCSR(a)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return false
	}
	y, _, err := helpers.ParseCSR(b)
	return err == nil && samePublicKey(x.PublicKey, y.PublicKey) && bytes.Equal(x.RawSubject, y.RawSubject) &&
		slices.Equal(x.DNSNames, y.DNSNames) && slices.EqualFunc(x.IPAddresses, y.IPAddresses, net.IP.Equal)
}
