package config

import (
	"net/netip"
	"slices"
	"strings"
)

// PodRanges of a valid document, the cluster's own family first.
func (n Network) PodRanges() []netip.Prefix { return ranges(n.PodCIDR) }

// ServiceRanges of a valid document, in the order of the pods'.
func (n Network) ServiceRanges() []netip.Prefix { return ranges(n.ServiceCIDR) }

// IPv6 tells whether the cluster's own family is IPv6: that of its first service range, of the addresses
// that API servers advertise, and of what its nodes tell each other.
func (n Network) IPv6() bool {
	own := n.own()
	return len(own) > 0 && own[0].Addr().Is6()
}

// DualStack tells whether services have addresses of both families.
func (n Network) DualStack() bool { return len(n.own()) > 1 }

// own are the service ranges; before they are defaulted, the pods', whose families they will have.
func (n Network) own() []netip.Prefix {
	if r := n.ServiceRanges(); len(r) > 0 {
		return r
	}
	return n.PodRanges()
}

// UsesIPv6 tells whether anything in the cluster has an IPv6 address.
func (n Network) UsesIPv6() bool {
	return slices.ContainsFunc(append(n.PodRanges(), n.ServiceRanges()...), func(r netip.Prefix) bool { return r.Addr().Is6() })
}

func ranges(s string) (all []netip.Prefix) {
	for part := range strings.SplitSeq(s, ",") {
		if cidr, err := netip.ParsePrefix(strings.TrimSpace(part)); err == nil {
			all = append(all, cidr.Masked())
		}
	}
	return all
}

// The ranges of a cluster that names none: kubeadm's and flannel's own, and their likes of IPv6.
var (
	defaultPods     = map[bool]string{false: "10.244.0.0/16", true: "fd00:10:244::/56"}
	defaultServices = map[bool]string{false: "10.96.0.0/12", true: "fd00:10:96::/112"}
)

// defaults fills the ranges that are left out, in the families of those that are not, and takes
// spaces out of the others: they go into flags.
func (n *Network) defaults(pods bool) {
	n.PodCIDR, n.ServiceCIDR = strings.Join(strings.Fields(n.PodCIDR), ""), strings.Join(strings.Fields(n.ServiceCIDR), "")
	if n.ServiceCIDR == "" {
		n.ServiceCIDR = alike(n.PodRanges(), defaultServices)
	}
	if n.PodCIDR == "" && pods {
		n.PodCIDR = alike(n.ServiceRanges(), defaultPods)
	}
}

// alike names a range of each family that these are of; of IPv4 for none.
func alike(others []netip.Prefix, of map[bool]string) string {
	var all []string
	for _, r := range others {
		if one := of[r.Addr().Is6()]; !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return of[false]
	}
	return strings.Join(all, ",")
}
