// Package reach finds out which packets get from host to host, before there is a cluster that needs them.
//
// In go a document, and hosts on which a small program can be started; out come the ports that each
// must reach at each other ([Ports]), what has come there ([Look]), and what is in the way, with the
// commands that mend it ([Judge]). It knows nothing of phases.
package reach

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/reach/probe"
)

// Port is one that a host has to be reached at.
type Port struct {
	Network string `json:"network"` // tcp, udp
	Number  uint16 `json:"number"`
	For     string `json:"for"`
	// Optional is one without which nodes and pods may do well: NodePorts are for others.
	Optional bool `json:"optional,omitempty"`
}

// String is 8472/udp, as firewalls have it.
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Network) }

func (p Port) probe() probe.Port { return probe.Port{Network: p.Network, Number: p.Number} }

// always, controlPlane... tell between whom a port is needed.
func always(_, _ config.Node) bool              { return true }
func toControlPlane(_, to config.Node) bool     { return to.Has(config.ControlPlaneRole) }
func fromControlPlane(from, _ config.Node) bool { return from.Has(config.ControlPlaneRole) }
func amongControlPlanes(from, to config.Node) bool {
	return from.Has(config.ControlPlaneRole) && to.Has(config.ControlPlaneRole)
}

// Ports are those at which a host of a complete document has to be reached from another.
func Ports(c *config.Cluster, from, to config.Node) (all []Port) {
	s := c.Spec
	node := nodePort(c)
	kubelet := fromControlPlane
	if s.Addons.MetricsServer { // which runs anywhere
		kubelet = always
	}
	for _, row := range []struct {
		needed  bool
		between func(from, to config.Node) bool
		ports   []Port
	}{
		{true, toControlPlane, tcp("API server", uint16(cmp.Or(s.ControlPlane.BindPort, 6443)))},
		{s.Etcd.External == nil, amongControlPlanes, tcp("etcd", 2379, 2380)},
		{true, kubelet, tcp("kubelet", kubeletPort(c))},
		{true, always, chosen(c, network(c))},
		{s.KubeProxy.Mode != "none", always, []Port{{"tcp", node, "NodePorts", true}, {"udp", node, "NodePorts", true}}},
	} {
		if row.needed && row.between(from, to) {
			all = append(all, row.ports...)
		}
	}
	return all
}

// network are the ports of the pod network, which every node has to reach at every other.
func network(c *config.Cluster) []Port {
	n := c.Spec.Network
	switch n.CNI.Name {
	case "flannel":
		switch n.CNI.Flannel.Backend {
		case "vxlan":
			return udp("flannel vxlan", 8472)
		case "wireguard":
			var ports []uint16
			for _, cidr := range n.PodRanges() {
				ports = append(ports, map[bool]uint16{true: 51820, false: 51821}[cidr.Addr().Is4()])
			}
			return udp("flannel wireguard", ports...)
		}
	case "calico":
		ports := tcp("calico BGP", 179)
		if cmp.Or(n.CNI.Calico.Encapsulation, "vxlan") == "vxlan" {
			ports = udp("calico vxlan", 4789)
		}
		if t := n.CNI.Calico.Typha; t != nil && *t > 0 || t == nil && len(c.Spec.Hosts) >= typhaFrom {
			ports = append(ports, tcp("calico typha", 5473)...)
		}
		return ports
	case "weave":
		return append(tcp("weave", 6783), udp("weave", 6783, 6784)...)
	}
	return nil
}

// chosen are ports of which less is known: the document names the interface that the pod network takes, and
// it may be another than that of the nodes' addresses, which are tried.
func chosen(c *config.Cluster, all []Port) []Port {
	f, calico := c.Spec.Network.CNI.Flannel, c.Spec.Network.CNI.Calico
	if f.Interface+f.InterfaceRegex+f.InterfaceCanReach+calico.Interface == "" {
		return all
	}
	for i := range all {
		all[i].For, all[i].Optional = all[i].For+" at the node's own address", true
	}
	return all
}

// typhaFrom so many nodes on, Calico has a typha where the document says nothing.
const typhaFrom = 50

func tcp(what string, numbers ...uint16) []Port { return ports("tcp", what, numbers) }
func udp(what string, numbers ...uint16) []Port { return ports("udp", what, numbers) }

func ports(network, what string, numbers []uint16) (all []Port) {
	for _, n := range numbers {
		all = append(all, Port{Network: network, Number: n, For: what})
	}
	return all
}

func kubeletPort(c *config.Cluster) uint16 {
	if p, err := strconv.ParseUint(fmt.Sprint(c.Spec.Kubelet["port"]), 10, 16); err == nil && p > 0 {
		return uint16(p)
	}
	return 10250
}

// nodePort is the first of the range: a sample.
func nodePort(c *config.Cluster) uint16 {
	for _, a := range slices.Backward(c.Spec.APIServer.ExtraArgs) {
		first, _, _ := strings.Cut(a.Value, "-")
		if p, err := strconv.ParseUint(first, 10, 16); a.Name == "service-node-port-range" && err == nil && p > 0 {
			return uint16(p)
		}
	}
	return 30000
}

// Overhead is what the pod network adds to a pod's packet, in bytes, on the way between hosts of which
// one has this address.
func Overhead(c *config.Cluster, at netip.Addr) int {
	ip := 20
	if at.Is6() && !at.Is4In6() {
		ip = 40
	}
	n := c.Spec.Network.CNI
	switch {
	case n.Name == "flannel" && n.Flannel.Backend == "vxlan", n.Name == "calico" && cmp.Or(n.Calico.Encapsulation, "vxlan") == "vxlan":
		return ip + 8 + 8 + 14
	case n.Name == "flannel" && n.Flannel.Backend == "wireguard":
		return ip + 8 + 32
	case n.Name == "calico" && n.Calico.Encapsulation == "ipip":
		return ip
	case n.Name == "weave":
		return ip + 8 + 8 + 14 + 34 // what it leaves for encryption: 1376 of 1460
	}
	return 0
}

// Largest is the largest packet that pods will have hosts send, in bytes; 0: what the interface takes.
func Largest(c *config.Cluster, at netip.Addr) int {
	mtu := c.Spec.Network.CNI.MTU
	if c.Spec.Network.CNI.Name == "weave" {
		mtu = cmp.Or(mtu, 1376) // it does not look
	}
	if mtu == 0 {
		return 0
	}
	return mtu + Overhead(c, at)
}

// From so many hosts on, not each is looked at from each other: all control planes from everybody, and
// so many others besides.
const (
	many   = 20
	others = 5
)

// Pairs are the hosts, by their places in the list, that are looked at from each other, the lower place first:
// of more than 20, every host and all control planes, and every host and five others. Which those are, the
// names decide, so that the next run looks at the same.
func Pairs(hosts []config.Node) (pairs [][2]int) {
	chosen := map[[2]int]bool{}
	for a, from := range hosts {
		var rest []drawn
		for b, to := range hosts {
			switch {
			case a == b:
			case len(hosts) <= many || to.Has(config.ControlPlaneRole):
				chosen[[2]int{min(a, b), max(a, b)}] = true
			default:
				rest = append(rest, drawn{b, lot(from.Name, to.Name)})
			}
		}
		slices.SortFunc(rest, func(x, y drawn) int { return cmp.Compare(x.lot, y.lot) })
		for _, b := range rest[:min(len(rest), others)] {
			chosen[[2]int{min(a, b.host), max(a, b.host)}] = true
		}
	}
	for p := range chosen {
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(x, y [2]int) int { return cmp.Or(x[0]-y[0], x[1]-y[1]) })
	return pairs
}

type drawn struct {
	host int
	lot  uint64
}

func lot(a, b string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\n%s", a, b)
	return h.Sum64()
}
