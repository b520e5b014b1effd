package addons

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubewright/kubewright/pki"
)

const testServer = "https://192.0.2.1:6443"

func TestVerifyClusterInfo(t *testing.T) {
	token := exampleToken(t)
	stranger := func(text string) Token {
		other, err := ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		return other
	}
	ca, pin := newCA(t)
	other, otherPin := newCA(t)
	bundle := append(bytes.Clone(other), ca...)
	type change = func(*corev1.ConfigMap)
	for name, test := range map[string]struct {
		ca     []byte
		token  Token
		pins   []string
		skipCA bool
		change change
		want   []string // of the error
	}{
		"good":                           {pins: []string{pin}},
		"any pin may match":              {pins: []string{otherPin, pin}},
		"any certificate may match":      {ca: bundle, pins: []string{pin}},
		"pin in capitals":                {pins: []string{strings.ToUpper(pin)}},
		"no pin, and none wanted":        {skipCA: true},
		"no pin":                         {want: []string{"--discovery-token-ca-cert-hash"}},
		"pin of another cluster":         {pins: []string{otherPin}, want: []string{otherPin, pin}},
		"pin of another cluster, bundle": {ca: bundle, pins: []string{"sha256:" + strings.Repeat("0", 64)}, want: []string{pin, otherPin, "sha256:00"}},
		"pin without algorithm":          {pins: []string{pin[7:]}, want: []string{pin[7:], "64 hexadecimal"}},
		"pin too short":                  {pins: []string{pin[:70]}, want: []string{"64 hexadecimal"}},
		"bad pin beside a good one":      {pins: []string{pin, "md5:00"}, want: []string{"md5:00"}},
		"bad pin that is not looked at":  {pins: []string{"md5:00"}, skipCA: true, want: []string{"md5:00"}},
		"unknown token":                  {token: stranger("zzzzzz.0123456789abcdef"), pins: []string{pin}, want: []string{"zzzzzz", "expired", "token create"}},
		"wrong secret":                   {token: stranger("abcdef.0000000000000000"), pins: []string{pin}, want: []string{"does not match token abcdef"}},
		"server changed on the way": {pins: []string{pin}, want: []string{"does not match"}, change: func(cm *corev1.ConfigMap) {
			cm.Data["kubeconfig"] = strings.Replace(cm.Data["kubeconfig"], "192.0.2.1", "198.51.100.9", 1)
		}},
		"changed, and any CA would do": {skipCA: true, want: []string{"does not match"}, change: func(cm *corev1.ConfigMap) {
			cm.Data["kubeconfig"] += " "
		}},
		"signature of another token": {pins: []string{pin}, want: []string{"does not match"}, change: func(cm *corev1.ConfigMap) {
			cm.Data["jws-kubeconfig-abcdef"] = cm.Data["jws-kubeconfig-fedcba"]
		}},
		"no kubeconfig": {pins: []string{pin}, want: []string{"no kubeconfig"}, change: func(cm *corev1.ConfigMap) { cm.Data = nil }},
		"no CA":         {ca: []byte("nothing"), skipCA: true, want: []string{"CA of cluster-info"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.ca == nil {
				test.ca = ca
			}
			if test.token == (Token{}) {
				test.token = token
			}
			cm := clusterInfo(t, test.ca, token, stranger("fedcba.fedcba9876543210"))
			if test.change != nil {
				test.change(cm)
			}
			server, gotCA, err := VerifyClusterInfo(cm, test.token, test.pins, test.skipCA)
			if test.want == nil {
				if err != nil || server != testServer || !bytes.Equal(gotCA, test.ca) {
					t.Fatalf("server %q, CA\n%s, error %v", server, gotCA, err)
				}
				return
			}
			if err == nil || server != "" || gotCA != nil {
				t.Fatalf("server %q and CA %q were trusted, error %v", server, gotCA, err)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not mention %q", err, part)
				}
			}
			if strings.Contains(err.Error(), test.token.key()) {
				t.Errorf("error tells the secret: %q", err)
			}
		})
	}
}

func clusterInfo(t *testing.T, ca []byte, tokens ...Token) *corev1.ConfigMap {
	t.Helper()
	objects, err := ClusterInfo(testServer, ca, tokens)
	if err != nil {
		t.Fatal(err)
	}
	cm := &corev1.ConfigMap{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(find(t, objects, "ConfigMap cluster-info").Object, cm); err != nil {
		t.Fatal(err)
	}
	return cm
}

func newCA(t *testing.T) (certificate []byte, pin string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pki.Pin(parsed)
}
