package addons

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// CertificatesName is the Secret of kube-system in which control planes find what all of
// them have in common, encrypted.
const CertificatesName = "kubeadm-certs"

// CertificatesTTL is how long it stays there; kubeadm's value.
const CertificatesTTL = 2 * time.Hour

// CertificateKey encrypts and decrypts the Secret kubeadm-certs. [ParseCertificateKey] and
// [NewCertificateKey] make it; the zero value is no key. It comes out by
// [CertificateKey.Reveal] alone.
type CertificateKey struct {
	key *[32]byte // a pointer for the reason that Token has one
}

var errKeyForm = errors.New("a certificate key has 64 characters, all of 0-9 and a-f")

// ParseCertificateKey reads 64 hex digits. Its error never repeats what was given.
func ParseCertificateKey(s string) (CertificateKey, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return CertificateKey{}, errKeyForm
	}
	return CertificateKey{(*[32]byte)(b)}, nil
}

// NewCertificateKey makes a key from the system's random source.
func NewCertificateKey() CertificateKey {
	k := CertificateKey{new([32]byte)}
	rand.Read(k.key[:]) // it never fails
	return k
}

// Reveal is the key as 64 hex digits: for the user's terminal, never for a log.
func (k CertificateKey) Reveal() string {
	if k.key == nil {
		return ""
	}
	return hex.EncodeToString(k.key[:])
}

func (k CertificateKey) String() string { return "<certificate key>" }

// aead panics for the zero key, which nobody passes.
func (k CertificateKey) aead() cipher.AEAD {
	block, err := aes.NewCipher(k.key[:])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// CertificatesToken is the Secret that a control plane's certificates in the cluster belong
// to: a token that is good for nothing, but is removed when it has expired, and with it what
// it owns.
func CertificatesToken(expires time.Time) Object {
	return TokenSecret(NewToken(), "Owns the Secret kubeadm-certs, which is removed with it.", expires, nil, nil)
}

// CertificatesSecret returns the Secret kubeadm-certs, owned by the live Secret owner. Files
// are by their key in the Secret; an empty one is what the cluster does not have (the key of
// an external CA), as kubeadm wants to find every key.
func CertificatesSecret(k CertificateKey, owner Object, files map[string][]byte) Object {
	data := map[string][]byte{}
	gcm := k.aead()
	for name, content := range files {
		data[name] = []byte{}
		if len(content) > 0 {
			nonce := make([]byte, gcm.NonceSize())
			rand.Read(nonce)
			data[name] = gcm.Seal(nonce, nonce, content, nil)
		}
	}
	o := objects(&corev1.Secret{ObjectMeta: named(kubeSystem, CertificatesName), Data: data})[0]
	o.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Secret"))})
	return o
}

// Certificates is the content of a live Secret kubeadm-certs, by key, without the empty ones.
func Certificates(k CertificateKey, secret Object) (map[string][]byte, error) {
	var s corev1.Secret
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(secret.Object, &s); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	gcm := k.aead()
	for name, sealed := range s.Data {
		if len(sealed) == 0 {
			continue
		}
		n := gcm.NonceSize()
		if len(sealed) < n {
			return nil, fmt.Errorf("Secret %s/%s: %s is too short to be encrypted: upload it again", kubeSystem, CertificatesName, name)
		}
		content, err := gcm.Open(nil, sealed[:n], sealed[n:], nil)
		if err != nil {
			return nil, fmt.Errorf("the certificate key is not the one with which Secret %s/%s was encrypted: each upload has its own", kubeSystem, CertificatesName)
		}
		files[name] = content
	}
	return files, nil
}
