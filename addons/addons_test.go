package addons

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

var update = flag.Bool("update", false, "write what is found to testdata")

func newCluster(change func(*config.Spec)) *config.Cluster {
	c := &config.Cluster{}
	c.Default(config.Versions{})
	if change != nil {
		change(&c.Spec)
	}
	return c
}

func TestGoldens(t *testing.T) {
	const server = "https://demo.kubewright.internal:6443"
	must := func(objects []Object, err error) []Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return objects
	}
	plain := newCluster(nil)
	patch := func(target string, document []byte) ([]byte, error) {
		return bytes.ReplaceAll(document, []byte("replicas: 2"), []byte("replicas: 3 # "+target)), nil
	}
	expires := time.Date(2026, 11, 23, 18, 0, 0, 0, time.FixedZone("", 3600))
	for name, objects := range map[string][]Object{
		"rbac":              append(RBAC(), CertificatesRBAC()...),
		"config":            Config([]byte("kind: ClusterConfiguration\n"), []byte("kind: KubeletConfiguration\n"), false),
		"config-user":       Config([]byte("kind: ClusterConfiguration\n"), []byte("kind: KubeletConfiguration\n"), true),
		"kubewright-config": must(KubewrightConfig(plain, []byte("kind: ArtifactLock\n"))),
		"root-ca":           RootCA([]byte("a certificate\n"), "kube-system", "kube-flannel"),
		"token":             {TokenSecret(exampleToken(t), "of a test", expires, TokenUsages(), TokenGroups())},
		"cluster-info":      must(ClusterInfo(server, []byte("a certificate\n"), []Token{exampleToken(t)})),
		"kube-proxy":        KubeProxy(plain, []byte("mode: iptables\n"), []byte("kind: Config\n")),
		"kube-proxy-nftables": KubeProxy(newCluster(func(s *config.Spec) { s.KubeProxy.Mode = "nftables" }),
			[]byte("mode: nftables\n"), []byte("kind: Config\n")),
		"coredns": must(CoreDNS(plain, nil)),
		"coredns-patched": must(CoreDNS(newCluster(func(s *config.Spec) {
			s.ImageRepository, s.Network.DNSDomain, s.Network.ServiceCIDR = "mirror.example/k8s", "k8s.example", "fd00:1::/108"
		}), patch)),
		"flannel": must(CNI(plain, server, Material{})),
		"flannel-ipv6": must(CNI(newCluster(func(s *config.Spec) {
			s.Network.PodCIDR, s.Network.CNI.MTU, s.Network.CNI.Flannel.Backend, s.Network.CNI.Flannel.Interface = "fd00:2::/48", 1400, "host-gw", "eth1"
		}), "https://[fd00::1]:6443", Material{})),
		"flannel-dual-stack": must(CNI(newCluster(func(s *config.Spec) {
			s.Network.PodCIDR, s.Network.ServiceCIDR = "10.244.0.0/16,fd00:2::/48", "10.96.0.0/12,fd00:1::/108"
			s.Network.CNI.MTU, s.Network.CNI.Flannel.NFTables, s.Network.CNI.Flannel.InterfaceCanReach = 1400, true, "192.0.2.1"
		}), server, Material{})),
		"flannel-wireguard": must(CNI(newCluster(func(s *config.Spec) {
			s.Network.CNI.MTU, s.Network.CNI.Flannel.Backend, s.Network.CNI.Flannel.InterfaceRegex = 1380, "wireguard", "^(eth|ens)1$"
		}), server, Material{})),
		"cloud-controller": must(Extras(newCluster(func(s *config.Spec) { s.Addons.CloudController.Name = "aws" }))),
		"cloud-controller-own": {find(t, must(Extras(newCluster(func(s *config.Spec) {
			s.ControlPlane.BindPort = 8443
			s.Addons.CloudController = config.CloudController{Name: "aws", Component: config.Component{
				ExtraArgs:    []config.Arg{{Name: "v", Value: "4"}, {Name: "cloud-config", Value: "/etc/cloud.conf"}},
				ExtraEnvs:    []corev1.EnvVar{{Name: "AWS_ENDPOINT_URL", Value: "http://192.0.2.1:4566"}},
				ExtraVolumes: []config.HostPath{{Name: "cloud", HostPath: "/etc/kubernetes/cloud.conf", MountPath: "/etc/cloud.conf", ReadOnly: true, PathType: corev1.HostPathFile}},
			}}
		}))), "DaemonSet aws-cloud-controller-manager")},
		"ebs-csi":       must(Extras(newCluster(func(s *config.Spec) { s.Addons.EBSCSI = true }))),
		"coredns-cloud": {find(t, must(CoreDNS(newCluster(func(s *config.Spec) { s.Addons.CloudController.Name = "aws" }), nil)), "Deployment coredns")},
	} {
		t.Run(name, func(t *testing.T) { golden(t, "golden/"+name+".yaml", asYAML(t, objects)) })
	}
}

func TestWhatIsNotWantedIsNotMade(t *testing.T) {
	c := newCluster(func(s *config.Spec) {
		s.Network.CNI.Name, s.KubeProxy.Mode, s.DNS.Disabled = "none", "none", true
	})
	cni, err := CNI(c, "https://192.0.2.1:6443", Material{})
	if err != nil {
		t.Error(err)
	}
	dns, err := CoreDNS(c, nil)
	if err != nil {
		t.Error(err)
	}
	if all := append(append(cni, dns...), KubeProxy(c, nil, nil)...); len(all) > 0 {
		t.Errorf("objects: %s", asYAML(t, all))
	}
	if images := Images(c); len(images) > 0 {
		t.Errorf("images: %v", images)
	}
}

func TestImagesAreThoseOfTheObjects(t *testing.T) {
	c := newCluster(nil)
	cni, err := CNI(c, "https://192.0.2.1:6443", Material{})
	if err != nil {
		t.Fatal(err)
	}
	dns, err := CoreDNS(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for line := range strings.Lines(asYAML(t, append(append(cni, dns...), KubeProxy(c, nil, nil)...))) {
		if _, image, ok := strings.Cut(line, " image: "); ok {
			used[strings.TrimSpace(image)] = true
		}
	}
	listed := map[string]bool{}
	for _, image := range Images(c) {
		listed[image] = true
	}
	if diff := cmp.Diff(used, listed); diff != "" {
		t.Errorf("used (-), listed (+):\n%s", diff)
	}
}

// Server-side apply owns what it is sent: the zero values of Go structs would take fields
// from controllers, and a status from everybody.
func TestObjectsHoldOnlyWishes(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		for _, o := range read(t, file) {
			if o.GetKind() == "" || o.GetAPIVersion() == "" || o.GetName() == "" {
				t.Errorf("%s: an object without a name: %v", file, o.Object)
			}
			for field, value := range flatten(o.Object) {
				if strings.HasSuffix(field, ".emptyDir") { // which is what it says
					continue
				}
				if value == "null" || value == "{}" || strings.HasPrefix(field, "status") || strings.Contains(field, "creationTimestamp") {
					t.Errorf("%s: %s %s: %s is %s", file, o.GetKind(), o.GetName(), field, value)
				}
			}
		}
	}
}

func exampleToken(t testing.TB) Token {
	t.Helper()
	token, err := ParseToken("abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func asYAML(t *testing.T, objects []Object) string {
	t.Helper()
	var out strings.Builder
	for _, o := range objects {
		b, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
