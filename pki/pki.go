// Package pki is the certificates, keys and kubeconfigs of a cluster, made with cfssl.
//
// In goes a Cluster, a Node, and what a host already has; out come the files that are
// missing. What exists is never replaced. Nothing here touches a host.
//
// Paths, names, subjects and usages are kubeadm's, so that its `join`, `certs` and
// `upgrade` work on them; [New] is for the first control plane, [Join] for every other host.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/log"
	"github.com/hashicorp/go-multierror"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Secrets are the certificates, keys and kubeconfigs of one host. They don't change once
// made, and every method gives the same answer each time, also from many goroutines.
type Secrets struct {
	cluster *config.Cluster
	node    config.Node
	now     time.Time
	onHost  map[string][]byte // by path
	have    map[string][]byte // by path: what is on the host, what the cluster shares, and what New made
	pairs   map[string]pair   // by name: what of that could be parsed

	certificates func() ([]host.File, error)
	kubeconfigs  func() ([]host.File, error)
	clientConfig func() ([]byte, error)
}

// pair is a certificate and its key; either may be missing.
type pair struct {
	certs []*x509.Certificate // the certificate first; behind it, its chain or the other CAs of a bundle
	key   crypto.Signer
}

// Paths lists every certificate, key and kubeconfig that such a host may have: what the
// caller reads and passes as existing.
func Paths(n config.Node) []string {
	controlPlane := n.Has(config.ControlPlaneRole)
	var paths []string
	for _, sp := range table {
		crt, key, csr := sp.name+".crt", sp.name+".key", sp.name+".csr"
		switch {
		case !on(sp, nil, n):
		case !controlPlane && sp.isKubeconfig():
			paths = append(paths, sp.name)
		case !controlPlane && sp.isCA():
			paths = append(paths, crt)
		case sp.isCA(), sp.name == KubeletServing:
			paths = append(paths, crt, key)
		case sp.isKubeconfig():
			paths = append(paths, sp.name, crt, key, csr) // the last three with an external CA
		default:
			paths = append(paths, crt, key, csr)
		}
	}
	if controlPlane {
		paths = append(paths, ServiceAccount+".key", ServiceAccount+".pub")
	}
	return paths
}

// on tells whether a host has it. An external etcd has certificates that are not ours.
func on(sp spec, c *config.Cluster, n config.Node) bool {
	if c != nil && c.Spec.Etcd.External != nil && (sp.name == EtcdCA || sp.parent == EtcdCA) {
		return false
	}
	return sp.worker || n.Has(config.ControlPlaneRole)
}

// SharedPaths are the files that all control planes have in common.
func SharedPaths() []string {
	paths := []string{ServiceAccount + ".key", ServiceAccount + ".pub"}
	for _, sp := range table {
		if sp.isCA() {
			paths = append(paths, sp.name+".crt", sp.name+".key")
		}
	}
	return paths
}

// New reads what a host has, by path, and makes the CAs and the service account key that
// it lacks; everything else is made when it is asked for. So New is only for a cluster
// that does not exist yet, and for hosts that have their CAs; [Join] never makes a CA.
//
// A CA certificate without its key is an external CA: what it should sign must be there,
// or [Secrets.Certificates] returns an *[UnsignedError].
//
// The error holds everything that is wrong with what exists.
func New(c *config.Cluster, n config.Node, existing map[string][]byte, now time.Time) (*Secrets, error) {
	return load(c, n, existing, nil, now, true)
}

// Begin is New for a cluster whose making may have been cut short: shared is what any of its control planes has got.
func Begin(c *config.Cluster, n config.Node, existing, shared map[string][]byte, now time.Time) (*Secrets, error) {
	return load(c, n, existing, shared, now, true)
}

// Join is New for a host of a cluster that exists. Shared holds, by path, what the host
// should have in common with the others: [Secrets.Shared] of a control plane, the content
// of the Secret kubeadm-certs, or for a worker ca.crt alone. With ca.key among it, the
// kubelet's certificates are made too. A host that has something else in their place is an error.
func Join(c *config.Cluster, n config.Node, existing, shared map[string][]byte, now time.Time) (*Secrets, error) {
	return load(c, n, existing, shared, now, false)
}

func load(c *config.Cluster, n config.Node, existing, fromCluster map[string][]byte, now time.Time, mayMakeCA bool) (*Secrets, error) {
	quiet()
	s := &Secrets{cluster: c, node: n, now: now.UTC().Truncate(time.Second), onHost: existing, have: maps.Clone(existing), pairs: map[string]pair{}}
	if s.have == nil {
		s.have = map[string][]byte{}
	}
	s.certificates = sync.OnceValues(s.makeCertificates)
	s.kubeconfigs = sync.OnceValues(s.makeKubeconfigs)
	s.clientConfig = sync.OnceValues(s.makeClientConfig)

	var all *multierror.Error
	report := func(err error) {
		if err != nil {
			all = multierror.Append(all, err)
		}
	}
	if s.controlPlane() && !n.IP().IsValid() {
		report(fmt.Errorf("node %s has no address: a control plane's certificates and kubeconfigs hold it, so give it one", n.Name))
	}
	for _, path := range SharedPaths() {
		theirs, ok := fromCluster[path]
		if !ok {
			continue
		}
		// Keys are compared by what belongs to them, as the same key can be encoded in two ways.
		if ours, ok := existing[path]; ok && !strings.HasSuffix(path, ".key") && !samePEM(ours, theirs) {
			report(fmt.Errorf("%s on %s is not the cluster's: move it away with all that it signed, if the host belongs to this cluster", path, n.Name))
		} else if !ok {
			s.have[path] = theirs
		}
	}
	for _, sp := range table {
		if !on(sp, c, n) {
			continue
		}
		p, err := s.read(sp)
		report(err)
		s.pairs[sp.name] = p
	}
	report(s.readServiceAccount())
	if err := config.Errors(all); err != nil {
		return nil, err
	}

	for _, sp := range table {
		if on(sp, c, n) && sp.isCA() && s.pairs[sp.name].certs == nil {
			report(s.newCA(sp, mayMakeCA))
		}
	}
	if s.controlPlane() {
		report(s.newServiceAccount(mayMakeCA))
	}
	for _, sp := range table {
		// A missing CA was reported above, once.
		if on(sp, c, n) && !sp.isCA() && s.pairs[sp.parent].certs != nil {
			report(s.verify(sp))
		}
	}
	if err := config.Errors(all); err != nil {
		return nil, err
	}
	return s, nil
}

// quiet silences cfssl, which logs every signature at a level that is a global variable.
// Once, because hosts are looked at in parallel.
var quiet = sync.OnceFunc(func() { log.Level = log.LevelFatal })

func (s *Secrets) controlPlane() bool { return s.node.Has(config.ControlPlaneRole) }

// read parses a certificate and its key, and checks that they belong together.
func (s *Secrets) read(sp spec) (p pair, err error) {
	crt, hasCrt := s.have[sp.name+".crt"]
	key, hasKey := s.have[sp.name+".key"]
	if sp.isKubeconfig() {
		if _, ok := s.have[sp.name]; ok {
			return p, nil // verify looks into it; a pair beside it has served its purpose
		}
	}
	if sp.name == KubeletServing && hasCrt {
		// Likely one that the kubelet made for itself: its own matter. Expiry is still told.
		p.certs, _ = certutil.ParseCertsPEM(crt)
		return p, nil
	}
	if hasCrt {
		p.certs, err = certutil.ParseCertsPEM(crt)
		if err != nil {
			return pair{}, fmt.Errorf("%s.crt is not a PEM certificate (%w): restore it from another control plane or a backup, or remove it", sp.name, err)
		}
		if sp.isCA() && !p.certs[0].IsCA {
			return pair{}, fmt.Errorf("%s.crt is not a certificate authority (its first certificate is %q): put the CA's certificate there", sp.name, p.certs[0].Subject)
		}
	}
	if hasKey {
		p.key, err = parseKey(key)
		if err != nil {
			return pair{}, fmt.Errorf("%s.key: %w: restore it from another control plane or a backup, or remove it together with %s.crt", sp.name, err, sp.name)
		}
	}
	switch {
	case hasCrt && hasKey && !samePublicKey(p.certs[0].PublicKey, p.key.Public()):
		return pair{}, fmt.Errorf("%s.key is not the key of %s.crt: restore the one that is, or remove both", sp.name, sp.name)
	case hasCrt && !hasKey && !sp.isCA():
		// The key may be somewhere else for a reason, so we don't assume that the certificate can go.
		return pair{}, fmt.Errorf("%s.crt is there without %s.key: restore the key, or remove the certificate and both are made", sp.name, sp.name)
	}
	return p, nil
}

// newCA makes a CA that is missing. A key alone, which a run that was killed in between
// leaves, gets a certificate.
func (s *Secrets) newCA(sp spec, mayMakeCA bool) error {
	if !mayMakeCA || !s.controlPlane() {
		return fmt.Errorf("%s.crt is missing: it must come from a control plane of the cluster", sp.name)
	}
	// A new CA over what another one signed would break a living cluster. That holds even for
	// a new certificate of the same key: kubeadm wants the very certificate in its kubeconfigs.
	for _, child := range table {
		_, crt := s.have[child.name+".crt"]
		_, conf := s.have[child.name]
		if child.parent == sp.name && child.name != KubeletServing && (crt || conf) {
			return fmt.Errorf("%s.crt is missing, but there is something that it signed (%s): restore the CA from another control plane or a backup, or remove what it signed", sp.name, child.file())
		}
	}
	p := s.pairs[sp.name]
	key, keyPEM, err := s.key(p.key)
	if err != nil {
		return fmt.Errorf("make %s.key: %w", sp.name, err)
	}
	certPEM, err := s.selfSign(sp, key)
	if err != nil {
		return fmt.Errorf("make %s.crt: %w", sp.name, err)
	}
	certs, err := certutil.ParseCertsPEM(certPEM)
	if err != nil {
		return fmt.Errorf("make %s.crt: %w", sp.name, err)
	}
	s.pairs[sp.name] = pair{certs: certs, key: key}
	s.have[sp.name+".crt"] = certPEM
	if p.key == nil {
		s.have[sp.name+".key"] = keyPEM
	}
	return nil
}

// verify checks that a leaf is signed by its CA. Not whether it has expired: [Secrets.Problems].
func (s *Secrets) verify(sp spec) error {
	if conf, ok := s.have[sp.name]; ok && sp.isKubeconfig() {
		return s.verifyKubeconfig(sp, conf)
	}
	certs := s.pairs[sp.name].certs
	if sp.name != KubeletServing && certs != nil && !s.signed(sp, certs) {
		return fmt.Errorf("%s.crt is not signed by %s.crt (issuer %q, CA %q): restore the right one, or remove it and it is made", sp.name, sp.parent, certs[0].Issuer, s.pairs[sp.parent].certs[0].Subject)
	}
	return nil
}

// signed tells whether one of the CAs in the parent's bundle vouches for certs[0].
func (s *Secrets) signed(sp spec, certs []*x509.Certificate) bool {
	chain := x509.NewCertPool()
	for _, c := range certs[1:] {
		chain.AddCert(c)
	}
	for _, ca := range s.pairs[sp.parent].certs {
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		at := certs[0].NotBefore
		if ca.NotBefore.After(at) {
			at = ca.NotBefore
		}
		_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			return true
		}
	}
	return false
}

// readServiceAccount checks sa.key and sa.pub, which may hold the keys of before, too.
func (s *Secrets) readServiceAccount() error {
	key, hasKey := s.have[ServiceAccount+".key"]
	pub, hasPub := s.have[ServiceAccount+".pub"]
	if !s.controlPlane() || !hasKey && !hasPub {
		return nil
	}
	if !hasKey {
		return fmt.Errorf("%s.pub is there without %s.key: restore the key from another control plane, or remove sa.pub and both are made (tokens of before become invalid)", ServiceAccount, ServiceAccount)
	}
	k, err := parseKey(key)
	if err != nil {
		return fmt.Errorf("%s.key: %w: restore it from another control plane or a backup", ServiceAccount, err)
	}
	s.pairs[ServiceAccount] = pair{key: k}
	if !hasPub {
		return nil
	}
	pubs, err := keyutil.ParsePublicKeysPEM(pub)
	if err != nil {
		return fmt.Errorf("%s.pub is not a PEM public key (%w): remove it and it is made from sa.key", ServiceAccount, err)
	}
	for _, p := range pubs {
		if samePublicKey(p, k.Public()) {
			return nil
		}
	}
	return fmt.Errorf("%s.pub does not hold the public key of sa.key: restore the pair from another control plane, or remove sa.pub and it is made from sa.key", ServiceAccount)
}

func (s *Secrets) newServiceAccount(mayMake bool) error {
	old := s.pairs[ServiceAccount].key
	if old == nil && !mayMake {
		return fmt.Errorf("%s.key is missing: it must come from a control plane of the cluster", ServiceAccount)
	}
	key, keyPEM, err := s.key(old)
	if err != nil {
		return fmt.Errorf("make %s.key: %w", ServiceAccount, err)
	}
	s.pairs[ServiceAccount] = pair{key: key}
	if old == nil {
		s.have[ServiceAccount+".key"] = keyPEM
	}
	if _, ok := s.have[ServiceAccount+".pub"]; !ok {
		s.have[ServiceAccount+".pub"], err = publicKeyPEM(key.Public())
	}
	return err
}

// Shared is, by path, what every control plane of the cluster has in common: the CAs,
// their keys unless external, and the service account's keys.
func (s *Secrets) Shared() map[string][]byte {
	m := map[string][]byte{}
	for _, path := range SharedPaths() {
		if b, ok := s.have[path]; ok {
			m[path] = b
		}
	}
	return m
}

// CACert is ca.crt: what the API server's clients trust, one certificate or a bundle.
func (s *Secrets) CACert() []byte { return s.have[CA+".crt"] }

// CAHashes are the pins for `kubeadm join --discovery-token-ca-cert-hash`, one for each
// certificate in ca.crt; any of them will do.
func (s *Secrets) CAHashes() []string {
	var pins []string
	for _, c := range s.pairs[CA].certs {
		pins = append(pins, Pin(c))
	}
	return pins
}

// Pin is "sha256:" and the hash of a certificate's public key (RFC 7469), in hex as kubeadm writes it.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func parseKey(b []byte) (crypto.Signer, error) {
	k, err := keyutil.ParsePrivateKeyPEM(b)
	if err != nil {
		return nil, errors.New("not a PEM private key")
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	}
	return nil, errors.New("neither an RSA nor an ECDSA key, which is what kubeadm can read")
}

func samePublicKey(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

func samePEM(a, b []byte) bool { return strings.TrimSpace(string(a)) == strings.TrimSpace(string(b)) }
