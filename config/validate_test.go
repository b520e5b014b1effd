package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// document parses and defaults a spec.
func document(t *testing.T, spec string) *Cluster {
	t.Helper()
	c, err := Parse([]byte(head + spec))
	if err != nil {
		t.Fatal(err)
	}
	c.Default(Versions{})
	return c
}

func TestValidateSaysWhatToWriteInstead(t *testing.T) {
	for name, tt := range map[string]struct{ document, want string }{
		"nothing is valid":           {"", ""},
		"no pod network":             {"spec: {network: {cni: {name: none}}}", ""},
		"IPv6":                       {"spec: {network: {podCIDR: fd00:1::/48, serviceCIDR: fd00:2::/112}}", ""},
		"kubeadm's form of versions": {"spec: {kubernetesVersion: 1.35.0}", ""},
		"zero means the default":     {"spec: {dns: {replicas: 0}, pki: {validity: 0s}, controlPlane: {bindPort: 0}}", ""},

		"name of the cluster": {"metadata: {name: Big_One}", "metadata.name: a lowercase RFC 1123 label must consist of"},
		"version":             {"spec: {kubernetesVersion: latest}", `spec.kubernetesVersion: "vlatest" is not a version: write v1.36.3, say`},
		"version of two":      {"spec: {kubernetesVersion: v1.36}", `spec.kubernetesVersion: "v1.36" is not a version: write v1.36.3, say`},
		"version too old":     {"spec: {kubernetesVersion: v1.33.9}", "spec.kubernetesVersion: v1.33.9 cannot be installed by this kubewright: write a version from v1.34 to v1.36"},
		"version too new":     {"spec: {kubernetesVersion: v2.36.0}", "spec.kubernetesVersion: v2.36.0 cannot be installed by this kubewright: write a version from v1.34 to v1.36"},

		"endpoint":                  {"spec: {controlPlane: {endpoint: \"https://a\"}}", `spec.controlPlane.endpoint: "https://a" is a URL: write HOST:PORT alone, without https://`},
		"port of endpoint":          {"spec: {controlPlane: {endpoint: \"a:0\"}}", `spec.controlPlane.endpoint: "a:0": the port must be a number from 1 to 65535`},
		"internal endpoint":         {"spec: {controlPlane: {endpoint: \"a.kubewright.internal:444\", bindPort: 444}}", ""},
		"port of internal endpoint": {"spec: {controlPlane: {endpoint: \"a.kubewright.internal:443\"}}", `spec.controlPlane.endpoint: a.kubewright.internal:443 has a port other than the API servers' own: write 6443, or leave it out`},
		"port":                      {"spec: {controlPlane: {bindPort: 70000}}", "spec.controlPlane.bindPort: 70000 is not a port: write a number from 1 to 65535"},
		"names":                     {"spec: {controlPlane: {certSANs: [a, b c]}}", `spec.controlPlane.certSANs[1]: "b c" is neither an IP address nor a DNS name`},
		"external etcd":             {"spec: {etcd: {external: {endpoints: [\"https://a:2379\"], caFile: /ca.crt, certFile: /c.crt, keyFile: /c.key}}}", ""},
		"external etcd without TLS": {"spec: {etcd: {external: {endpoints: [\"http://a:2379\"]}}}", ""},
		"external etcd and its own": {"spec: {etcd: {dataDir: /d, external: {endpoints: [\"http://a:2379\"]}}}", "spec.etcd: external stands beside fields of an etcd that is installed here: leave those out, or external"},
		"external etcd, nowhere":    {"spec: {etcd: {external: {endpoints: []}}}", "spec.etcd.external.endpoints: there is none: write the URLs of etcd's members"},
		"external etcd, mistyped": {"spec: {etcd: {external: {endpoints: [\"a:2379\", \"https://b\"], certFile: c.crt}}}", "4 problems:\n" +
			"  - spec.etcd.external.caFile: is missing, and https needs it: write the path of the CA that signed etcd's certificates\n" +
			"  - spec.etcd.external.certFile: \"c.crt\" is not absolute: write a path that begins with /\n" +
			"  - spec.etcd.external.endpoints[0]: \"a:2379\": write a URL such as https://192.0.2.21:2379\n" +
			"  - spec.etcd.external: certFile and keyFile go together: write both, or neither"},
		"etcd's names": {"spec: {etcd: {serverCertSANs: [_], peerCertSANs: [-]}}", "2 problems:\n  - spec.etcd.peerCertSANs[0]: \"-\" is neither an IP address nor a DNS name\n  - spec.etcd.serverCertSANs[0]: \"_\" is neither an IP address nor a DNS name"},
		"etcd's data":  {"spec: {etcd: {dataDir: data}}", `spec.etcd.dataDir: "data" is not absolute: write a path that begins with /`},

		"dashes of a flag":        {"spec: {scheduler: {extraArgs: [{name: v}, {name: --v=4}]}}", `spec.scheduler.extraArgs[1].name: "--v=4": write the flag's name without dashes, and its value under value`},
		"dashes of etcd's flag":   {"spec: {etcd: {extraArgs: [{name: -v}]}}", `spec.etcd.extraArgs[0].name: "-v": write the flag's name without dashes, and its value under value`},
		"dashes of the kubelet":   {"spec: {hosts: [{name: a, kubeletArgs: [{name: --v}]}]}", `spec.hosts[0].kubeletArgs[0].name: "--v": write the flag's name without dashes, and its value under value`},
		"environment":             {"spec: {controllerManager: {extraEnvs: [{name: 1a}]}}", "spec.controllerManager.extraEnvs[0].name: a valid environment variable name"},
		"environment of etcd":     {"spec: {etcd: {extraEnvs: [{name: a=b}]}}", "spec.etcd.extraEnvs[0].name: a valid environment variable name"},
		"volume":                  {"spec: {apiServer: {extraVolumes: [{name: x, hostPath: a, mountPath: /b}]}}", `spec.apiServer.extraVolumes[0]: hostPath "a" and mountPath "/b" must both be absolute`},
		"network's name":          {"spec: {network: {cni: {name: cilium}}}", `spec.network.cni.name: "cilium" is unknown: write one of flannel, calico, weave, manifest, none; manifest installs any other, named by manifest: {source: FILE or address, sha256: DIGEST}`},
		"flannel's backend":       {"spec: {network: {cni: {flannel: {backend: udp}}}}", `spec.network.cni.flannel.backend: "udp" is unknown: write one of vxlan, host-gw, wireguard`},
		"kube-proxy's mode":       {"spec: {kubeProxy: {mode: ebpf}}", `spec.kubeProxy.mode: "ebpf" is unknown: write one of iptables, nftables, ipvs, none`},
		"domain":                  {"spec: {network: {dnsDomain: .}}", "spec.network.dnsDomain: a lowercase RFC 1123 subdomain"},
		"range of pods":           {"spec: {network: {podCIDR: 10.244.0.0}}", `spec.network.podCIDR: "10.244.0.0" is not a range: write ADDRESS/BITS, 10.244.0.0/16, say`},
		"range of services":       {"spec: {network: {serviceCIDR: 10.96/12}}", `spec.network.serviceCIDR: "10.96/12" is not a range: write ADDRESS/BITS, 10.96.0.0/12, say`},
		"bits behind the mask":    {"spec: {network: {podCIDR: 10.244.1.0/16}}", "spec.network.podCIDR: 10.244.1.0/16 has bits set behind the mask: write 10.244.0.0/16"},
		"dual-stack":              {"spec: {network: {podCIDR: \"10.244.0.0/16,fd00::/56\", serviceCIDR: \"10.96.0.0/12, fd01::/108\"}}", ""},
		"dual-stack, IPv6 first":  {"spec: {network: {podCIDR: \"fd00::/48,10.244.0.0/16\"}}", ""},
		"two ranges of a family":  {"spec: {network: {podCIDR: \"10.244.0.0/16,10.245.0.0/16\"}}", `spec.network.podCIDR: "10.244.0.0/16,10.245.0.0/16" holds two ranges of the same IP family: write one, or one of each, 10.244.0.0/16,fd00:10:244::/56, say`},
		"three ranges":            {"spec: {network: {serviceCIDR: \"10.96.0.0/16,fd00::/112,fd01::/112\", cni: {name: none}}}", `spec.network.serviceCIDR: "10.96.0.0/16,fd00::/112,fd01::/112" holds 3 ranges: write one, or one of each IP family, 10.96.0.0/12,fd00:10:96::/112, say`},
		"no second range":         {"spec: {network: {podCIDR: \"10.244.0.0/16,\"}}", `spec.network.podCIDR: "" is not a range: write ADDRESS/BITS, 10.244.0.0/16, say`},
		"families in an order":    {"spec: {network: {podCIDR: \"10.244.0.0/16,fd00::/56\", serviceCIDR: \"fd01::/112,10.96.0.0/12\"}}", "spec.network: podCIDR 10.244.0.0/16,fd00::/56 and serviceCIDR fd01::/112,10.96.0.0/12 are not of the same IP families: write the same in both, in the same order, serviceCIDR: 10.96.0.0/12,fd00:10:96::/112, say"},
		"one family of two":       {"spec: {network: {podCIDR: \"10.244.0.0/16,fd00::/56\", serviceCIDR: 10.96.0.0/12}}", "spec.network: podCIDR 10.244.0.0/16,fd00::/56 and serviceCIDR 10.96.0.0/12 are not of the same IP families: write the same in both, in the same order, serviceCIDR: 10.96.0.0/12,fd00:10:96::/112, say"},
		"overlap of the second":   {"spec: {network: {podCIDR: \"10.244.0.0/16,fd00::/56\", serviceCIDR: \"10.96.0.0/12,fd00::/112\"}}", "spec.network: podCIDR fd00::/56 and serviceCIDR fd00::/112 overlap: write ranges that have no address in common"},
		"many pods of IPv6":       {"spec: {network: {podCIDR: fd00::/32}}", `spec.network.podCIDR: fd00::/32 holds more shares of a node, each a /64, than the controller manager can count: write fd00::/48, say, or other shares with spec.controllerManager.extraArgs: [{name: node-cidr-mask-size-ipv6, value: "48"}]`},
		"another share":           {"spec: {network: {podCIDR: fd00::/64}, controllerManager: {extraArgs: [{name: node-cidr-mask-size-ipv6, value: \"80\"}]}}", ""},
		"another share of two":    {"spec: {network: {podCIDR: \"10.244.0.0/16,fd00::/64\"}, controllerManager: {extraArgs: [{name: node-cidr-mask-size-ipv6, value: many}]}}", `spec.controllerManager.extraArgs: node-cidr-mask-size-ipv6: "many" is not a number of bits: write 64, say`},
		"shares of nobody":        {"spec: {network: {podCIDR: fd00::/32}, controllerManager: {extraArgs: [{name: allocate-node-cidrs, value: \"false\"}]}}", ""},
		"fewer shares than hosts": {"spec: {network: {podCIDR: fd00::/64}, hosts: [{name: a}, {name: b}]}", "spec.network.podCIDR: fd00::/64 has room for 1 of 2 hosts, as each node gets a /64: write a larger range"},
		"many services":           {"spec: {network: {podCIDR: fd00::/48, serviceCIDR: fd01::/64}}", "spec.network.serviceCIDR: fd01::/64 holds more addresses than a service range may: write fd01::/108, say"},
		"MTU":                     {"spec: {network: {cni: {mtu: 1400}}}", ""},
		"small MTU":               {"spec: {network: {podCIDR: fd00::/48, cni: {mtu: 1200}}}", "spec.network.cni.mtu: 1200: write a number from 1280 to 65535, or leave it out, and the network finds out by itself"},
		"MTU of no network":       {"spec: {network: {cni: {name: none, mtu: 1400}}}", "spec.network.cni.mtu: nothing reads it where cni.name is none: leave it out, and tell the network that you install"},
		"flannel's settings":      {"spec: {network: {cni: {flannel: {backend: wireguard, nftables: true, interfaceRegex: \"eth[01]\"}}}}", ""},
		"flannel's interfaces":    {"spec: {network: {cni: {flannel: {interface: eth0, interfaceCanReach: 192.0.2.1}}}}", "spec.network.cni.flannel: interface and interfaceCanReach each choose an interface: write one of them"},
		"flannel's pattern":       {"spec: {network: {cni: {flannel: {interfaceRegex: \"eth[\"}}}}", "spec.network.cni.flannel.interfaceRegex: error parsing regexp: missing closing ]: `[`: write a regular expression, eth[01] or ^10\\.1\\., say"},
		"flannel's reach":         {"spec: {network: {cni: {flannel: {interfaceCanReach: gateway}}}}", `spec.network.cni.flannel.interfaceCanReach: "gateway" is not an IP address: write one that is reached through the interface, 192.0.2.1, say`},
		"other address":           {"spec: {hosts: [{name: a, address: 192.0.2.1, otherAddress: \"fd00::1\"}]}", ""},
		"other address, the same": {"spec: {hosts: [{name: a, address: 192.0.2.1, otherAddress: 192.0.2.2}]}", `spec.hosts[0].otherAddress: "192.0.2.2": write an IP address of the family that 192.0.2.1 is not of`},
		"few pods":                {"spec: {network: {podCIDR: 10.244.0.0/25}}", "spec.network.podCIDR: 10.244.0.0/25 is smaller than one node's share, a /24: write a larger range"},
		"few pods of IPv6":        {"spec: {network: {podCIDR: fd00:1::/65, serviceCIDR: fd00:2::/112}}", "spec.network.podCIDR: fd00:1::/65 is smaller than one node's share, a /64: write a larger range"},
		"few services":            {"spec: {network: {serviceCIDR: 10.96.0.0/29}}", "spec.network.serviceCIDR: 10.96.0.0/29 holds fewer than 16 addresses: write a larger range"},
		"families":                {"spec: {network: {podCIDR: fd00::/48, serviceCIDR: 10.96.0.0/12}}", "spec.network: podCIDR fd00::/48 and serviceCIDR 10.96.0.0/12 are not of the same IP families: write the same in both, in the same order, serviceCIDR: fd00:10:96::/112, say"},
		"overlap":                 {"spec: {network: {podCIDR: 10.0.0.0/8}}", "spec.network: podCIDR 10.0.0.0/8 and serviceCIDR 10.96.0.0/12 overlap: write ranges that have no address in common"},
		"overlap, other way":      {"spec: {network: {podCIDR: 10.96.4.0/24}}", "spec.network: podCIDR 10.96.4.0/24 and serviceCIDR 10.96.0.0/12 overlap: write ranges that have no address in common"},
		"algorithm":               {"spec: {pki: {algorithm: ED25519}}", `spec.pki.algorithm: "ED25519" is unknown: write one of ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096`},
		"validity":                {"spec: {pki: {validity: -1h}}", "spec.pki: validity and caValidity must be longer than nothing: write 8760h, say"},
		"validity beyond the CA":  {"spec: {pki: {validity: 2h, caValidity: 1h}}", "spec.pki.validity: 2h0m0s is longer than the certificate authority's 1h0m0s: make it shorter"},
		"socket of a host":        {"spec: {hosts: [{name: a, runtimeSocket: /run/x.sock}]}", `spec.hosts[0].runtimeSocket: "/run/x.sock": write unix:// and an absolute path, unix:///run/containerd/containerd.sock, say`},
		"socket":                  {"spec: {runtime: {socket: /run/x.sock}}", `spec.runtime.socket: "/run/x.sock": write unix:// and an absolute path, unix:///run/containerd/containerd.sock, say`},
		"replicas":                {"spec: {dns: {replicas: -1}}", "spec.dns.replicas: -1: write 1 or more, or spec.dns.disabled: true"},
		"timeouts":                {"spec: {timeouts: {discovery: -1s, tlsBootstrap: -1s}}", "2 problems:\n  - spec.timeouts.discovery: -1s is less than nothing: write a duration such as 4m\n  - spec.timeouts.tlsBootstrap: -1s is less than nothing: write a duration such as 4m"},

		"kubelet's unknown field":  {"spec: {kubelet: {maxPod: 5}}", "spec.kubelet.maxPod: unknown field: see the reference of KubeletConfiguration"},
		"kubelet's unknown deeper": {"spec: {kubelet: {authentication: {anonymous: {enable: true}}}}", "spec.kubelet.authentication.anonymous.enable: unknown field: write one of enabled"},
		"kubelet's wrong types":    {"spec: {kubelet: {maxPods: many, syncFrequency: often}}", "2 problems:\n  - spec.kubelet.maxPods: is the string \"many\", write a whole number of at most 32 bits\n  - spec.kubelet.syncFrequency: is the string \"often\", write a duration such as 10m or 8760h"},
		"kubelet's head":           {"spec: {kubelet: {apiVersion: a, kind: b}}", "2 problems:\n  - spec.kubelet.apiVersion: is implied: leave it out\n  - spec.kubelet.kind: is implied: leave it out"},
		"kube-proxy's field":       {"spec: {kubeProxy: {config: {iptables: {syncPeriods: 5s}}}}", "spec.kubeProxy.config.iptables.syncPeriods: unknown field: write one of localhostNodePorts, masqueradeAll, masqueradeBit, minSyncPeriod, syncPeriod"},

		"hosts of one name":    {"spec: {hosts: [{name: a}, {name: b}, {name: a}]}", `spec.hosts[2].name: "a" is the name of spec.hosts[0] already`},
		"hosts of one address": {"spec: {hosts: [{name: a, address: 10.0.0.1}, {name: b, address: 10.0.0.1}]}", "spec.hosts[1].address: 10.0.0.1 is the address of spec.hosts[0] already"},
		"host's address":       {"spec: {hosts: [{name: a, address: a.example.org}]}", `spec.hosts[0].address: "a.example.org" is not an IP address`},
		"host's name":          {"spec: {hosts: [{name: A}]}", "spec.hosts[0].name: a lowercase RFC 1123 subdomain"},
		"host's role":          {"spec: {hosts: [{name: a, roles: [master]}]}", `spec.hosts[0].roles: "master" is unknown: write one of control-plane, worker`},
		"host's label":         {"spec: {hosts: [{name: a, labels: {\"a b\": \"\"}}]}", "spec.hosts[0].labels.a b: name part must consist of"},
		"label's value":        {"spec: {hosts: [{name: a, labels: {a: b c}}]}", "spec.hosts[0].labels.a: a valid label must be"},
		"host's taint":         {"spec: {hosts: [{name: a, taints: [{key: a, effect: Never}]}]}", `spec.hosts[0].taints[0].effect: "Never" is unknown: write one of NoSchedule, PreferNoSchedule, NoExecute`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := document(t, tt.document).Validate(); err != nil {
				got = err.Error()
			}
			// Kubernetes' own messages quote their regular expressions: their beginning is enough.
			if exact := !strings.Contains(got, "RFC 1123") && !strings.Contains(got, "must consist") && !strings.Contains(got, "a valid "); exact && got != tt.want {
				t.Error(cmp.Diff(tt.want, got))
			}
			if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s...", got, tt.want)
			}
		})
	}
}

func TestValidateReportsAllProblemsAtOnceInOrder(t *testing.T) {
	c := document(t, `spec:
  kubernetesVersion: nonsense
  network: {podCIDR: 10.100.0.0/16, cni: {flannel: {backend: udp}}}
  kubeProxy: {mode: ebpf}
  apiServer: {extraArgs: [{name: --a}]}
  scheduler: {extraArgs: [{name: --b}]}
  hosts: [{name: a}, {name: a}]
`)
	want := `7 problems:
  - spec.apiServer.extraArgs[0].name: "--a": write the flag's name without dashes, and its value under value
  - spec.hosts[1].name: "a" is the name of spec.hosts[0] already
  - spec.kubeProxy.mode: "ebpf" is unknown: write one of iptables, nftables, ipvs, none
  - spec.kubernetesVersion: "vnonsense" is not a version: write v1.36.3, say
  - spec.network.cni.flannel.backend: "udp" is unknown: write one of vxlan, host-gw, wireguard
  - spec.network: podCIDR 10.100.0.0/16 and serviceCIDR 10.96.0.0/12 overlap: write ranges that have no address in common
  - spec.scheduler.extraArgs[0].name: "--b": write the flag's name without dashes, and its value under value`
	for range 20 { // maps are walked on the way
		err := c.Validate()
		if err == nil {
			t.Fatal("no error")
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestDefaultMakesAWorkingClusterOfNothing(t *testing.T) {
	c := &Cluster{}
	c.Default(Versions{})
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := c.Print()
	if err != nil {
		t.Fatal(err)
	}
	want := head + `metadata:
  name: kubernetes
spec:
  controlPlane:
    bindPort: 6443
    loadBalancer:
      image: docker.io/library/haproxy:2.6.12
  dns:
    imageTag: v1.14.2
    replicas: 2
  etcd:
    dataDir: /var/lib/etcd
    imageTag: 3.6.8-0
  imageRepository: registry.k8s.io
  kubeProxy:
    mode: iptables
  kubernetesVersion: v1.36.3
  network:
    cni:
      flannel:
        backend: vxlan
        version: v0.28.10
      name: flannel
    dnsDomain: cluster.local
    podCIDR: 10.244.0.0/16
    serviceCIDR: 10.96.0.0/12
  pki:
    algorithm: ECDSA-P256
    caValidity: 87600h0m0s
    validity: 8760h0m0s
  runtime:
    sandboxImage: registry.k8s.io/pause:3.10.2
  timeouts:
    controlPlaneComponentHealthCheck: 4m0s
    discovery: 5m0s
    kubeletHealthCheck: 4m0s
    kubernetesAPICall: 1m0s
    tlsBootstrap: 5m0s
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultsGoWithTheVersionOfKubernetes(t *testing.T) {
	for version, want := range map[string]Versions{
		"":         {"v1.36.3", "3.6.8-0", "v1.14.2", "3.10.2", "v0.28.10", "", "", "2.6.12"},
		"v1.36.0":  {"v1.36.0", "3.6.8-0", "v1.14.2", "3.10.2", "v0.28.10", "", "", "2.6.12"},
		"1.35.8":   {"v1.35.8", "3.6.6-0", "v1.13.1", "3.10.1", "v0.28.10", "", "", "2.6.12"},
		"v1.34.11": {"v1.34.11", "3.6.5-0", "v1.12.1", "3.10.1", "v0.28.10", "", "", "2.6.12"},
		"v1.37.0":  {"v1.37.0", "3.6.8-0", "v1.14.2", "3.10.2", "v0.28.10", "", "", "2.6.12"}, // Validate refuses it
	} {
		c := &Cluster{Spec: Spec{KubernetesVersion: version}}
		c.Default(Versions{})
		if got := c.Versions(); got != want {
			t.Errorf("%q: %+v", version, got)
		}
	}
	if len(catalogue) != len(minors) {
		t.Errorf("%d rows for %d minor versions", len(catalogue), len(minors))
	}
}

func TestDefaultPrefersTheDocumentThenTheBundle(t *testing.T) {
	bundle := Versions{Kubernetes: "v1.35.4", Etcd: "3.5.0-0", CoreDNS: "v1.10.0", Pause: "3.9", Flannel: "v0.27.0", HAProxy: "2.6.9"}
	c := &Cluster{}
	c.Default(bundle)
	s := c.Spec
	got := Versions{s.KubernetesVersion, s.Etcd.ImageTag, s.DNS.ImageTag, strings.TrimPrefix(s.Runtime.SandboxImage, "registry.k8s.io/pause:"), s.Network.CNI.Flannel.Version, "", "", strings.TrimPrefix(s.ControlPlane.LoadBalancer.Image, "docker.io/library/haproxy:")}
	if got != bundle {
		t.Errorf("from the bundle: %+v", got)
	}
	c = &Cluster{Spec: Spec{KubernetesVersion: "1.34.1", ImageRepository: "r.example.org/k", DNS: DNS{ImageTag: "v1"}, Network: Network{CNI: CNI{Name: "none"}}}}
	c.Default(bundle)
	if v := c.Spec.KubernetesVersion; v != "v1.34.1" {
		t.Errorf("version %s", v)
	}
	if v := c.Spec.DNS.ImageTag; v != "v1" {
		t.Errorf("CoreDNS %s", v)
	}
	if v := c.Spec.Runtime.SandboxImage; v != "r.example.org/k/pause:3.9" {
		t.Errorf("sandbox image %s", v)
	}
	if n := c.Spec.Network; n.PodCIDR != "" || n.CNI.Flannel != (Flannel{}) {
		t.Errorf("without a CNI: %+v", n)
	}
}

func TestNodeIsWhatTheDocumentAndTheFactsSay(t *testing.T) {
	c := &Cluster{Spec: Spec{Hosts: []Node{
		{Name: "cp-1", Roles: []Role{ControlPlaneRole, WorkerRole}, Address: "10.0.0.9", Labels: map[string]string{"a": "b"}},
		{Name: "w-1", Roles: []Role{WorkerRole}},
	}}}
	facts := Facts{Hostname: "CP-1", DefaultIP: netip.MustParseAddr("192.0.2.1")}
	for name, tt := range map[string]struct {
		name string
		role Role
		f    Facts
		want Node
	}{
		"by its host name, in lower case": {"", ControlPlaneRole, facts, c.Spec.Hosts[0]},
		"roles of the document are kept":  {"cp-1", WorkerRole, facts, c.Spec.Hosts[0]},
		"address of the default route":    {"w-1", WorkerRole, facts, Node{Name: "w-1", Roles: []Role{WorkerRole}, Address: "192.0.2.1"}},
		"role that it is about to take":   {"w-1", ControlPlaneRole, facts, Node{Name: "w-1", Roles: []Role{ControlPlaneRole}, Address: "192.0.2.1"}},
		"not listed":                      {"x", WorkerRole, facts, Node{Name: "x", Roles: []Role{WorkerRole}, Address: "192.0.2.1"}},
		"no default route":                {"x", WorkerRole, Facts{}, Node{Name: "x", Roles: []Role{WorkerRole}}},
	} {
		if diff := cmp.Diff(tt.want, c.Node(tt.name, tt.role, tt.f)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if !(Node{Address: "10.0.0.9"}).IP().IsValid() || (Node{}).IP().IsValid() {
		t.Error("IP: valid for no address, or not for one")
	}
}

func TestInternalEndpointIsByItsName(t *testing.T) {
	for endpoint, want := range map[string]string{
		"prod.kubewright.internal": "prod.kubewright.internal", "a.b.kubewright.internal:444": "a.b.kubewright.internal",
		"kubewright.internal": "", "prod.kubewright.internal.example.org": "", "": "", "192.0.2.1": "",
	} {
		c := &Cluster{Spec: Spec{ControlPlane: ControlPlane{Endpoint: endpoint, BindPort: 6443}}}
		if name, ok := c.InternalEndpoint(); name != want || ok != (want != "") {
			t.Errorf("%q gives %q, %t", endpoint, name, ok)
		}
	}
}

func TestSplitEndpoint(t *testing.T) {
	for endpoint, want := range map[string]struct {
		host string
		port int32
		err  string
	}{
		"api.example.org":        {"api.example.org", 6443, ""},
		"api.example.org:443":    {"api.example.org", 443, ""},
		"192.0.2.1":              {"192.0.2.1", 6443, ""},
		"192.0.2.1:1":            {"192.0.2.1", 1, ""},
		"fd00::1":                {"fd00::1", 6443, ""},
		"[fd00::1]":              {"fd00::1", 6443, ""},
		"[fd00::1]:65535":        {"fd00::1", 65535, ""},
		"":                       {err: `"" is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not 6443`},
		":6443":                  {err: `":6443" is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not 6443`},
		"https://a.example:6443": {err: `"https://a.example:6443" is a URL: write HOST:PORT alone, without https://`},
		"a b":                    {err: `"a b" is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not 6443`},
		"a:":                     {err: `"a:": the port must be a number from 1 to 65535`},
		"a:65536":                {err: `"a:65536": the port must be a number from 1 to 65535`},
		"a:http":                 {err: `"a:http": the port must be a number from 1 to 65535`},
	} {
		host, port, err := SplitEndpoint(endpoint, 6443)
		message := ""
		if err != nil {
			message = err.Error()
		}
		if host != want.host || port != want.port || message != want.err {
			t.Errorf("%q gives %q, %d, %q", endpoint, host, port, message)
		}
	}
}
