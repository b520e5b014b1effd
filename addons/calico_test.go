package addons

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/upstream"
)

// upstreamCalico is the real manifest, decoded anew each time, as tests change it.
func upstreamCalico(t *testing.T) []Object {
	t.Helper()
	objects, err := Decode(upstream.File(t, upstream.Calico))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func calicoCluster(change func(*config.Spec)) *config.Cluster {
	c := &config.Cluster{}
	c.Spec.Network.CNI.Name = "calico"
	if change != nil {
		change(&c.Spec)
	}
	c.Default(config.Versions{})
	return c
}

const calicoServer = "https://demo.kubewright.internal:6443"

// Each mode, as far as it differs from the manifest: nothing but what the patches mean to change.
func TestModesOfCalico(t *testing.T) {
	for name, change := range map[string]func(*config.Spec){
		"calico":      nil,
		"calico-ipip": func(s *config.Spec) { s.Network.CNI.Calico.Encapsulation = "ipip" },
		"calico-none": func(s *config.Spec) {
			s.Network.CNI.Calico.Encapsulation, s.Network.CNI.Calico.Interface, s.Network.CNI.MTU = "none", "interface=eth.*", 1400
		},
		"calico-dual-nftables": func(s *config.Spec) {
			s.Network.PodCIDR, s.Network.ServiceCIDR = "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"
			s.KubeProxy.Mode, s.Network.CNI.Calico.Interface = "nftables", "cidr=192.0.2.0/24,2001:db8::/64"
		},
		"calico-ipv6-none": func(s *config.Spec) {
			s.Network.PodCIDR, s.Network.ServiceCIDR, s.Network.CNI.Calico.Encapsulation = "2001:db8:244::/56", "2001:db8:96::/112", "none"
			s.KubeProxy.Mode = "none"
		},
		"calico-typha": func(s *config.Spec) { s.Network.CNI.Calico.Typha = new(int32(3)) },
	} {
		t.Run(name, func(t *testing.T) {
			manifest := upstreamCalico(t)
			all, err := CNI(calicoCluster(change), calicoServer, Material{Manifest: manifest})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".golden", differences(t, manifest, all))
		})
	}
}

// differences are what objects of ours have otherwise than the manifest, a field a line, and those that it has not.
// What is empty or false is nothing.
func differences(t *testing.T, theirs, ours []Object) string {
	t.Helper()
	var lines []string
	var added []Object
	his := map[string]Object{}
	for _, o := range theirs {
		his[Identity(o)] = o
	}
	for _, o := range ours {
		if his[Identity(o)] == nil {
			added = append(added, o)
			continue
		}
		was, is := flatten(his[Identity(o)].Object), flatten(o.Object)
		delete(his, Identity(o))
		for field := range union(was, is) {
			a, b := was[field], is[field]
			none := func(s string) bool { return s == "" || s == "false" || s == `""` }
			switch {
			case a == b, none(a) && none(b):
			case a == "":
				lines = append(lines, fmt.Sprintf("%s + %s: %s", title(o), field, b))
			case b == "":
				lines = append(lines, fmt.Sprintf("%s - %s", title(o), field))
			default:
				lines = append(lines, fmt.Sprintf("%s ~ %s: %s", title(o), field, b))
			}
		}
	}
	for id := range his {
		t.Errorf("%s is lost", id)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n" + asYAML(t, added)
}

// at finds a place in the manifest by kind and name, and the fields and items' names below.
func at(t *testing.T, objects []Object, kind string, path ...string) map[string]any {
	t.Helper()
	v := any(find(t, objects, kind).Object)
	for _, key := range path {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i := slices.IndexFunc(x, func(item any) bool { return item.(map[string]any)["name"] == key })
			if i < 0 {
				t.Fatalf("no item %s of %v", key, path)
			}
			v = x[i]
		}
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%v is no object", path)
	}
	return m
}

func TestAMovedFieldFailsWithTheNameOfThePatch(t *testing.T) {
	pod := []string{"spec", "template", "spec"}
	const node, settings = "DaemonSet calico-node", "ConfigMap calico-config"
	below := func(more ...string) []string { return append(slices.Clone(pod), more...) }
	env := func(name, as string) func(*testing.T, []Object) {
		return func(t *testing.T, o []Object) {
			at(t, o, node, below("containers", "calico-node", "env", name)...)["name"] = as
		}
	}
	key := func(name string) func(*testing.T, []Object) {
		return func(t *testing.T, o []Object) { delete(at(t, o, settings, "data"), name) }
	}
	for name, tt := range map[string]struct {
		patch string
		move  func(*testing.T, []Object)
	}{
		"another image": {"images", func(t *testing.T, o []Object) {
			at(t, o, node, below("containers", "calico-node")...)["image"] = "quay.io/calico/calico:v3.33.0"
		}},
		"an image is pulled": {"images", func(t *testing.T, o []Object) {
			at(t, o, node, below("containers", "calico-node")...)["imagePullPolicy"] = "Always"
		}},
		"a range is set":       {"pod ranges", env("FELIX_HEALTHENABLED", "CALICO_IPV4POOL_CIDR")},
		"no pool":              {"pod ranges", env("CALICO_IPV4POOL_IPIP", "CALICO_POOL_IPIP")},
		"no pool of VXLAN":     {"encapsulation", env("CALICO_IPV4POOL_VXLAN", "CALICO_POOL_VXLAN")},
		"no pool of VXLAN, v6": {"encapsulation", env("CALICO_IPV6POOL_VXLAN", "CALICO_POOL_VXLAN")},
		"no backend":           {"encapsulation", key("calico_backend")},
		"no probe of BIRD": {"probes of BIRD", func(t *testing.T, o []Object) {
			delete(at(t, o, node, below("containers", "calico-node")...), "livenessProbe")
		}},
		"another probe": {"probes of BIRD", func(t *testing.T, o []Object) {
			at(t, o, node, below("containers", "calico-node", "readinessProbe", "exec")...)["command"] = []any{"/bin/calico-node", "-ready"}
		}},
		"no CNI configuration": {"IPv6", key("cni_network_config")},
		"another IPAM": {"IPv6", func(t *testing.T, o []Object) {
			data := at(t, o, settings, "data")
			data["cni_network_config"] = strings.Replace(data["cni_network_config"].(string), "calico-ipam", "host-local", 1)
		}},
		"no switch of IPv6": {"IPv6", env("FELIX_IPV6SUPPORT", "FELIX_IPV6")},
		"no MTU":            {"MTU", key("veth_mtu")},
		"no address":        {"address of the node", env("IP", "IP4")},
		"a method":          {"address of the node", env("FELIX_HEALTHENABLED", "IP_AUTODETECTION_METHOD")},
		"no endpoint": {"address of the API", func(t *testing.T, o []Object) {
			delete(at(t, o, node, below("initContainers", "install-cni")...), "envFrom")
		}},
		"a mode of rules": {"nftables", env("FELIX_HEALTHENABLED", "FELIX_NFTABLESMODE")},
		"no typha":        {"typha", key("typha_service_name")},
		"nothing to remove": {"nothing to upgrade", func(t *testing.T, o []Object) {
			at(t, o, node, below("initContainers", "upgrade-ipam")...)["name"] = "upgrade"
		}},
		"another volume": {"nothing to upgrade", func(t *testing.T, o []Object) {
			at(t, o, node, below("volumes", "host-local-net-dir")...)["name"] = "nets"
		}},
		"no tolerations": {"tolerations", func(t *testing.T, o []Object) { delete(at(t, o, node, pod...), "tolerations") }},
		"no container": {"pod ranges", func(t *testing.T, o []Object) {
			at(t, o, node, below("containers", "calico-node")...)["name"] = "felix"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := upstreamCalico(t)
			tt.move(t, manifest)
			_, err := CNI(calicoCluster(nil), calicoServer, Material{Manifest: manifest})
			if want := `patch "` + tt.patch + `" of `; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	t.Run("an object is missing", func(t *testing.T) {
		manifest := slices.DeleteFunc(upstreamCalico(t), func(o Object) bool { return o.GetKind() == "DaemonSet" })
		if _, err := CNI(calicoCluster(nil), calicoServer, Material{Manifest: manifest}); err == nil || !strings.Contains(err.Error(), `patch "images"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a field that nobody knows", func(t *testing.T) {
		manifest := upstreamCalico(t)
		at(t, manifest, node, pod...)["hostEverything"] = true
		if _, err := CNI(calicoCluster(nil), calicoServer, Material{Manifest: manifest}); err == nil || !strings.Contains(err.Error(), "DaemonSet calico-node") || !strings.Contains(err.Error(), "hostEverything") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no manifest", func(t *testing.T) {
		if _, err := CNI(calicoCluster(nil), calicoServer, Material{}); err == nil || !strings.Contains(err.Error(), "Calico v3.32.1 is not at hand") {
			t.Errorf("got %v", err)
		}
	})
}

func TestImagesOfCalicoAreThoseOfItsObjects(t *testing.T) {
	c := calicoCluster(func(s *config.Spec) { s.Network.CNI.Calico.Typha = new(int32(3)) })
	all, err := CNI(c, calicoServer, Material{Manifest: upstreamCalico(t)})
	if err != nil {
		t.Fatal(err)
	}
	listed := networkImages(c)
	slices.Sort(listed)
	if diff := cmp.Diff(ImagesOf(all), listed); diff != "" {
		t.Errorf("used (-), listed (+):\n%s", diff)
	}
}

func TestAMethodIsAboutItsFamily(t *testing.T) {
	for method, want := range map[string][2]string{
		"":                                  {"kubernetes-internal-ip", "kubernetes-internal-ip"},
		"first-found":                       {"first-found", "first-found"},
		"interface=eth.*":                   {"interface=eth.*", "interface=eth.*"},
		"can-reach=192.0.2.1":               {"can-reach=192.0.2.1", "kubernetes-internal-ip"},
		"can-reach=2001:db8::1":             {"kubernetes-internal-ip", "can-reach=2001:db8::1"},
		"can-reach=example.org":             {"can-reach=example.org", "can-reach=example.org"},
		"cidr=192.0.2.0/24,2001:db8::/64":   {"cidr=192.0.2.0/24", "cidr=2001:db8::/64"},
		"cidr=192.0.2.0/24,198.51.100.0/24": {"cidr=192.0.2.0/24,198.51.100.0/24", "kubernetes-internal-ip"},
	} {
		if got := [2]string{detection(method, false), detection(method, true)}; got != want {
			t.Errorf("%q: %q, want %q", method, got, want)
		}
	}
}
