package reach

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Problem is something in the way.
type Problem struct {
	Name    string // Reach: ports; MTU: packets too large
	Message string
	Warning bool
}

// Suspects are the hosts, by name, whose firewalls may be in the way.
func (r Result) Suspects() (all []string) {
	for _, w := range r.Ways {
		if !w.Reached {
			all = append(all, w.From, w.To)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Judge says what is in the way, and how to mend it. firewalls are those of the suspects, by host; overhead
// is what the pod network adds to a packet, in bytes.
func (r Result) Judge(firewalls map[string][]Firewall, overhead int) (all []Problem) {
	return append(r.ports(firewalls), r.sizes(overhead)...)
}

// ports has a problem for each host and set of its ports that some do not reach.
func (r Result) ports(firewalls map[string][]Firewall) (all []Problem) {
	type lack struct {
		to       string
		optional bool
	}
	type gap struct {
		ports []Port
		whys  []string
	}
	missing := map[lack]map[string]*gap{} // by who sends
	var order []lack
	for _, w := range r.Ways {
		if w.Reached {
			continue
		}
		l := lack{w.To, w.Port.Optional}
		if missing[l] == nil {
			missing[l] = map[string]*gap{}
			order = append(order, l)
		}
		g := missing[l][w.From]
		if g == nil {
			g = &gap{}
			missing[l][w.From] = g
		}
		g.ports = append(g.ports, w.Port)
		if !slices.Contains(g.whys, w.Why) {
			g.whys = append(g.whys, w.Why)
		}
	}
	for _, l := range order {
		same := map[string][]string{} // who does not reach the same ports, by those
		for _, from := range slices.Sorted(maps.Keys(missing[l])) {
			key := list(missing[l][from].ports) + "\n" + strings.Join(missing[l][from].whys, ", ")
			same[key] = append(same[key], from)
		}
		for _, key := range slices.Sorted(maps.Keys(same)) {
			froms := same[key]
			g := missing[l][froms[0]]
			what := fmt.Sprintf("%s is not reached from %s at %s (%s)", l.to, Names(froms), list(g.ports), strings.Join(g.whys, ", "))
			if r.back(l.to, froms, g.ports) {
				what += ", though the other way they get through"
			}
			all = append(all, Problem{Name: "Reach", Message: what + ": " + opening(l.to, froms, g.ports, firewalls), Warning: l.optional})
		}
	}
	return all
}

// back tells whether the same ports are reached in the other direction.
func (r Result) back(from string, tos []string, ports []Port) bool {
	found := 0
	for _, w := range r.Ways {
		if w.From == from && slices.Contains(tos, w.To) && slices.Contains(ports, w.Port) {
			if !w.Reached {
				return false
			}
			found++
		}
	}
	return found == len(tos)*len(ports)
}

// opening says who may drop it, and what lets it pass.
func opening(to string, froms []string, ports []Port, firewalls map[string][]Firewall) string {
	var steps []string
	add := func(on string, out bool) {
		for _, f := range firewalls[on] {
			if f.Out == out {
				steps = append(steps, fmt.Sprintf("on %s there is %s: `%s`", on, f, f.Open(ports)))
			}
		}
	}
	add(to, false)
	for _, from := range froms {
		add(from, true)
	}
	if steps == nil {
		return fmt.Sprintf("no firewall was found on them, so look at what is between them (security groups, a router's rules), and let %s pass", list(ports))
	}
	return strings.Join(steps, "; ")
}

func list(ports []Port) string {
	var all []string
	for i, p := range ports {
		s := p.String()
		if i+1 == len(ports) || ports[i+1].For != p.For {
			s += " " + p.For
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// Names are those of hosts, as a person lists them.
func Names(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	if len(names) > 6 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:5], ", "), len(names)-5)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// sizes has a problem for each host and size of what arrives at most.
func (r Result) sizes(overhead int) (all []Problem) {
	type lack struct {
		to             string
		wanted, passed int
	}
	same := map[lack][]Packet{}
	var order []lack
	least := 0 // of all that pass
	for _, p := range r.Packets {
		if p.Passed >= p.Wanted {
			continue
		}
		if l := (lack{p.To, p.Wanted, p.Passed}); same[l] == nil {
			order = append(order, l)
		}
		l := lack{p.To, p.Wanted, p.Passed}
		same[l] = append(same[l], p)
		if least == 0 || p.Passed < least {
			least = p.Passed
		}
	}
	for _, l := range order {
		var froms []string
		for _, p := range same[l] {
			froms = append(froms, p.From)
		}
		passed := fmt.Sprintf("those of %d do", l.passed)
		if l.passed <= small {
			passed = "only small ones do"
		}
		message := fmt.Sprintf("packets of %d bytes from %s do not arrive at %s, and %s: ", l.wanted, Names(froms), l.to, passed)
		p := same[l][0]
		if p.ToMTU > 0 && p.ToMTU < l.wanted {
			message += fmt.Sprintf("%s of %s has an MTU of %d, and %s of %s one of %d: give them the same (`ip link set %s mtu %d` on %s)", p.ToInterface, p.To, p.ToMTU, p.FromInterface, p.From, p.FromMTU, p.ToInterface, l.wanted, p.To)
		} else {
			message += "something between them takes no larger ones, or drops them (a tunnel, a switch, a rule): mend that"
		}
		if mtu := least - overhead; mtu >= 576 {
			message += fmt.Sprintf(", or have pods send smaller ones, with spec.network.cni.mtu: %d in the document", mtu)
		}
		all = append(all, Problem{Name: "MTU", Message: message})
	}
	return all
}
