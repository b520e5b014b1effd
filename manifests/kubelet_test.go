package manifests

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

func TestUnknownFieldsOfComponentsAreErrorsWithTheirPath(t *testing.T) {
	c := load(t, "default")
	c.Spec.Kubelet = map[string]any{"authentication": map[string]any{"anonymus": true}}
	_, err := KubeletConfiguration(c)
	wantError(t, err, "spec.kubelet", `"authentication.anonymus"`)

	c.Spec.KubeProxy.Config = map[string]any{"conntrack": map[string]any{"maxPerCPU": 0}}
	_, err = KubeProxyConfiguration(c)
	wantError(t, err, "spec.kubeProxy.config", `"conntrack.maxPerCPU"`)

	c.Spec.KubeProxy.Config = map[string]any{"mode": "nftables"}
	_, err = KubeProxyConfiguration(c)
	wantError(t, err, "spec.kubeProxy.config.mode", "nftables", "iptables")
}

func TestKubeletAlwaysRotatesItsCertificate(t *testing.T) {
	c := load(t, "default")
	c.Spec.Kubelet = map[string]any{"rotateCertificates": false}
	b, err := KubeletConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "rotateCertificates: true\n") {
		t.Errorf("it does not:\n%s", b)
	}
}

// The configuration of a cluster that a newer kubeadm made has fields that we don't know.
func TestKubeletKeepsUnknownFieldsOfTheCluster(t *testing.T) {
	c, x := load(t, "default"), fixtures()["worker"]
	files, err := Kubelet(c, x.node, x.facts, []byte("aNewField: {a: 1}\nmaxPods: 5\n"), Patches{})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal([]byte(content(t, files[1])), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"aNewField": map[string]any{"a": 1.0}, "maxPods": 5.0,
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "resolvConf": resolvedConf,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDNSIsTheTenthAddressOfTheFirstRange(t *testing.T) {
	for services, want := range map[string]string{
		"10.96.0.0/12":                   "10.96.0.10",
		"fd00:10:96::/112,10.96.0.0/12":  "fd00:10:96::a",
		"10.0.0.240/28":                  "10.0.0.250",
		"192.168.255.0/24,fd00:1::/112":  "192.168.255.10",
		"2001:db8:ffff:ffff::fff0:0/108": "2001:db8:ffff:ffff::fff0:a",
	} {
		c := &config.Cluster{}
		c.Spec.Network.ServiceCIDR = services
		got, err := DNSAddress(c)
		if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", services, got, err, want)
		}
	}
	for _, services := range []string{"", "10.0.0.0", "10.0.0.248/29"} {
		c := &config.Cluster{}
		c.Spec.Network.ServiceCIDR = services
		_, err := DNSAddress(c)
		wantError(t, err, "spec.network.serviceCIDR")
	}
}

func TestKubeletSetsOnlyTheLabelsThatItMay(t *testing.T) {
	for label, want := range map[string]bool{
		"disk": true, "example.org/disk": true, "notkubernetes.io/a": true,
		"topology.kubernetes.io/zone": true, "node.kubernetes.io/any": true, "a.kubelet.kubernetes.io/any": true,
		"kubernetes.io/hostname":                true,
		"kubernetes.io/role":                    false,
		"node-role.kubernetes.io/worker":        false,
		"node-role.kubernetes.io/control-plane": false,
		"k8s.io/a":                              false,
		"a.k8s.io/b":                            false,
	} {
		if got := KubeletMaySet(label); got != want {
			t.Errorf("%s: %t, want %t", label, got, want)
		}
	}
}

func TestKubeletWaitsForItsFiles(t *testing.T) {
	unit := content(t, KubeletUnit("/usr/bin/kubelet")[0])
	for _, line := range []string{
		"ConditionPathExists=/var/lib/kubelet/config.yaml\n",
		"ConditionPathExists=|/etc/kubernetes/kubelet.conf\n",
		"ConditionPathExists=|/etc/kubernetes/bootstrap-kubelet.conf\n",
		"ExecStart=/usr/bin/kubelet\n",
	} {
		if !strings.Contains(unit, line) {
			t.Errorf("no %q in:\n%s", line, unit)
		}
	}
}
