package addons

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"github.com/kubewright/kubewright/pki"
)

// VerifyClusterInfo trusts a cluster-info that was read over an unverified connection, in
// two steps: its signature is by the token that both sides know, and one certificate of its
// CA bundle has a public key that is pinned ("sha256:" and the hexadecimal digest of the
// SubjectPublicKeyInfo). SkipCA leaves out the second step; whoever knows the token could
// then pose as the API. It returns the API's URL and CA.
func VerifyClusterInfo(cm *corev1.ConfigMap, t Token, pins []string, skipCA bool) (server string, ca []byte, err error) {
	if len(pins) == 0 && !skipCA {
		return "", nil, errors.New("no CA pin: give --discovery-token-ca-cert-hash, as the join command has it, or accept any CA with --discovery-token-unsafe-skip-ca-verification")
	}
	if err := CheckPins(pins); err != nil {
		return "", nil, err
	}
	kubeconfig := cm.Data[api.KubeConfigKey]
	if kubeconfig == "" {
		return "", nil, errors.New("cluster-info holds no kubeconfig: this API server is not set up for joining by token")
	}
	signature := cm.Data[api.JWSSignatureKeyPrefix+t.ID()]
	if signature == "" {
		return "", nil, fmt.Errorf("cluster-info is not signed by token %s: it has expired, was deleted or is mistyped; make a new one on a control plane with `kubewright token create --print-join-command`", t.ID())
	}
	if !jws.DetachedTokenIsValid(signature, kubeconfig, t.ID(), t.key()) {
		return "", nil, fmt.Errorf("the signature of cluster-info does not match token %s: the token's secret is mistyped, or something between here and the API server has changed the answer; if a new command, from `kubewright token create --print-join-command` on a control plane, says the same, do not trust the network", t.ID())
	}

	parsed, err := clientcmd.Load([]byte(kubeconfig))
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig of cluster-info: %w", err)
	}
	if len(parsed.Clusters) != 1 {
		return "", nil, fmt.Errorf("kubeconfig of cluster-info names %d clusters, not one", len(parsed.Clusters))
	}
	for _, cluster := range parsed.Clusters {
		server, ca = cluster.Server, cluster.CertificateAuthorityData
	}
	certs, err := cert.ParseCertsPEM(ca)
	if err != nil {
		return "", nil, fmt.Errorf("CA of cluster-info: %w", err)
	}
	if !skipCA {
		if err := pinned(certs, pins); err != nil {
			return "", nil, err
		}
	}
	return server, ca, nil
}

// CheckPins wants pins to be sha256:HEX.
func CheckPins(pins []string) error {
	for _, pin := range pins {
		digest, ok := strings.CutPrefix(strings.ToLower(pin), "sha256:")
		if raw, err := hex.DecodeString(digest); !ok || err != nil || len(raw) != sha256.Size {
			return fmt.Errorf("CA pin %q: must be sha256: and 64 hexadecimal digits", pin)
		}
	}
	return nil
}

func pinned(certs []*x509.Certificate, pins []string) error {
	var found []string
	for _, c := range certs {
		pin := pki.Pin(c)
		if slices.ContainsFunc(pins, func(p string) bool { return strings.EqualFold(p, pin) }) {
			return nil
		}
		found = append(found, pin)
	}
	return fmt.Errorf("the cluster's CA is not the pinned one: pinned %s, found %s; take the pin from the join command of this very cluster",
		strings.Join(pins, ", "), strings.Join(found, ", "))
}
