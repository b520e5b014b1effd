package manifests

import (
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	proxyv1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

// KubeProxyConfiguration is key config.conf of kube-system/kube-proxy: kubeadm's defaults,
// and spec.kubeProxy.config over them. It is of no use where the mode is none.
func KubeProxyConfiguration(c *config.Cluster) ([]byte, error) {
	k := proxyv1.KubeProxyConfiguration{
		TypeMeta:     metav1.TypeMeta{APIVersion: proxyv1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		BindAddress:  "0.0.0.0",
		ClusterCIDR:  c.Spec.Network.PodCIDR,
		FeatureGates: maps.Clone(c.Spec.FeatureGates),
		Mode:         proxyv1.ProxyMode(c.Spec.KubeProxy.Mode),
	}
	k.ClientConnection.Kubeconfig = "/var/lib/kube-proxy/kubeconfig.conf"
	// kubeadm looks at the advertised address; it is of the family of the first service
	// range, else the API server does not start.
	if c.Spec.Network.IPv6() {
		k.BindAddress = "::"
	}
	if err := overlay(c.Spec.KubeProxy.Config, &k); err != nil {
		return nil, fmt.Errorf("spec.kubeProxy.config: %w", err)
	}
	if string(k.Mode) != c.Spec.KubeProxy.Mode {
		return nil, fmt.Errorf("spec.kubeProxy.config.mode: %q contradicts spec.kubeProxy.mode %q: set only the latter", k.Mode, c.Spec.KubeProxy.Mode)
	}
	return yaml.Marshal(k)
}

// KubeProxyKubeconfig is key kubeconfig.conf of kube-system/kube-proxy. Server is the URL of
// the control plane's endpoint.
func KubeProxyKubeconfig(server string) []byte {
	return []byte(`apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: ` + server + `
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
`)
}
