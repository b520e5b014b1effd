package phases

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

const bothServices = "10.96.0.0/12,fd00:10:96::/112"

// families is a cluster with these service ranges, and pods of the same families.
func families(services string) *config.Cluster {
	c := &config.Cluster{}
	c.Spec.Network.ServiceCIDR = services
	c.Default(config.Versions{})
	return c
}

func TestPreflightOfFamilies(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
	on := map[string]string{disableIPv6: "0", disableIPv6OfLoopback: "0"}
	both := config.Facts{DefaultIP: v4, DefaultIPv6: v6, Sysctls: on}
	for name, tt := range map[string]struct {
		services     string
		own, other   string
		f            config.Facts
		change       func(*config.Spec)
		want         []string // of each, its beginning
		insteadWants string   // and what all of them say
	}{
		"IPv4":          {"10.96.0.0/12", "192.0.2.11", "", config.Facts{DefaultIP: v4}, nil, nil, ""},
		"IPv6":          {"fd00::/112", "2001:db8::11", "", both, nil, nil, ""},
		"both":          {bothServices, "192.0.2.11", "2001:db8::11", both, nil, nil, ""},
		"not known yet": {bothServices, "", "", both, nil, nil, ""},
		"IPv4 of IPv6":  {"fd00::/112", "192.0.2.11", "", both, nil, []string{"[Address] the cluster's own family is IPv6, that of the first range of spec.network.serviceCIDR (fd00::/112), and 192.0.2.11 of node n is IPv4: give the host one, and name it with --apiserver-advertise-address, or with address under spec.hosts"}, ""},
		"IPv6 of IPv4":  {"10.96.0.0/12", "2001:db8::11", "", both, nil, []string{"[Address] the cluster's own family is IPv4"}, "or write ranges of IPv6"},
		"one of two":    {bothServices, "192.0.2.11", "", both, nil, []string{"[Address] the cluster is dual-stack (spec.network.serviceCIDR is " + bothServices + "), and node n has no IPv6 address beside 192.0.2.11: give the host one, or name it with otherAddress under spec.hosts; or write one range each"}, ""},
		"IPv6 is off": {bothServices, "192.0.2.11", "", config.Facts{DefaultIP: v4, DefaultIPv6: v6, Sysctls: map[string]string{disableIPv6: "1"}}, nil,
			[]string{"[IPv6] IPv6 is off on this host, and the cluster has it (spec.network.serviceCIDR is " + bothServices + "): turn it on with `sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0`, for good in /etc/sysctl.d, or write ranges of IPv4 alone", "[Address] the cluster is dual-stack"}, ""},
		"IPv6 is off for new interfaces": {bothServices, "192.0.2.11", "2001:db8::11", config.Facts{DefaultIP: v4, DefaultIPv6: v6, Sysctls: map[string]string{disableIPv6: "0", disableIPv6OfNew: "1"}}, nil, []string{"[IPv6] IPv6 is off"}, ""},
		"none in the kernel":             {bothServices, "192.0.2.11", "2001:db8::11", config.Facts{DefaultIP: v4, DefaultIPv6: v6}, nil, []string{"[IPv6] this kernel has no IPv6, and the cluster has it (spec.network.serviceCIDR is " + bothServices + "): boot it without ipv6.disable=1"}, ""},
		"no ::1":                         {"fd00::/112", "2001:db8::11", "", config.Facts{DefaultIPv6: v6, Sysctls: map[string]string{disableIPv6: "0", disableIPv6OfLoopback: "1"}}, nil, []string{"[IPv6] IPv6 is off"}, ""},
		"no ::1 where nobody asks":       {bothServices, "192.0.2.11", "2001:db8::11", config.Facts{DefaultIP: v4, DefaultIPv6: v6, Sysctls: map[string]string{disableIPv6: "0", disableIPv6OfLoopback: "1"}}, nil, nil, ""},
		"IPv6 is off, and unused":        {"10.96.0.0/12", "192.0.2.11", "", config.Facts{DefaultIP: v4, Sysctls: map[string]string{disableIPv6: "1", disableIPv6OfNew: "1"}}, nil, nil, ""},
		"a route of the kernel's":        {"fd00::/112", "2001:db8::11", "", config.Facts{DefaultIPv6: v6, Sysctls: on, RouteEnds: "eth0.7"}, nil, []string{"[RouterAdvertisements] the default route of IPv6 is one that the kernel takes from router advertisements on eth0.7, and it ends when the host begins to forward IPv6, as the cluster needs: write 2 into /proc/sys/net/ipv6/conf/eth0.7/accept_ra, and `net.ipv6.conf.eth0/7.accept_ra = 2`"}, ""},
		"such a route, of no use":        {"10.96.0.0/12", "192.0.2.11", "", config.Facts{DefaultIP: v4, DefaultIPv6: v6, Sysctls: on, RouteEnds: "eth0"}, nil, nil, ""},
		"no route":                       {"fd00::/112", "2001:db8::11", "", config.Facts{DefaultIP: v4, Sysctls: on}, nil, []string{"[DefaultRoute] flannel takes the interface of the default route of IPv6, and this host has none: add one (see `ip -6 route`), or name the interface with spec.network.cni.flannel.interface"}, ""},
		"no route of two":                {bothServices, "192.0.2.11", "2001:db8::11", config.Facts{DefaultIP: v6, DefaultIPv6: v6, Sysctls: on}, nil, []string{"[DefaultRoute] flannel takes the interface of the default route of IPv4"}, ""},
		"no route, but an interface": {"fd00::/112", "2001:db8::11", "", config.Facts{DefaultIP: v4, Sysctls: on},
			func(s *config.Spec) { s.Network.CNI.Flannel.InterfaceRegex = "eth.*" }, nil, ""},
		"no route, and no flannel": {"fd00::/112", "2001:db8::11", "", config.Facts{DefaultIP: v4, Sysctls: on},
			func(s *config.Spec) { s.Network.CNI.Name = "none" }, nil, ""},
	} {
		c := families(tt.services)
		if tt.change != nil {
			tt.change(&c.Spec)
		}
		got := checkFamilies(c, config.Node{Name: "n", Address: tt.own, OtherAddress: tt.other}, tt.f)
		wantFindings(t, name, got, tt.want)
		for _, f := range got {
			if !strings.Contains(f.Message, tt.insteadWants) {
				t.Errorf("%s: %q lacks %q", name, f.Message, tt.insteadWants)
			}
		}
	}
}

// wantFindings wants findings to begin so, in this order.
func wantFindings(t *testing.T, name string, got []Finding, want []string) {
	t.Helper()
	for i, f := range got {
		if i >= len(want) || !strings.HasPrefix(f.Error(), want[i]) {
			t.Errorf("%s: found %s", name, f.Error())
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d findings, not %d", name, len(got), len(want))
	}
}

func TestPreflightOfTheKernel(t *testing.T) {
	const dryRun, symbol = "modprobe --dry-run --quiet ", "grep -q -w nft_do_chain /proc/kallsyms"
	backend := func(name string) func(*config.Spec) {
		return func(s *config.Spec) { s.Network.CNI.Flannel.Backend = name }
	}
	mode := func(name string) func(*config.Spec) { return func(s *config.Spec) { s.KubeProxy.Mode = name } }
	for name, tt := range map[string]struct {
		change  func(*config.Spec)
		kernel  string
		sign    string
		answers []string // commands that succeed
		want    []string
	}{
		"vxlan is built in":     {backend("vxlan"), "", "/sys/module/vxlan/x", nil, nil},
		"vxlan can be loaded":   {backend("vxlan"), "", "", []string{dryRun + "vxlan"}, nil},
		"no vxlan":              {backend("vxlan"), "", "", nil, []string{"[Kernel-vxlan] the kernel 6.12.0-1-amd64 has no vxlan, neither built in nor as a module that could be loaded, and flannel's backend vxlan needs it: install the kernel's modules (see `modprobe vxlan`), or write something else for spec.network.cni.flannel.backend"}},
		"nothing is needed":     {backend("host-gw"), "", "", nil, nil},
		"no wireguard":          {backend("wireguard"), "", "/sys/module/vxlan/x", nil, []string{"[Kernel-wireguard] the kernel 6.12.0-1-amd64 has no wireguard"}},
		"wireguard":             {backend("wireguard"), "", "", []string{dryRun + "wireguard"}, nil},
		"nftables built in":     {mode("nftables"), "", "/sys/module/vxlan/x", []string{symbol}, nil},
		"nftables as a module":  {mode("nftables"), "", "/sys/module/vxlan/x", []string{dryRun + "nf_tables"}, nil},
		"no nftables":           {mode("nftables"), "", "/sys/module/vxlan/x", nil, []string{"[Kernel-nf_tables] the kernel 6.12.0-1-amd64 has no nf_tables"}},
		"no nftables, twice":    {func(s *config.Spec) { s.KubeProxy.Mode, s.Network.CNI.Flannel.NFTables = "nftables", true }, "", "/sys/module/vxlan/x", nil, []string{"[Kernel-nf_tables]", "[Kernel-nf_tables]"}},
		"an old kernel":         {mode("nftables"), "5.10.0-8-amd64", "/sys/module/vxlan/x", []string{symbol}, []string{"[KernelVersion] the kernel is 5.10.0-8-amd64, and kube-proxy in mode nftables needs 5.13 or newer: write spec.kubeProxy.mode: iptables"}},
		"an old kernel, unused": {mode("iptables"), "5.10.0-8-amd64", "/sys/module/vxlan/x", nil, nil},
		"a kernel of nobody's":  {mode("nftables"), "mine", "/sys/module/vxlan/x", []string{symbol}, nil},
		"ipvs":                  {mode("ipvs"), "", "/sys/module/vxlan/x", []string{dryRun + "ip_vs"}, []string{"[KubeProxyMode] kube-proxy's mode ipvs is deprecated"}},
		"no ipvs":               {mode("ipvs"), "", "/sys/module/vxlan/x", nil, []string{"[KubeProxyMode]", "[Kernel-ip_vs] the kernel 6.12.0-1-amd64 has no ip_vs"}},
		"no ipip": {func(s *config.Spec) {
			s.Network.CNI.Name, s.Network.CNI.Calico.Encapsulation = "calico", "ipip"
		}, "", "", nil, []string{"[Kernel-ipip]", "[Kernel-ip_set] the kernel 6.12.0-1-amd64 has no ip_set, neither built in nor as a module that could be loaded, and Calico with iptables needs it"}},
		"sets of nft": {func(s *config.Spec) {
			s.Network.CNI.Name, s.Network.CNI.Calico.Encapsulation, s.KubeProxy.Mode = "calico", "none", "nftables"
		}, "", "", []string{symbol}, nil},
		"no sets for Weave": {func(s *config.Spec) { s.Network.CNI.Name = "weave" }, "", "", nil, []string{"[Kernel-ip_set]"}},
	} {
		h := newFakeHost(t)
		delete(h.files, "/sys/module/vxlan/x")
		if tt.sign != "" {
			h.files[tt.sign] = text("")
		}
		if tt.kernel != "" {
			h.files["/proc/sys/kernel/osrelease"] = text(tt.kernel)
		}
		for _, a := range tt.answers {
			h.answers[a] = ""
		}
		c := cluster()
		tt.change(&c.Spec)
		wantFindings(t, name, h.target(c, config.ControlPlaneRole).checkKernel(t.Context(), c), tt.want)
		if len(h.done) > 0 {
			t.Errorf("%s: looking changed the host: %q", name, h.done)
		}
	}
}

func TestEverySignOfTheKernelIsAFact(t *testing.T) {
	for _, s := range []config.Spec{
		{Network: config.Network{CNI: config.CNI{Name: "flannel", Flannel: config.Flannel{Backend: "vxlan", NFTables: true}}}, KubeProxy: config.KubeProxy{Mode: "ipvs"}},
		{Network: config.Network{CNI: config.CNI{Name: "flannel", Flannel: config.Flannel{Backend: "wireguard"}}}, KubeProxy: config.KubeProxy{Mode: "nftables"}},
		{Network: config.Network{CNI: config.CNI{Name: "calico", Calico: config.Calico{Encapsulation: "vxlan"}}}, KubeProxy: config.KubeProxy{Mode: "iptables"}},
		{Network: config.Network{CNI: config.CNI{Name: "weave"}}},
		{Network: config.Network{CNI: config.CNI{Name: "calico", Calico: config.Calico{Encapsulation: "ipip"}}}},
	} {
		for _, n := range kernelNeeds(s) {
			if !slices.Contains(kernelSigns(), n.sign()) {
				t.Errorf("nobody looks for %s, of %s", n.sign(), n.whose)
			}
		}
	}
}

// A host that joins by a token hears only late that its cluster has IPv6: a setting of the kernel follows.
func TestAJoiningHostForwardsIPv6WhereItsClusterHasIt(t *testing.T) {
	const forwarding, file = "/proc/sys/net/ipv6/conf/all/forwarding", "/etc/sysctl.d/99-kubewright-ipv6.conf"
	for services, want := range map[string]string{"10.96.0.0/12": "0", bothServices: "1", "fd00::/112": "1"} {
		h := newFakeHost(t)
		h.files[forwarding] = text("0\n")
		h.answers["ip -6 -j route"] = `[{"dst":"default","dev":"eth0","prefsrc":"2001:db8::11"}]`
		h.files["/sys/module/overlay/x"] = text("")
		h.units["kubelet"] = "enabled"
		target := joinTarget(h, cluster(), nil)
		target.Discover = discovered(t, families(services))
		transcript(h, Select(Join(), "kernel"), target)
		if _, early := h.files[file]; early {
			t.Errorf("%s: written before anybody knew", services)
		}
		transcript(h, Select(Join(), "kubelet-start"), target)
		b, err := bytesOf(h.files[forwarding].Content)
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s: forwarding is %q, %v", services, b, err)
		}
		if _, kept := h.files[file]; kept != (want == "1") {
			t.Errorf("%s: kept over a reboot: %t", services, kept)
		}
		flags := map[string]string{"10.96.0.0/12": "", bothServices: "--node-ip=192.0.2.11,2001:db8::11", "fd00::/112": "--node-ip=2001:db8::11"}[services]
		b, _ = bytesOf(h.files[manifests.KubeletFlags].Content)
		if !strings.Contains(string(b), flags) || strings.Contains(string(b), "node-ip") != (flags != "") {
			t.Errorf("%s: the kubelet has %s", services, b)
		}
		h.done = nil
		again := joinTarget(h, cluster(), nil)
		again.Discover = target.Discover
		transcript(h, Select(Join(), "kernel"), again)
		if len(h.done) > 0 {
			t.Errorf("%s: a second time it did %q", services, h.done)
		}
	}
}

func TestOverlapsOfTheSecondRange(t *testing.T) {
	f := config.Facts{Addresses: []netip.Prefix{netip.MustParsePrefix("fd00:10:96::7/64")}}
	var got []string
	for _, finding := range overlaps(families(bothServices), f) {
		got = append(got, finding.Message)
	}
	want := []string{"the service range fd00:10:96::/112 overlaps the host's address fd00:10:96::7/64: choose another with --service-cidr, or spec.network.serviceCIDR in the document"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
