package manifests

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

func command(t *testing.T, name string, c *config.Cluster, l Live) []string {
	t.Helper()
	x := fixtures()["default"]
	file, err := StaticPod(name, c, x.node, x.facts, Patches{}, l)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(content(t, file)), &pod); err != nil {
		t.Fatal(err)
	}
	return pod.Spec.Containers[0].Command
}

func values(command []string, flag string) []string {
	var found []string
	for _, a := range command {
		if value, ok := strings.CutPrefix(a, "--"+flag+"="); ok {
			found = append(found, value)
		}
	}
	return found
}

func TestEtcdThatJoinsKnowsAllMembers(t *testing.T) {
	c := load(t, "default")
	members := []string{"cp-0=https://10.0.0.7:2380", EtcdMember("cp-1", netip.MustParseAddr("10.0.0.1"))}
	got := command(t, Etcd, c, Live{EtcdMembers: members})
	if diff := cmp.Diff([]string{"cp-0=https://10.0.0.7:2380,cp-1=https://10.0.0.1:2380"}, values(got, "initial-cluster")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"existing"}, values(got, "initial-cluster-state")); diff != "" {
		t.Error(diff)
	}
}

// A second run must not change the manifest of a member that joined.
func TestInitialClusterSurvivesASecondRun(t *testing.T) {
	c, x := load(t, "default"), fixtures()["default"]
	for name, live := range map[string]Live{
		"first":  {},
		"joined": {EtcdMembers: []string{"cp-0=https://10.0.0.7:2380", "cp-1=https://10.0.0.1:2380"}},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := StaticPod(Etcd, c, x.node, x.facts, Patches{}, live)
			if err != nil {
				t.Fatal(err)
			}
			members, err := InitialCluster([]byte(content(t, first)))
			if err != nil {
				t.Fatal(err)
			}
			second, err := StaticPod(Etcd, c, x.node, x.facts, Patches{}, Live{EtcdMembers: members})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content(t, first), content(t, second)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestControllerManagerSignsNothingWithAnExternalCA(t *testing.T) {
	got := command(t, ControllerManager, load(t, "default"), Live{ExternalCA: true})
	for _, flag := range []string{"cluster-signing-cert-file", "cluster-signing-key-file"} {
		if diff := cmp.Diff([]string{""}, values(got, flag)); diff != "" {
			t.Errorf("%s: %s", flag, diff)
		}
	}
}

func TestControllerManagerAllocatesNoPodNetworkWithoutOne(t *testing.T) {
	c := load(t, "default")
	c.Spec.Network.PodCIDR = ""
	got := command(t, ControllerManager, c, Live{})
	for _, flag := range []string{"allocate-node-cidrs", "cluster-cidr", "service-cluster-ip-range"} {
		if v := values(got, flag); v != nil {
			t.Errorf("--%s=%s", flag, v)
		}
	}
}

func TestOverridesReplaceEveryDefaultOfTheirName(t *testing.T) {
	got := Flags(
		map[string]string{"b": "1", "a": "2", "c": "3"},
		[]config.Arg{{Name: "z", Value: "9"}, {Name: "b", Value: "8"}, {Name: "b", Value: "7"}},
	)
	if diff := cmp.Diff([]string{"--a=2", "--c=3", "--z=9", "--b=8", "--b=7"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestStaticPodsAreForRootOnly(t *testing.T) {
	c, x := load(t, "default"), fixtures()["default"]
	files, err := StaticPods(c, x.node, x.facts, Patches{}, Live{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", f.Path, f.Perm())
		}
	}
}

func TestStaticPodErrorsNameThePodAndTheReason(t *testing.T) {
	c, x := load(t, "default"), fixtures()["default"]
	load := func(files fstest.MapFS) Patches {
		p, err := LoadPatches(files)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, test := range map[string]struct {
		pod, address string
		patches      Patches
		want         []string
	}{
		"no address":  {Etcd, "", Patches{}, []string{"etcd", "cp-1", "address"}},
		"unknown pod": {"kube-apisrver", "10.0.0.1", Patches{}, []string{"kube-apisrver", "kube-apiserver"}},
		"unknown field": {
			Scheduler, "10.0.0.1",
			load(fstest.MapFS{"kube-scheduler.yaml": {Data: []byte("spec: {hostNetwrk: true}")}}),
			[]string{"kube-scheduler", `"spec.hostNetwrk"`},
		},
		"patch of a wrong type": {
			Scheduler, "10.0.0.1",
			load(fstest.MapFS{"kube-scheduler+merge.yaml": {Data: []byte("spec: {hostNetwork: 7}")}}),
			[]string{"kube-scheduler", "spec.hostNetwork"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := x.node
			n.Address = test.address
			_, err := StaticPod(test.pod, c, n, x.facts, test.patches, Live{})
			wantError(t, err, test.want...)
		})
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestControlPlaneImagesAreKnownFromAnyRegistry(t *testing.T) {
	c := load(t, "custom")
	for _, image := range append(Images(c), "etcd:3.6.8-0", "a.example/b/kube-scheduler@sha256:00") {
		if !IsControlPlaneImage(image) {
			t.Errorf("%s runs on control planes only", image)
		}
	}
	for _, image := range []string{Image(c, "kube-proxy"), "registry.k8s.io/pause:3.10.2", "etcd.example.org/coredns:v1"} {
		if IsControlPlaneImage(image) {
			t.Errorf("%s runs on workers as well", image)
		}
	}
}
