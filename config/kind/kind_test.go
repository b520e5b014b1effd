package kind

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/kubewright/kubewright/config"
)

const head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"

// everything is a configuration with all that is honoured.
const everything = head + `
name: ci
nodes:
- role: worker
  image: my/node:1
  labels: {tier: front}
  extraMounts: [{hostPath: /src, containerPath: /src, readOnly: true, propagation: HostToContainer}]
- role: control-plane
  extraPortMappings: [{containerPort: 80, hostPort: 8080, listenAddress: 127.0.0.1, protocol: tcp}]
  kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    nodeRegistration:
      kubeletExtraArgs:
        node-labels: "ingress-ready=true,a=b"
  - |
    kind: JoinConfiguration
    nodeRegistration: {taints: []}
- role: control-plane
networking:
  ipFamily: dual
  apiServerAddress: 0.0.0.0
  apiServerPort: 6443
  disableDefaultCNI: true
  kubeProxyMode: nftables
  dnsSearch: []
featureGates: {SomeGate: true}
runtimeConfig: {api/beta: "true", api/alpha: "false"}
containerdConfigPatches: ["[plugins]"]
kubeadmConfigPatches:
- |
  apiVersion: kubeadm.k8s.io/v1beta2
  kind: ClusterConfiguration
  apiServer: {extraArgs: {v: 4, audit-log-path: "-"}}
  ---
  kind: KubeletConfiguration
  maxPods: 200
  podsPerCore: 3
- |
  kind: KubeletConfiguration
  podsPerCore: null
- |
  kind: JoinConfiguration
  nodeRegistration:
    kubeletExtraArgs: [{name: v, value: "2"}]
    taints: [{key: a, effect: NoSchedule}]
`

func TestEverythingOfAConfiguration(t *testing.T) {
	c, err := Parse([]byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Spec
	taints := []corev1.Taint{{Key: "a", Effect: "NoSchedule"}}
	v2 := []config.Arg{{Name: "v", Value: "2"}}
	for what, pair := range map[string][2]any{
		"name":    {c.Metadata.Name, "ci"},
		"ranges":  {s.Network.PodCIDR + " " + s.Network.ServiceCIDR, "10.244.0.0/16,fd00:10:244::/56 10.96.0.0/16,fd00:10:96::/112"},
		"network": {s.Network.CNI.Name, "none"},
		"proxy":   {s.KubeProxy.Mode, "nftables"},
		"gates":   {s.FeatureGates, map[string]bool{"SomeGate": true}},
		"server":  {s.APIServer.ExtraArgs, []config.Arg{{Name: "audit-log-path", Value: "-"}, {Name: "v", Value: "4"}, {Name: "runtime-config", Value: "api/alpha=false,api/beta=true"}}},
		"provider": {s.Provider, config.Provider{Name: "kind", Kind: config.KindProvider{
			APIServerAddress: "0.0.0.0", APIServerPort: 6443, DNSSearch: []string{}, ContainerdConfigPatches: []string{"[plugins]"},
			Nodes: []config.KindNode{
				{Role: "worker", Image: "my/node:1", Labels: map[string]string{"tier": "front"}, Taints: taints, KubeletArgs: v2,
					ExtraMounts: []v1alpha4.Mount{{HostPath: "/src", ContainerPath: "/src", Readonly: true, Propagation: "HostToContainer"}}},
				{Role: "control-plane", Labels: map[string]string{"ingress-ready": "true", "a": "b"},
					ExtraPortMappings: []v1alpha4.PortMapping{{ContainerPort: 80, HostPort: 8080, ListenAddress: "127.0.0.1", Protocol: "TCP"}}},
				{Role: "control-plane", Taints: taints, KubeletArgs: v2},
			},
		}}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %+v, want %+v", what, pair[0], pair[1])
		}
	}
	if n := s.Kubelet["maxPods"]; len(s.Kubelet) != 1 || n == nil {
		t.Errorf("kubelet: %v", s.Kubelet)
	}
}

func TestAnEmptyConfigurationIsKindsOwn(t *testing.T) {
	c, err := Parse([]byte(head))
	if err != nil {
		t.Fatal(err)
	}
	n := c.Spec.Network
	if n.PodCIDR != "10.244.0.0/16" || n.ServiceCIDR != "10.96.0.0/16" || n.CNI.Name != "flannel" || len(c.Spec.Provider.Kind.Nodes) != 1 {
		t.Errorf("%+v", c.Spec)
	}
}

func TestWhatIsNotHonouredIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ text, wants string }{
		"another version":       {"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n", "only Cluster of kind.x-k8s.io/v1alpha4 is read"},
		"an unknown field":      {head + "nodes: [{rolle: worker}]", "nodes[0].rolle: unknown field"},
		"a wrong type":          {head + "networking: {apiServerPort: many}", "networking.apiServerPort: is the string"},
		"JSON 6902":             {head + "kubeadmConfigPatchesJSON6902: [{kind: ClusterConfiguration}]", "kubeadmConfigPatchesJSON6902: kubewright does not honour"},
		"JSON 6902 of a node":   {head + "nodes: [{kubeadmConfigPatchesJSON6902: [{kind: A}]}]", "nodes[0].kubeadmConfigPatchesJSON6902: kubewright does not honour"},
		"a family":              {head + "networking: {ipFamily: ipv5}", "networking.ipFamily: \"ipv5\": write ipv4"},
		"a proxy":               {head + "networking: {kubeProxyMode: userspace}", "networking.kubeProxyMode: \"userspace\""},
		"a propagation":         {head + "nodes: [{extraMounts: [{hostPath: /a, containerPath: /a, propagation: Both}]}]", "nodes[0].extraMounts[0].propagation"},
		"a protocol":            {head + "nodes: [{extraPortMappings: [{containerPort: 80, protocol: QUIC}]}]", "nodes[0].extraPortMappings[0].protocol"},
		"a port":                {head + "nodes: [{extraPortMappings: [{hostPort: 80}]}]", "nodes[0].extraPortMappings[0].containerPort: 0 is not a port"},
		"a patch of nothing":    {head + "kubeadmConfigPatches: ['kind: Pod']", "kubeadmConfigPatches[0]: kind \"Pod\": write one of ClusterConfiguration"},
		"a field of a patch":    {head + "kubeadmConfigPatches: ['{kind: ClusterConfiguration, useHyperKubeImage: true}']", "kubeadmConfigPatches: ClusterConfiguration.useHyperKubeImage"},
		"a field of a node's":   {head + "nodes: [{kubeadmConfigPatches: ['{kind: InitConfiguration, localAPIEndpoint: {bindPort: 1}}']}]", "nodes[0].kubeadmConfigPatches: InitConfiguration.localAPIEndpoint"},
		"a kubelet of one node": {head + "nodes: [{kubeadmConfigPatches: ['{kind: KubeletConfiguration, maxPods: 3}']}]", "nodes[0].kubeadmConfigPatches: KubeletConfiguration of one node"},
	} {
		_, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%s: the error does not say %q: %v", name, c.wants, err)
		}
	}
}
