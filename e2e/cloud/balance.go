package cloud

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Network is what Machines are that load balancers can reach, and that can reach them.
type Network interface {
	// Listen takes connections to an address of the machines' network, which may be new on it.
	Listen(a netip.AddrPort) (net.Listener, error)
}

// balance forwards what comes to a listener, on the load balancer's address in each zone, until the listener is gone.
func (q *call) balance(l *resource) {
	network, ok := q.c.options.Machines.(Network)
	if !ok {
		return
	}
	ctx, stop := context.WithCancel(q.c.ctx)
	l.gone = stop
	for _, e := range q.interfacesOf(q.get("load-balancer", l.str("LoadBalancerArn"))) {
		at := netip.AddrPortFrom(netip.MustParseAddr(e.str("privateIpAddress")), uint16(l.doc["Port"].(int)))
		q.c.running.Go(func() {
			s, err := network.Listen(at)
			if err != nil {
				if log := q.c.options.Log; log != nil {
					log("%s: listen: %v", l.id, err)
				}
				return
			}
			context.AfterFunc(ctx, func() { s.Close() })
			for {
				conn, err := s.Accept()
				if err != nil {
					return
				}
				q.c.running.Go(func() { q.c.forward(ctx, l, e, conn.(*net.TCPConn)) })
			}
		})
	}
}

// rebalance is for listeners whose port or addresses are others now.
func (q *call) rebalance(listeners ...*resource) {
	for _, l := range listeners {
		if l.gone != nil {
			l.gone()
			q.balance(l)
		}
	}
}

// forward takes one connection to a target. Whom the groups do not let in hears nothing, and neither does a target
// that is led to itself while it is to see the client's address: so it is with the real one.
func (c *Cloud) forward(ctx context.Context, l, eni *resource, conn *net.TCPConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { conn.Close() })
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	to, serving, dead := c.choose(l, eni, client)
	if dead {
		_, _ = io.Copy(io.Discard, conn) // until the client gives up
		return
	}
	if serving == nil {
		_ = conn.SetLinger(0) // nobody is there: a reset
		return
	}
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: from(eni)}
	back, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		_ = conn.SetLinger(0)
		return
	}
	defer back.Close()
	defer context.AfterFunc(serving, func() {
		_ = conn.SetLinger(0)
		cancel()
	})()
	context.AfterFunc(ctx, func() { back.Close() })
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{conn, back.(*net.TCPConn)}, {back.(*net.TCPConn), conn}} {
		both.Go(func() {
			if _, err := io.Copy(way[0], way[1]); err != nil {
				cancel()
			}
			_ = way[0].CloseWrite()
		})
	}
	both.Wait()
}

// from is where a load balancer's interface sends from: firewalls know it by that.
func from(eni *resource) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(eni.str("privateIpAddress")), 0))
}

// choose finds a target for a client: a healthy one, in the zone unless zones are crossed; if none is healthy
// anywhere, any. Connections end with serving; nil: there is no target. dead is what is dropped without a word.
func (c *Cloud) choose(l, eni *resource, client netip.Addr) (to netip.AddrPort, serving context.Context, dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	q := c.on(l)
	lb, tg := q.find("load-balancer", l.str("LoadBalancerArn")), q.find("target-group", l.str("DefaultActions.TargetGroupArn"))
	if lb == nil || tg == nil || !lb.is("State.Code", "active") {
		return to, nil, true
	}
	groups := lb.doc["SecurityGroups"].([]string)
	if len(groups) > 0 && !q.lets(groups, client, l.doc["Port"].(int)) {
		return to, nil, true
	}
	all := c.targets[tg.id]
	healthy := slices.ContainsFunc(all, func(x *target) bool { return x.state == "healthy" })
	zone := eni.str("availabilityZone")
	var candidates []*target
	for _, x := range all {
		if x.state == "draining" || healthy && x.state != "healthy" {
			continue
		}
		if _, z := q.at(x); z == zone || lb.attrs["load_balancing.cross_zone.enabled"] == "true" {
			candidates = append(candidates, x)
		}
	}
	if len(candidates) == 0 {
		return to, nil, false
	}
	t := candidates[rand.IntN(len(candidates))]
	a, _ := q.at(t)
	preserved := tg.attrs["preserve_client_ip.enabled"] == "true"
	if preserved && a == client || !q.reaches(lb, eni, tg, a, t.port, client) {
		return to, nil, true
	}
	return netip.AddrPortFrom(a, uint16(t.port)), t.serving, false
}

// at is the address of a target and its zone.
func (q *call) at(x *target) (netip.Addr, string) {
	if i := q.find("instance", x.id); i != nil {
		a, _ := netip.ParseAddr(i.str("privateIpAddress")) // gone with the instance
		return a, i.str("placement.availabilityZone")
	}
	a, _ := netip.ParseAddr(x.id)
	for e := range q.of("network-interface") {
		if e.is("privateIpAddress", x.id) {
			return a, e.str("availabilityZone")
		}
	}
	return a, "all"
}

// lets says whether one of the groups lets an address in on a TCP port.
func (q *call) lets(groups []string, from netip.Addr, port int) bool {
	var of []string // the groups of who comes
	for e := range q.of("network-interface") {
		if e.is("privateIpAddress", from.String()) {
			of = append(of, values(e.doc, "groupSet.groupId")...)
		}
	}
	for r := range q.of("security-group-rule") {
		rl := ruleOf(r)
		if r.doc["isEgress"] == true || !slices.Contains(groups, r.str("groupId")) || rl.Protocol != "-1" && (rl.Protocol != "tcp" || port < rl.From || port > rl.To) {
			continue
		}
		if p, err := netip.ParsePrefix(rl.CIDR); err == nil && p.Contains(from) || rl.Group != "" && slices.Contains(of, rl.Group) {
			return true
		}
	}
	return false
}

// reaches says whether what a load balancer sends from its interface comes through the groups of the target.
func (q *call) reaches(lb, eni, tg *resource, a netip.Addr, port int, client netip.Addr) bool {
	for e := range q.of("network-interface") {
		if !e.is("privateIpAddress", a.String()) {
			continue
		}
		groups := values(e.doc, "groupSet.groupId")
		if q.lets(groups, netip.MustParseAddr(eni.str("privateIpAddress")), port) {
			return true
		}
		return tg.attrs["preserve_client_ip.enabled"] == "true" && client.IsValid() && q.lets(groups, client, port)
	}
	return true // an address that the cloud knows nothing of
}

// healthyZones are a load balancer's addresses in zones that have somebody to serve; if no zone has, all.
func (c *Cloud) healthyZones(lb *resource) (all []netip.Addr) {
	q := c.on(lb)
	var healthy []netip.Addr
	for _, e := range q.interfacesOf(lb) {
		a := netip.MustParseAddr(e.str("privateIpAddress"))
		all = append(all, a)
		for _, l := range q.with("listener", "LoadBalancerArn", lb.id) {
			if slices.ContainsFunc(c.targets[l.str("DefaultActions.TargetGroupArn")], func(x *target) bool {
				_, zone := q.at(x)
				return x.state == "healthy" && (zone == e.str("availabilityZone") || lb.attrs["load_balancing.cross_zone.enabled"] == "true")
			}) {
				healthy = append(healthy, a)
				break
			}
		}
	}
	if len(healthy) > 0 {
		return slices.Compact(healthy)
	}
	return all
}
