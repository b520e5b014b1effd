package reach

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/reach/probe"
)

// possible are the asks whose hosts both answer.
func (l *look) possible() []Ask {
	return slices.DeleteFunc(slices.Clone(l.asks), func(a Ask) bool { return l.errs[a.From] != nil || l.errs[a.To] != nil })
}

// taken tells whether somebody else listens: who answers there is as good, but nothing of UDP can be told.
func (l *look) taken(host int, p Port) bool {
	return slices.Contains(l.ends[host].listens.Taken, p.probe())
}

// judged are the ports of an ask of which something can be told.
func (l *look) judged(a Ask) []Port {
	return slices.DeleteFunc(slices.Clone(a.Ports), func(p Port) bool {
		refused := l.ends[a.To].listens.Refused[p.Network+"/"+fmt.Sprint(p.Number)] != ""
		return refused || p.Network == "udp" && l.taken(a.To, p)
	})
}

func (l *look) sends() [][]probe.Send {
	all := make([][]probe.Send, len(l.hosts))
	for _, a := range l.possible() {
		for _, p := range l.judged(a) {
			s := probe.Send{To: l.hosts[a.To].Name, Address: l.hosts[a.To].Address.String(), Port: p.probe()}
			if p.Network == "udp" {
				s.Sizes = []int{small}
				if wanted := l.wanted(a); wanted > small {
					s.Sizes = append(s.Sizes, wanted)
				}
			}
			all[a.From] = append(all[a.From], s)
		}
	}
	return all
}

// own is the interface with the address of a host.
func (l *look) own(i int) probe.Interface {
	for _, one := range l.ends[i].listens.Interfaces {
		if slices.Contains(one.Addresses, l.hosts[i].Address.String()) {
			return one
		}
	}
	return probe.Interface{}
}

// wanted is the size of the packet that has to arrive; 0 where that cannot be told.
func (l *look) wanted(a Ask) int {
	mtu := l.own(a.From).MTU
	if a.Packet > 0 {
		return min(mtu, a.Packet)
	}
	return mtu
}

// received are the largest packets that came to a host, by who sent them, and by that and the port.
func (l *look) received(a Ask) (largest int, at map[probe.Port]bool) {
	at = map[probe.Port]bool{}
	for _, r := range l.ends[a.To].received {
		if r.From == l.hosts[a.From].Name {
			at[r.Port] = true
			largest = max(largest, r.Size)
		}
	}
	return largest, at
}

// smaller packets are sent where the largest did not arrive, and a small one did.
func (l *look) smaller() map[int][]probe.Send {
	all := map[int][]probe.Send{}
	for _, a := range l.possible() {
		largest, at := l.received(a)
		wanted := l.wanted(a)
		if largest == 0 || largest >= wanted {
			continue
		}
		for port := range at {
			s := probe.Send{To: l.hosts[a.To].Name, Address: l.hosts[a.To].Address.String(), Port: port}
			for _, size := range steps {
				if size < wanted {
					s.Sizes = append(s.Sizes, size)
				}
			}
			all[a.From] = append(all[a.From], s)
			break
		}
	}
	return all
}

// unheard says at which ports nobody could listen, and nobody does: of those nothing is told.
func unheard(listens probe.Answer) error {
	var all []string
	for _, port := range slices.Sorted(maps.Keys(listens.Refused)) {
		all = append(all, port+": "+listens.Refused[port])
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("it cannot listen at %s", strings.Join(all, ", "))
}

func (l *look) result() Result {
	r := Result{Ways: []Way{}, Packets: []Packet{}}
	for i, err := range l.errs {
		if err == nil && l.ends[i] != nil {
			err = unheard(l.ends[i].listens)
		}
		if err != nil {
			if r.Unseen == nil {
				r.Unseen = map[string]string{}
			}
			r.Unseen[l.hosts[i].Name] = err.Error()
		}
	}
	for _, a := range l.possible() {
		from, to := l.hosts[a.From].Name, l.hosts[a.To].Name
		largest, at := l.received(a)
		for _, p := range l.judged(a) {
			w := Way{From: from, To: to, Port: p, Reached: at[p.probe()]}
			if p.Network == "tcp" {
				w.Reached = true
				for _, f := range l.ends[a.From].failed {
					if f.To == to && f.Port == p.probe() {
						w.Reached, w.Why = false, f.Why
					}
				}
			} else if !w.Reached {
				w.Why = "nothing arrived"
			}
			r.Ways = append(r.Ways, w)
		}
		if wanted := l.wanted(a); largest > 0 && wanted > small {
			f, t := l.own(a.From), l.own(a.To)
			r.Packets = append(r.Packets, Packet{From: from, To: to, Wanted: wanted, Passed: largest, FromInterface: f.Name, FromMTU: f.MTU, ToInterface: t.Name, ToMTU: t.MTU})
		}
	}
	return r
}
