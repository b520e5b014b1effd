package manifests

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

var update = flag.Bool("update", false, "write testdata anew; review it like code")

// fixture is a cluster document of testdata and a host on which it is computed.
type fixture struct {
	node  config.Node
	facts config.Facts
}

func fixtures() map[string]fixture {
	debian := []string{"/etc/ca-certificates", "/usr/share/ca-certificates"}
	plane := []config.Role{config.ControlPlaneRole}
	return map[string]fixture{
		"default": {
			config.Node{Name: "cp-1", Roles: plane, Address: "10.0.0.1"},
			config.Facts{Hostname: "cp-1", TrustDirs: debian},
		},
		"custom": {
			config.Node{
				Name: "cp-1", Roles: plane, Address: "10.0.0.1",
				// A control plane's taints go through the API, not through its kubelet.
				Taints:      []corev1.Taint{{Key: "only", Value: "us", Effect: corev1.TaintEffectNoSchedule}},
				KubeletArgs: []config.Arg{{Name: "v", Value: "4"}, {Name: "node-ip", Value: "10.0.0.1"}},
			},
			config.Facts{Hostname: "Host-17.example.org", TrustDirs: debian[1:], Resolved: true},
		},
		"external-etcd": {
			config.Node{Name: "cp-1", Roles: plane, Address: "10.0.0.1"},
			config.Facts{Hostname: "cp-1", TrustDirs: debian},
		},
		"ipv6": {
			config.Node{Name: "cp-1", Roles: plane, Address: "fd00::1"},
			config.Facts{Hostname: "cp-1"},
		},
		"dual-stack": {
			config.Node{Name: "cp-1", Roles: plane, Address: "10.0.0.1", OtherAddress: "fd00::1"},
			config.Facts{Hostname: "cp-1"},
		},
		"cloud": {
			config.Node{Name: "ip-10-0-1-2.eu-west-1.compute.internal", Roles: plane, Address: "10.0.1.2", ProviderID: "aws:///eu-west-1a/i-0123456789abcdef0"},
			config.Facts{Hostname: "ip-10-0-1-2", TrustDirs: debian, Resolved: true},
		},
		"internal-endpoint": {
			config.Node{Name: "w-1", Roles: []config.Role{config.WorkerRole}, Address: "10.0.0.9"},
			config.Facts{Hostname: "w-1"},
		},
		"worker": {
			config.Node{
				Name: "w-1", Roles: []config.Role{config.WorkerRole}, Address: "10.0.0.9",
				Labels: map[string]string{
					"disk": "ssd", "topology.kubernetes.io/zone": "z1", "node.kubernetes.io/class": "a",
					"node-role.kubernetes.io/worker": "", "example.org/team": "b",
				},
				Taints: []corev1.Taint{
					{Key: "gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule},
					{Key: "slow", Effect: corev1.TaintEffectPreferNoSchedule},
				},
			},
			config.Facts{Hostname: "W-1", Resolved: true},
		},
	}
}

func load(t *testing.T, name string) *config.Cluster {
	t.Helper()
	c, err := config.Load(filepath.Join("testdata", name, "cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.Default(config.Versions{})
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func patchesOf(t *testing.T, c *config.Cluster) Patches {
	t.Helper()
	if c.Spec.Patches == "" {
		return Patches{}
	}
	p, err := LoadPatches(os.DirFS(c.Spec.Patches))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outputs are all bytes that are computed for a host, by path.
func outputs(t *testing.T, c *config.Cluster, n config.Node, f config.Facts) map[string]string {
	t.Helper()
	out := map[string]string{}
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	add := func(files []host.File, err error) {
		t.Helper()
		must(nil, err)
		for _, file := range files {
			if !file.Dir {
				out[file.Path] = content(t, file)
			}
		}
	}
	patches := patchesOf(t, c)
	kubelet := must(KubeletConfiguration(c))
	if n.Has(config.ControlPlaneRole) {
		add(StaticPods(c, n, f, patches, Live{}))
	}
	if _, ok := c.InternalEndpoint(); ok {
		add(HAProxy(c, n))
	}
	add(Kubelet(c, n, f, kubelet, patches))
	add(KubeletUnit(f.Commands["kubelet"]), nil)
	add(Prerequisites(c.Spec.Network.UsesIPv6()), nil)
	add([]host.File{Containerd(c.Spec.Runtime.SandboxImage), ContainerdUnit(), Crictl(c.Socket(n))}, nil)
	out["/api/kubelet-config/kubelet"] = string(kubelet)
	out["/api/kube-proxy/config.conf"] = string(must(KubeProxyConfiguration(c)))
	out["/api/kube-proxy/kubeconfig.conf"] = string(KubeProxyKubeconfig(fmt.Sprintf("https://%s", netip.AddrPortFrom(n.IP(), 6443))))
	out["/api/kubeadm-config/ClusterConfiguration"] = string(must(ClusterConfiguration(c)))
	return out
}

func content(t *testing.T, file host.File) string {
	t.Helper()
	r, err := file.Content.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFilesEqualGoldens(t *testing.T) {
	for name, x := range fixtures() {
		t.Run(name, func(t *testing.T) {
			got := outputs(t, load(t, name), x.node, x.facts)
			golden := filepath.Join("testdata", name, "golden")
			if *update {
				writeGoldens(t, golden, got)
			}
			if diff := cmp.Diff(readGoldens(t, golden), got); diff != "" {
				t.Errorf("golden and computed (go test -update writes it):\n%s", diff)
			}
		})
	}
}

func readGoldens(t *testing.T, dir string) map[string]string {
	t.Helper()
	want := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		want[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func writeGoldens(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for path, content := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
