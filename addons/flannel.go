package addons

import (
	"encoding/json"
	"fmt"
	"strconv"

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
	api, err := parseAPI(server)
	if err != nil {
		return nil, err
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
		Data:       map[string]string{"cni-conf.json": cniConf(c), "net-conf.json": network},
	}
	return objects(namespace, role, binding, account, cm, flannelDaemonSet(c, api, cm)), nil
}

// cniConf is what the CNI plugins of a node read, but for the words in capitals, which [installConf] replaces: flanneld
// knows them.
func cniConf(c *config.Cluster) string {
	mtu := "MTU"
	if n := c.Spec.Network.CNI; n.MTU > 0 && overheads[n.Flannel.Backend] == 0 {
		mtu = strconv.Itoa(n.MTU)
	}
	return fmt.Sprintf(`{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "hairpinMode": true,
      "isDefaultGateway": true,
      "mtu": %s,
      "ipam": {
        "type": "host-local",
        "ranges": [RANGES],
        "routes": [ROUTES]
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
`, mtu)
}

// overheads are what flannel's backends take off the MTU that they are told, which is that of the link, to
// have that of the pods. Host-gw has none, and is told none: there the MTU is the bridge's to set.
var overheads = map[string]int{"vxlan": 50, "wireguard": 80}

// netConf is flanneld's configuration, which knows a range of IPv4 and one of IPv6 by
// different names.
func netConf(c *config.Cluster) (string, error) {
	n := c.Spec.Network
	type backend struct {
		Type string
		MTU  int `json:",omitempty"`
	}
	conf := struct {
		Network        string `json:",omitempty"`
		EnableIPv4     *bool  `json:",omitempty"` // flanneld's default is true
		EnableIPv6     bool   `json:",omitempty"`
		IPv6Network    string `json:",omitempty"`
		EnableNFTables bool
		Backend        backend
	}{EnableNFTables: n.CNI.Flannel.NFTables, Backend: backend{Type: n.CNI.Flannel.Backend}}
	for _, pods := range n.PodRanges() {
		if pods.Addr().Is4() {
			conf.Network = pods.String()
		} else {
			conf.EnableIPv6, conf.IPv6Network = true, pods.String()
		}
	}
	if conf.Network == "" && conf.IPv6Network == "" {
		return "", fmt.Errorf("spec.network.podCIDR: %q is no range", n.PodCIDR)
	}
	if conf.Network == "" {
		conf.EnableIPv4 = new(false)
	}
	if overhead := overheads[conf.Backend.Type]; n.CNI.MTU > 0 && overhead > 0 {
		conf.Backend.MTU = n.CNI.MTU + overhead
	}
	out, err := json.MarshalIndent(conf, "", "  ")
	return string(out) + "\n", err
}
