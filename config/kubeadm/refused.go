package kubeadm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	pkiDir      = "/etc/kubernetes/pki"
	caCertPath  = pkiDir + "/ca.crt"
	manifestDir = "/etc/kubernetes/manifests"
)

// refusal is a field that we don't honour. Unset, or at one of the values that ask for what
// we do anyway, it is no error.
type refusal struct {
	path    string // from the kind on
	same    []string
	instead string
}

var refused = []refusal{
	{"ClusterConfiguration.certificatesDir", []string{pkiDir}, "certificates are kept in " + pkiDir + ": leave it out"},
	{"ClusterConfiguration.featureGates.NodeLocalCRISocket", []string{"true"}, "the socket is always kept on the node: leave it out"},
	{"ClusterConfiguration.featureGates.PublicKeysECDSA", []string{"false"}, "write encryptionAlgorithm: ECDSA-P256"},
	{"ClusterConfiguration.featureGates.RootlessControlPlane", []string{"false"}, "the control plane runs as root: leave it out"},
	{"InitConfiguration.nodeRegistration.imagePullPolicy", []string{"IfNotPresent", "Never"}, pulls},
	{"InitConfiguration.nodeRegistration.imagePullSerial", []string{"true"}, pulls},
	{"InitConfiguration.timeouts.etcdAPICall", []string{"2m"}, "leave it out"},
	{"InitConfiguration.timeouts.upgradeManifests", []string{"5m"}, "only an upgrade waits so long: leave it out"},
	{"JoinConfiguration.caCertPath", []string{caCertPath}, "the cluster's CA is kept in " + caCertPath + ": leave it out"},
	{"JoinConfiguration.nodeRegistration.imagePullPolicy", []string{"IfNotPresent", "Never"}, pulls},
	{"JoinConfiguration.nodeRegistration.imagePullSerial", []string{"true"}, pulls},
	{"JoinConfiguration.timeouts.etcdAPICall", []string{"2m"}, "leave it out"},
	{"JoinConfiguration.timeouts.upgradeManifests", []string{"5m"}, "only an upgrade waits so long: leave it out"},
	{"KubeletConfiguration.containerRuntimeEndpoint", nil, "write nodeRegistration.criSocket into InitConfiguration"},
	{"KubeletConfiguration.rotateCertificates", []string{"true"}, "a kubelet that lets its certificate expire is lost: leave it out"},
	{"KubeletConfiguration.staticPodPath", []string{manifestDir}, "the control plane's manifests are in " + manifestDir + ": leave it out"},
}

const pulls = "images come from the bundle, and the kubelet pulls what is missing: leave it out"

// secrets are never repeated, not even where they are of a wrong type.
var secrets = []string{
	"InitConfiguration.bootstrapTokens[].token",
	"InitConfiguration.certificateKey",
	"JoinConfiguration.controlPlane.certificateKey",
	"JoinConfiguration.discovery.bootstrapToken.token",
	"JoinConfiguration.discovery.tlsBootstrapToken",
}

// checkFields takes the fields out of a document that the types shall not see, and reports
// those that ask for something else than we do.
func checkFields(kind string, object map[string]any) (errs []error) {
	for _, r := range refused {
		fields(kind, object, r.path, func(at string, parent map[string]any, name string) {
			if !asksNothing(parent[name], r.same) {
				errs = append(errs, fmt.Errorf("%s: kubewright does not honour this: %s", at, r.instead))
			}
			delete(parent, name)
		})
	}
	for _, path := range secrets {
		fields(kind, object, path, func(at string, parent map[string]any, name string) {
			if _, ok := parent[name].(string); !ok && parent[name] != nil {
				errs = append(errs, fmt.Errorf("%s: is not a string: write it in quotes", at))
				delete(parent, name)
			}
		})
	}
	return errs
}

// fields visits what a path leads to, in all items of a list where it says [].
func fields(at string, object map[string]any, path string, visit func(at string, parent map[string]any, name string)) {
	kind, rest, _ := strings.Cut(path, ".")
	if base, _, _ := strings.Cut(at, "."); kind != base {
		return
	}
	walk(at, object, strings.Split(rest, "."), visit)
}

func walk(at string, object map[string]any, path []string, visit func(at string, parent map[string]any, name string)) {
	name, each := strings.CutSuffix(path[0], "[]")
	value, ok := object[name]
	if !ok {
		return
	}
	at += "." + name
	if len(path) == 1 {
		visit(at, object, name)
		return
	}
	if list, ok := value.([]any); ok && each {
		for i, item := range list {
			if o, ok := item.(map[string]any); ok {
				walk(fmt.Sprintf("%s[%d]", at, i), o, path[1:], visit)
			}
		}
	}
	if o, ok := value.(map[string]any); ok && !each {
		walk(at, o, path[1:], visit)
	}
}

func asksNothing(v any, same []string) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	text := fmt.Sprint(v)
	return text == "" || slices.ContainsFunc(same, func(s string) bool {
		a, err := time.ParseDuration(s)
		b, other := time.ParseDuration(text)
		return s == text || err == nil && other == nil && a == b
	})
}
