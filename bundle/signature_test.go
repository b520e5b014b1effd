package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/kubewright/kubewright/host"
)

// sigstore is an instance of our own. The virtual one of sigstore-go puts no timestamp into its certificates.
type sigstore struct {
	root.BaseTrustedMaterial
	fulcio *root.FulcioCertificateAuthority
	key    *ecdsa.PrivateKey // of the authority
	log    *root.TransparencyLog
	logKey *ecdsa.PrivateKey
}

func (s *sigstore) FulcioCertificateAuthorities() []root.CertificateAuthority {
	return []root.CertificateAuthority{s.fulcio}
}

func (s *sigstore) CTLogs() map[string]*root.TransparencyLog {
	return map[string]*root.TransparencyLog{hex.EncodeToString(s.log.ID): s.log}
}

// released is when its certificates begin to be valid. That is long ago, as it will be for whoever installs.
var released = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

func newSigstore(t *testing.T) *sigstore {
	t.Helper()
	s := &sigstore{key: newKey(t), logKey: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fulcio"}, NotBefore: released.AddDate(-1, 0, 0), NotAfter: released.AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true}
	s.fulcio = &root.FulcioCertificateAuthority{Root: sign(t, template, template, s.key.Public(), s.key)}
	public, err := x509.MarshalPKIXPublicKey(s.logKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(public)
	s.log = &root.TransparencyLog{BaseURL: "https://ct.example.org", ID: id[:], PublicKey: s.logKey.Public(), ValidityPeriodStart: released.AddDate(-1, 0, 0)}
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, public any, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf is what a certificate of a release says.
func leaf(identity, issuer string) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(2), EmailAddresses: []string{identity}, NotBefore: released, NotAfter: released.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}}}
}

// certify gives a certificate for a key, as PEM, with a timestamp for what listed says.
func (s *sigstore) certify(t *testing.T, template, listed *x509.Certificate, public any) []byte {
	t.Helper()
	if listed != nil {
		stamp := s.timestamp(t, sign(t, listed, s.fulcio.Root, public, s.key))
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier(ctx509.OIDExtensionCTSCT), Value: stamp})
	}
	cert := sign(t, template, s.fulcio.Root, public, s.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// timestamp is the log's, for a certificate that has none yet, as the value of the extension.
func (s *sigstore) timestamp(t *testing.T, pre *x509.Certificate) []byte {
	t.Helper()
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: [32]byte(s.log.ID)}, Timestamp: uint64(released.UnixMilli())}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(s.fulcio.Root.RawSubjectPublicKeyInfo), TBSCertificate: pre.RawTBSCertificate}}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(input)
	sct.Signature.Algorithm = tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}
	if sct.Signature.Signature, err = ecdsa.SignASN1(rand.Reader, s.logKey, sum[:]); err != nil {
		t.Fatal(err)
	}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	if err != nil {
		t.Fatal(err)
	}
	data, err := tls.Marshal(*list)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestASignatureIsRefusedForWhateverIsWrongWithIt(t *testing.T) {
	ours, key := newSigstore(t), newKey(t)
	file := []byte("kubelet")
	sum := sha256.Sum256(file)
	raw, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := []byte(base64.StdEncoding.EncodeToString(raw) + "\n")
	of := func(identity, issuer string) []byte {
		return ours.certify(t, leaf(identity, issuer), leaf(identity, issuer), key.Public())
	}
	good := of(releaseIdentity, releaseIssuer)

	later, unlogged, unused := newSigstore(t), *ours, *ours
	later.fulcio = &root.FulcioCertificateAuthority{Root: ours.fulcio.Root, ValidityPeriodStart: released.Add(time.Hour)}
	unlogged.log = newSigstore(t).log
	unused.log = &root.TransparencyLog{BaseURL: ours.log.BaseURL, ID: ours.log.ID, PublicKey: ours.log.PublicKey, ValidityPeriodEnd: released.Add(-time.Hour)}
	forged := *ours // a log that says it is ours
	forged.logKey = newKey(t)
	server := leaf(releaseIdentity, releaseIssuer)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const timestamps = "no known log of certificates has a signed certificate timestamp in the certificate: "

	for name, test := range map[string]struct {
		trusted root.TrustedMaterial
		digest  string
		sig     []byte
		cert    []byte
		want    string // of the error; empty: none
	}{
		"good":                       {},
		"good, base64 of PEM":        {cert: []byte(base64.StdEncoding.EncodeToString(good) + "\n")},
		"other identity":             {cert: of("somebody@example.org", releaseIssuer), want: `of the identity "somebody@example.org"`},
		"other issuer":               {cert: of(releaseIdentity, "https://example.org"), want: `by the issuer "https://example.org"`},
		"other digest":               {digest: host.Digest([]byte("other")), want: "the signature is not of sha256:"},
		"no digest":                  {digest: "kubelet", want: `digest "kubelet" is not sha256:`},
		"signature by another key":   {cert: ours.certify(t, leaf(releaseIdentity, releaseIssuer), leaf(releaseIdentity, releaseIssuer), newKey(t).Public()), want: "the signature is not of sha256:"},
		"other root":                 {trusted: newSigstore(t), want: "no certificate authority of the trusted root"},
		"root without authorities":   {trusted: &root.BaseTrustedMaterial{}, want: "no certificate authority of the trusted root has signed the certificate: it has none"},
		"authority not yet in use":   {trusted: later, want: "no certificate authority of the trusted root"},
		"certificate for a server":   {cert: ours.certify(t, server, leaf(releaseIdentity, releaseIssuer), key.Public()), want: "no certificate authority of the trusted root"},
		"without timestamp":          {cert: ours.certify(t, leaf(releaseIdentity, releaseIssuer), nil, key.Public()), want: timestamps + "there is none"},
		"timestamp of another one":   {cert: ours.certify(t, leaf(releaseIdentity, releaseIssuer), leaf("somebody@example.org", releaseIssuer), key.Public()), want: timestamps},
		"timestamp of unknown log":   {trusted: &unlogged, want: timestamps + "the log "},
		"timestamp of a disused log": {trusted: &unused, want: timestamps + "the log https://ct.example.org was not in use at 2024-05-01"},
		"timestamp forged":           {cert: forged.certify(t, leaf(releaseIdentity, releaseIssuer), leaf(releaseIdentity, releaseIssuer), key.Public()), want: timestamps},
		"Ed25519 key":                {cert: ours.certify(t, leaf(releaseIdentity, releaseIssuer), leaf(releaseIdentity, releaseIssuer), edPublic), sig: []byte(base64.StdEncoding.EncodeToString(ed25519.Sign(edKey, nil))), want: "not ECDSA"},
		"garbage for signature":      {sig: []byte("<html>not found</html>"), want: "the signature is not base64"},
		"another's signature":        {sig: []byte(base64.StdEncoding.EncodeToString([]byte("kubelet"))), want: "the signature is not of sha256:"},
		"garbage for certificate":    {cert: []byte("<html>not found</html>"), want: "the certificate is not PEM"},
		"base64 of garbage":          {cert: []byte(base64.StdEncoding.EncodeToString([]byte("not found"))), want: "the certificate is not PEM"},
		"certificate cut short":      {cert: good[:len(good)/2], want: "the certificate is not PEM"},
		"empty certificate":          {cert: []byte("\n"), want: "the certificate is not PEM"},
		"two certificates":           {cert: append(good[:len(good):len(good)], good...), want: "it holds 2 certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.trusted == nil {
				test.trusted = ours
			}
			if test.digest == "" {
				test.digest = host.Digest(file)
			}
			if test.sig == nil {
				test.sig = signature
			}
			if test.cert == nil {
				test.cert = good
			}
			err := verifySignature(test.trusted, test.digest, test.sig, test.cert)
			if test.want == "" && err != nil {
				t.Fatal(err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("%v\nlacks %q", err, test.want)
			}
		})
	}
}

// The certificate is a real one, of sigstore-js 2.0.0; it comes with sigstore-go's test data (Apache-2.0). That its
// identity is what is wrong with it says that Fulcio's authority and the log's timestamp are good by the embedded root.
func TestARealCertificateIsGoodByTheEmbeddedRoot(t *testing.T) {
	trusted, err := publicGood()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := os.ReadFile("testdata/fulcio.pem")
	if err != nil {
		t.Fatal(err)
	}
	err = verifySignature(trusted, host.Digest([]byte("kubelet")), nil, cert)
	const want = `the certificate is of the identity "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v\nlacks %q", err, want)
	}
	if err := verifySignature(newSigstore(t), host.Digest([]byte("kubelet")), nil, cert); err == nil || !strings.Contains(err.Error(), "no certificate authority") {
		t.Errorf("by another root: %v", err)
	}
}
