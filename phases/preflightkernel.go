package phases

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/blang/semver/v4"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// checkNetwork judges whether a host can carry the network of a cluster: its addresses, routes and kernel.
func (t *Target) checkNetwork(ctx context.Context, c *config.Cluster) []Finding {
	return slices.Concat(checkFamilies(c, t.Node, t.Facts), checkMTU(c, t.Node, t.Facts), t.checkKernel(ctx, c))
}

var familyNames = map[bool]string{false: "IPv4", true: "IPv6"}

// checkFamilies wants a node to have addresses of the families of its cluster's ranges.
func checkFamilies(c *config.Cluster, node config.Node, f config.Facts) (out []Finding) {
	add := func(name, format string, args ...any) {
		out = append(out, Finding{Name: name, Message: fmt.Sprintf(format, args...)})
	}
	n, v6 := c.Spec.Network, c.Spec.Network.IPv6()
	const mend = "give the host one"
	if all, ok := f.Sysctls[disableIPv6]; n.UsesIPv6() && !ok {
		add("IPv6", "this kernel has no IPv6, and the cluster has it (spec.network.serviceCIDR is %s): boot it without ipv6.disable=1, or write ranges of IPv4 alone", n.ServiceCIDR)
	} else if n.UsesIPv6() && (all == "1" || f.Sysctls[disableIPv6OfNew] == "1" || v6 && f.Sysctls[disableIPv6OfLoopback] == "1") {
		// An interface may have it all the same. But kube-proxy looks at the one, those of pods take after the other,
		// and etcd and the API server are asked at ::1.
		add("IPv6", "IPv6 is off on this host, and the cluster has it (spec.network.serviceCIDR is %s): turn it on with `sysctl -w %s=0 %s=0 %s=0`, for good in /etc/sysctl.d, or write ranges of IPv4 alone",
			n.ServiceCIDR, disableIPv6, disableIPv6OfNew, disableIPv6OfLoopback)
	}
	if n.UsesIPv6() && f.RouteEnds != "" {
		add("RouterAdvertisements", "the default route of IPv6 is one that the kernel takes from router advertisements on %s, and it ends when the host begins to forward IPv6, as the cluster needs: write 2 into %s, and `net.ipv6.conf.%s.accept_ra = 2` into a file of /etc/sysctl.d, or have systemd-networkd or NetworkManager take them",
			f.RouteEnds, acceptRA(f.RouteEnds), strings.ReplaceAll(f.RouteEnds, ".", "/"))
	}
	if ip := node.IP(); ip.IsValid() && ip.Is6() != v6 {
		add("Address", "the cluster's own family is %s, that of the first range of spec.network.serviceCIDR (%s), and %s of node %s is %s: %s, and name it with --apiserver-advertise-address, or with address under spec.hosts, if it is not that of the default route; or write ranges of %s",
			familyNames[v6], n.ServiceCIDR, ip, node.Name, familyNames[!v6], mend, familyNames[!v6])
	} else if ip.IsValid() && n.DualStack() && len(node.IPs()) < 2 {
		add("Address", "the cluster is dual-stack (spec.network.serviceCIDR is %s), and node %s has no %s address beside %s: %s, or name it with otherAddress under spec.hosts; or write one range each for podCIDR and serviceCIDR",
			n.ServiceCIDR, node.Name, familyNames[!v6], ip, mend)
	}
	fl := n.CNI.Flannel
	if n.CNI.Name != "flannel" || !n.UsesIPv6() || fl.Interface+fl.InterfaceRegex+fl.InterfaceCanReach != "" {
		return out
	}
	for _, family := range []struct {
		v6, is bool
		source netip.Addr
	}{{false, f.DefaultIP.Is4(), f.DefaultIP}, {true, f.DefaultIPv6.IsValid(), f.DefaultIPv6}} {
		if (family.v6 == v6 || n.DualStack()) && !family.is {
			add("DefaultRoute", "flannel takes the interface of the default route of %s, and this host has none: add one (see `ip -%d route`), or name the interface with spec.network.cni.flannel.interface",
				familyNames[family.v6], map[bool]int{false: 4, true: 6}[family.v6])
		}
	}
	return out
}

// need is what the network of a document asks of the kernel, and where to ask for something else.
type need struct {
	module string
	whose  string
	field  string
}

// sign is there where the module is loaded or, for most, built in.
func (n need) sign() string { return "/sys/module/" + n.module }

// symbols of /proc/kallsyms are of what leaves no sign where it is built in, as it has no parameters.
var symbols = map[string]string{"nf_tables": "nft_do_chain"}

// kernelNeeds are those of a document. What every node needs, manifests.Modules has.
func kernelNeeds(s config.Spec) (needs []need) {
	cni, mode := s.Network.CNI, s.KubeProxy.Mode
	flannel, calico := cni.Name == "flannel", cni.Name == "calico"
	for _, n := range []struct {
		wanted bool
		need
	}{
		{flannel && cni.Flannel.Backend == "vxlan", need{"vxlan", "flannel's backend vxlan", "spec.network.cni.flannel.backend"}},
		{flannel && cni.Flannel.Backend == "wireguard", need{"wireguard", "flannel's backend wireguard", "spec.network.cni.flannel.backend"}},
		{flannel && cni.Flannel.NFTables, need{"nf_tables", "flannel with nftables", "spec.network.cni.flannel.nftables"}},
		{calico && cni.Calico.Encapsulation == "vxlan", need{"vxlan", "Calico's encapsulation vxlan", "spec.network.cni.calico.encapsulation"}},
		{calico && cni.Calico.Encapsulation == "ipip", need{"ipip", "Calico's encapsulation ipip", "spec.network.cni.calico.encapsulation"}},
		// Their policies are sets of addresses: of nft where kube-proxy's mode is that, else ipset's.
		{calico && (mode == "iptables" || mode == "ipvs"), need{"ip_set", "Calico with iptables", "spec.kubeProxy.mode (Calico follows it: nftables, say)"}},
		{cni.Name == "weave", need{"ip_set", "Weave", "spec.network.cni.name"}},
		{mode == "nftables", need{"nf_tables", "kube-proxy in mode nftables", "spec.kubeProxy.mode"}},
		{mode == "ipvs", need{"ip_vs", "kube-proxy in mode ipvs", "spec.kubeProxy.mode"}},
	} {
		if n.wanted {
			needs = append(needs, n.need)
		}
	}
	return needs
}

// kernelSigns are asked for with all other facts.
func kernelSigns() (signs []string) {
	for _, module := range []string{"vxlan", "wireguard", "nf_tables", "ipip", "ip_set", "ip_vs"} {
		signs = append(signs, need{module: module}.sign())
	}
	return signs
}

// nftablesKernel is the oldest on which kube-proxy's mode nftables starts (pkg/util/kernel).
var nftablesKernel = semver.Version{Major: 5, Minor: 13}

func (t *Target) checkKernel(ctx context.Context, c *config.Cluster) (out []Finding) {
	mode := c.Spec.KubeProxy.Mode
	if mode == "ipvs" && t.controlPlane() {
		out = append(out, Finding{Name: "KubeProxyMode", Warning: true, Message: "kube-proxy's mode ipvs is deprecated, and Kubernetes will drop it: write spec.kubeProxy.mode: nftables, or iptables"})
	}
	if v := kernelVersion(t.Facts.Kernel); mode == "nftables" && v.Major > 0 && v.LT(nftablesKernel) {
		out = append(out, Finding{Name: "KernelVersion", Message: fmt.Sprintf("the kernel is %s, and kube-proxy in mode nftables needs %d.%d or newer: write spec.kubeProxy.mode: iptables, or boot a newer kernel", t.Facts.Kernel, nftablesKernel.Major, nftablesKernel.Minor)})
	}
	needs := kernelNeeds(c.Spec)
	lacks := make([]bool, len(needs))
	var wg sync.WaitGroup
	for i, n := range needs {
		if !t.Facts.Present[n.sign()] {
			wg.Go(func() { lacks[i] = !t.loadable(ctx, n) })
		}
	}
	wg.Wait()
	for i, n := range needs {
		if lacks[i] {
			out = append(out, Finding{Name: "Kernel-" + n.module, Message: fmt.Sprintf("the kernel %s has no %s, neither built in nor as a module that could be loaded, and %s needs it: install the kernel's modules (see `modprobe %s`), or write something else for %s", t.Facts.Kernel, n.module, n.whose, n.module, n.field)})
		}
	}
	return out
}

// loadable asks for what leaves no sign: a module that will be loaded when it is needed, and what is built in
// by its functions, since not every kernel comes with a list of that.
func (t *Target) loadable(ctx context.Context, n need) bool {
	asked := []host.Command{host.Query("modprobe", "--dry-run", "--quiet", n.module)}
	if symbol := symbols[n.module]; symbol != "" {
		asked = append(asked, host.Query("grep", "-q", "-w", symbol, "/proc/kallsyms"))
	}
	found := make([]bool, len(asked))
	var wg sync.WaitGroup
	for i, question := range asked {
		wg.Go(func() {
			_, err := t.Host.Run(ctx, question)
			found[i] = err == nil
		})
	}
	wg.Wait()
	for _, yes := range found {
		if yes {
			return true
		}
	}
	return false
}

// kernelVersion reads the beginning of "uname -r"; zero where it is none.
func kernelVersion(release string) (v semver.Version) {
	numbers := strings.FieldsFunc(release, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if len(numbers) > 0 {
		v, _ = semver.ParseTolerant(strings.Trim(numbers[0], "."))
	}
	return v
}
