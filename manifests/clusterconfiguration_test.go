package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
)

// A control plane that joins with what kubeadm-config says runs what the others run.
func TestClusterConfigurationGivesTheSameStaticPods(t *testing.T) {
	for name, x := range fixtures() {
		if !x.node.Has(config.ControlPlaneRole) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := load(t, name)
			b, err := ClusterConfiguration(c)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := kubeadm.ReadClusterConfiguration(b)
			if err != nil {
				t.Fatal(err)
			}
			// What is not in the document: each host's own, and the other components'.
			parsed.Spec.ControlPlane.BindPort = c.Spec.ControlPlane.BindPort
			parsed.Spec.Timeouts = c.Spec.Timeouts
			parsed.Spec.Runtime = c.Spec.Runtime
			parsed.Default(config.Versions{})
			for _, pod := range Names() {
				want, err := StaticPod(pod, c, x.node, x.facts, Patches{}, Live{})
				if err != nil {
					t.Fatal(err)
				}
				got, err := StaticPod(pod, parsed, x.node, x.facts, Patches{}, Live{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(content(t, want), content(t, got)); diff != "" {
					t.Errorf("%s: %s", pod, diff)
				}
			}
			again, err := ClusterConfiguration(parsed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(b), string(again)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const head = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"

func TestClusterConfigurationMayHaveFieldsThatWeDoNotKnow(t *testing.T) {
	c, err := kubeadm.ReadClusterConfiguration([]byte(head + "clusterName: a\nnewField: {b: [c]}\netcd: {local: {dataDir: /d, other: 1}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Metadata.Name != "a" || c.Spec.Etcd.DataDir != "/d" {
		t.Errorf("parsed %+v", c)
	}
}

func TestClusterConfigurationWithExternalEtcd(t *testing.T) {
	c, err := kubeadm.ReadClusterConfiguration([]byte(head + "etcd: {external: {endpoints: [https://a:2379], httpEndpoints: [http://a:2381], caFile: /ca, certFile: /c, keyFile: /k}}"))
	if err != nil {
		t.Fatal(err)
	}
	c.Default(config.Versions{})
	want := config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://a:2379"}, CAFile: "/ca", CertFile: "/c", KeyFile: "/k"}}
	if diff := cmp.Diff(want, c.Spec.Etcd); diff != "" {
		t.Error(diff)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestClusterConfigurationThatWeCannotFollowIsAnError(t *testing.T) {
	for name, test := range map[string]struct{ document, want string }{
		"certificates":   {head + "certificatesDir: /elsewhere", "/elsewhere"},
		"etcd's image":   {head + "imageRepository: a\netcd: {local: {imageRepository: b}}", "etcd.local.imageRepository"},
		"old version":    {"apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration", "kubeadm config migrate"},
		"other document": {"apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration", "JoinConfiguration"},
		"no YAML":        {"a: [b", "ClusterConfiguration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubeadm.ReadClusterConfiguration([]byte(test.document))
			wantError(t, err, test.want)
		})
	}
}

// So that the upgrade of kubeadm to 1.37 brings 1.37's.
func TestTagsAreLeftToKubeadmWhereTheyAreItsOwn(t *testing.T) {
	for version, want := range map[string][2]string{"v1.36.3": {"", ""}, "v1.35.4": {"3.6.8-0", "v1.14.2"}} {
		c := load(t, "default")
		c.Spec.KubernetesVersion = version
		b, err := ClusterConfiguration(c)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := kubeadm.ReadClusterConfiguration(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]string{parsed.Spec.Etcd.ImageTag, parsed.Spec.DNS.ImageTag}; got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}
