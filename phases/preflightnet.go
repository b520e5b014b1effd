package phases

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/reach"
)

// Reach is the part of preflight that looks whether the hosts reach each other: for --skip-phases.
var Reach = Phase{Name: "preflight/reach", Short: "look whether the hosts reach each other"}

// starter is a host on which a program can be talked with: a [host.Remote].
type starter interface {
	Start(ctx context.Context, program string) (*host.Pipe, error)
}

// reachable looks which packets get from host to host. What nodes need of each other, a cluster that
// runs shows better: of two nodes that are its own, nothing is looked at, unless all is wanted.
func (u *Up) reachable(ctx context.Context, all bool) (found reach.Result, findings []Finding) {
	hosts, asks, machines := u.asks(all)
	if len(asks) == 0 {
		return found, nil
	}
	found = reach.Look(ctx, hosts, asks)
	if ctx.Err() != nil {
		return found, nil
	}
	firewalls := map[string][]reach.Firewall{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range found.Suspects() {
		m := machines[name]
		wg.Go(func() {
			on := reach.Firewalls(ctx, m.Host, m.Node.IP())
			mu.Lock()
			defer mu.Unlock()
			firewalls[name] = on
		})
	}
	wg.Wait()
	for _, p := range found.Judge(firewalls, reach.Overhead(u.Cluster, hosts[0].Address)) {
		findings = append(findings, Finding{Name: p.Name, Message: p.Message, Warning: p.Warning})
	}
	unseen := map[string][]string{} // by why
	for _, name := range slices.Sorted(maps.Keys(found.Unseen)) {
		unseen[found.Unseen[name]] = append(unseen[found.Unseen[name]], name)
	}
	for _, why := range slices.Sorted(maps.Keys(unseen)) {
		findings = append(findings, Finding{Name: "Reach", Message: fmt.Sprintf("which packets get to and from %s was not looked at: %s", reach.Names(unseen[why]), why), Warning: true})
	}
	return found, findings
}

// asks are the hosts, and what is to be found out of them.
func (u *Up) asks(all bool) (hosts []reach.Host, asks []reach.Ask, machines map[string]*Machine) {
	machines = map[string]*Machine{}
	var nodes []config.Node
	for _, m := range u.answering() {
		at, ok := m.Host.(starter)
		if !ok || !m.Node.IP().IsValid() {
			continue
		}
		nodes = append(nodes, m.Node)
		hosts = append(hosts, reach.Host{Name: m.Node.Name, Address: m.Node.IP(), Machine: m.Facts.Machine, Start: at.Start})
		machines[m.Node.Name] = m
	}
	news := func(i int) bool { m := machines[nodes[i].Name]; return u.chosen(m) && m.node == "" }
	for _, p := range reach.Pairs(nodes) {
		if !all && !news(p[0]) && !news(p[1]) {
			continue
		}
		for _, way := range [][2]int{p, {p[1], p[0]}} {
			from, to := nodes[way[0]], nodes[way[1]]
			asks = append(asks, reach.Ask{From: way[0], To: way[1], Ports: reach.Ports(u.Cluster, from, to), Packet: reach.Largest(u.Cluster, to.IP())})
		}
	}
	return hosts, asks, machines
}

// checkMTU refuses packets of pods that do not fit into the host's own link with what the network adds to them. Where
// the document chooses another interface, that of the host's address says nothing.
func checkMTU(c *config.Cluster, node config.Node, f config.Facts) []Finding {
	cni := c.Spec.Network.CNI
	if cni.Flannel.Interface+cni.Flannel.InterfaceRegex+cni.Flannel.InterfaceCanReach != "" || !slices.Contains([]string{"", "first-found", "kubernetes-internal-ip"}, cni.Calico.Interface) {
		return nil
	}
	for _, ip := range slices.Backward(node.IPs()) { // the second may be the IPv6 one, which takes more
		link, largest, adds := f.MTUs[ip], reach.Largest(c, ip), reach.Overhead(c, ip)
		if link == 0 || largest <= link {
			continue
		}
		mtu := fmt.Sprintf("spec.network.cni.mtu is %d", largest-adds)
		if cni.MTU == 0 {
			mtu = fmt.Sprintf("%s has pods send packets of %d bytes by default (spec.network.cni.mtu)", cni.Name, largest-adds)
		}
		return []Finding{{Name: "MTU", Message: fmt.Sprintf("%s, and with the %d bytes that %s adds that is %d: the link of the host's address takes %d; write %d, the largest that fits, or give the link an MTU of %d, and those of the other hosts",
			mtu, adds, cni.Name, largest, link, link-adds, largest)}}
	}
	return nil
}

// overlaps finds pod and service ranges that the host already uses for something else:
// packets for one of the two would never arrive.
func overlaps(c *config.Cluster, f config.Facts) (out []Finding) {
	for _, field := range []struct {
		name, choose string
		ranges       []netip.Prefix
	}{
		{"pod", "--pod-network-cidr, or spec.network.podCIDR in the document", c.Spec.Network.PodRanges()},
		{"service", "--service-cidr, or spec.network.serviceCIDR in the document", c.Spec.Network.ServiceRanges()},
	} {
		for _, cidr := range field.ranges {
			say := func(what string) {
				out = append(out, Finding{Name: "NetworkOverlap", Message: fmt.Sprintf("the %s range %s overlaps the host's %s: choose another with %s", field.name, cidr, what, field.choose)})
			}
			covered := false
			for _, a := range f.Addresses {
				if cidr.Overlaps(a.Masked()) {
					say("address " + a.String())
					covered = true
				}
			}
			if covered { // so are its routes, and who is reached by them
				continue
			}
			for _, r := range f.Routes {
				if cidr.Overlaps(r) {
					say("route to " + r.String())
				}
			}
			for _, g := range f.Gateways {
				if cidr.Contains(g) {
					say("gateway " + g.String())
				}
			}
			for _, r := range f.Resolvers {
				if cidr.Contains(r) {
					say("name server " + r.String() + ", of /etc/resolv.conf")
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return out
}
