package addons

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubewright/kubewright/config"
)

const kubeFlannel = "kube-flannel" // namespace

// Flannel returns flannel, after kube-flannel.yml of v0.28.10. Server is the address of the
// API that works on every node without kube-proxy, as in [ClusterInfo].
func Flannel(c *config.Cluster, server string) ([]Object, error) {
	network, err := netConf(c)
	if err != nil {
		return nil, err
	}
	api, err := url.Parse(server)
	if err != nil || api.Hostname() == "" {
		return nil, fmt.Errorf("API address %q is no URL with a host", server)
	}
	labels := map[string]string{"k8s-app": "flannel"}
	namespace := &corev1.Namespace{ObjectMeta: labelled("", kubeFlannel, map[string]string{
		"k8s-app":                            "flannel",
		"pod-security.kubernetes.io/enforce": "privileged",
	})}
	account, subject := serviceAccount(kubeFlannel, "flannel")
	account.Labels = labels
	role := &rbacv1.ClusterRole{
		ObjectMeta: labelled("", "flannel", labels),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
		},
	}
	binding := clusterBinding("flannel", "flannel", subject)
	binding.Labels = labels
	cm := &corev1.ConfigMap{
		ObjectMeta: labelled(kubeFlannel, "kube-flannel-cfg", map[string]string{"tier": "node", "k8s-app": "flannel", "app": "flannel"}),
		Data:       map[string]string{"cni-conf.json": cniConf, "net-conf.json": network},
	}
	return objects(namespace, role, binding, account, cm, flannelDaemonSet(c, api)), nil
}

const cniConf = `{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`

// netConf is flanneld's configuration, which knows a range of IPv4 and one of IPv6 by
// different names.
func netConf(c *config.Cluster) (string, error) {
	pods, err := netip.ParsePrefix(c.Spec.Network.PodCIDR)
	if err != nil {
		return "", fmt.Errorf("spec.network.podCIDR: %w", err)
	}
	type backend struct{ Type string }
	conf := struct {
		Network        string `json:",omitempty"`
		EnableIPv4     *bool  `json:",omitempty"` // flanneld's default is true
		EnableIPv6     bool   `json:",omitempty"`
		IPv6Network    string `json:",omitempty"`
		EnableNFTables bool
		Backend        backend
	}{Backend: backend{c.Spec.Network.CNI.Flannel.Backend}}
	if pods.Addr().Is4() {
		conf.Network = pods.String()
	} else {
		conf.EnableIPv4, conf.EnableIPv6, conf.IPv6Network = new(false), true, pods.String()
	}
	out, err := json.MarshalIndent(conf, "", "  ")
	return string(out) + "\n", err
}
