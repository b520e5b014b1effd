package cloud

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
)

// Firewall is what Machines are that let in what their security groups say, and nothing else.
type Firewall interface {
	// Admit has a machine let in these, instead of those before.
	Admit(ctx context.Context, id string, all []Admission) error
}

// Admission is who may send what to a machine.
type Admission struct {
	From     netip.Prefix
	Protocol string // tcp, udp, icmp, a number, or -1: all
	Ports    [2]int // the first and the last one, of tcp and udp
}

// admissions of an instance are the rules of its groups, with addresses in place of groups.
func (q *call) admissions(r *resource) (all []Admission) {
	var groups []string
	for _, e := range q.with("network-interface", "attachment.instanceId", r.id) {
		groups = append(groups, values(e.doc, "groupSet.groupId")...)
	}
	for x := range q.of("security-group-rule") {
		if x.doc["isEgress"] == true || !slices.Contains(groups, x.str("groupId")) {
			continue
		}
		rl := ruleOf(x)
		from := []netip.Prefix{}
		if p, err := netip.ParsePrefix(rl.CIDR); err == nil {
			from = append(from, p)
		}
		for _, e := range q.with("network-interface", "groupSet.groupId", rl.Group) {
			a := netip.MustParseAddr(e.str("privateIpAddress"))
			from = append(from, netip.PrefixFrom(a, a.BitLen()))
		}
		for _, p := range from {
			all = append(all, Admission{p, rl.Protocol, [2]int{rl.From, rl.To}})
		}
	}
	slices.SortFunc(all, func(a, b Admission) int {
		return cmp.Or(a.From.Addr().Compare(b.From.Addr()), cmp.Compare(a.From.Bits(), b.From.Bits()), strings.Compare(a.Protocol, b.Protocol), slices.Compare(a.Ports[:], b.Ports[:]))
	})
	return slices.Compact(all)
}

// guard keeps the machines' firewalls as the groups are, until the cloud ends. Groups change with many calls, so it
// looks after each one, and touches what is another.
func (c *Cloud) guard(f Firewall) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.changed:
		}
		c.mu.Lock()
		var running []*resource
		for _, r := range c.all {
			if r.name == "instance" && r.is("instanceState.name", "running") {
				running = append(running, r)
			}
		}
		c.mu.Unlock()
		for _, r := range running {
			c.admit(f, r)
		}
	}
}

// admit tells a machine what its instance's groups let in, unless it knows.
func (c *Cloud) admit(f Firewall, r *resource) {
	c.mu.Lock()
	all := c.on(r).admissions(r)
	known, told := c.admitted[r.id]
	log := c.options.Log
	c.mu.Unlock()
	if told && slices.Equal(known, all) {
		return
	}
	if err := f.Admit(c.ctx, r.id, all); err != nil {
		if log != nil && c.ctx.Err() == nil {
			log("instance %s: firewall: %v", r.id, err)
		}
		return
	}
	c.mu.Lock()
	c.admitted[r.id] = all
	c.mu.Unlock()
}
