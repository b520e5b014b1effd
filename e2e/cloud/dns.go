package cloud

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// The TTL of answers, in seconds: a load balancer's name follows its zones within a minute.
const ttl = 5

// resolve is the addresses of a name in a cloud's networks: an instance's, by its private or its public name, or a load
// balancer's. Inside of a VPC a public name is the private address.
func (c *Cloud) resolve(name string) (addresses []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for _, r := range c.all {
		switch {
		case r.name == "instance" && (r.is("privateDnsName", name) || r.is("dnsName", name)):
			return []netip.Addr{netip.MustParseAddr(r.str("privateIpAddress"))}
		case r.name == "load-balancer" && strings.EqualFold(r.str("DNSName"), name):
			return c.healthyZones(r)
		}
	}
	return nil
}

// nameOf is the private name of an address.
func (c *Cloud) nameOf(a netip.Addr) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.instanceAt(a); i != nil {
		return i.str("privateDnsName")
	}
	return ""
}

// resolver answers as the one of a VPC does: what is in the cloud, and of the rest what its forwarders say.
type resolver struct {
	c        *Cloud
	upstream []string // address and port
}

// ours are the domains in which nobody else has names.
var ours = []string{"compute.internal.", "ec2.internal.", "amazonaws.com."}

func (r resolver) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	m := new(dns.Msg).SetReply(query)
	m.RecursionAvailable = true
	if len(query.Question) == 1 && !r.known(m, query.Question[0]) {
		m = r.forward(query)
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

// known answers from the cloud, if the name is one of its own.
func (r resolver) known(m *dns.Msg, q dns.Question) bool {
	name := strings.ToLower(q.Name)
	if q.Qtype == dns.TypePTR {
		a, ok := reverse(name)
		found := r.c.nameOf(a)
		if ok && found != "" {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: dns.Fqdn(found)})
		}
		return ok && found != ""
	}
	addresses := r.c.resolve(strings.TrimSuffix(name, "."))
	for _, a := range addresses {
		if q.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: a.AsSlice()})
		}
	}
	if len(addresses) > 0 {
		return true
	}
	m.Rcode = dns.RcodeNameError
	return slices.ContainsFunc(ours, func(domain string) bool { return strings.HasSuffix(name, "."+domain) })
}

// reverse is the address of 4.0.0.10.in-addr.arpa.
func reverse(name string) (netip.Addr, bool) {
	labels := strings.Split(strings.TrimSuffix(name, ".in-addr.arpa."), ".")
	slices.Reverse(labels)
	a, err := netip.ParseAddr(strings.Join(labels, "."))
	return a, err == nil
}

func (r resolver) forward(query *dns.Msg) *dns.Msg {
	for _, u := range r.upstream {
		if answer, err := dns.Exchange(query, u); err == nil {
			return answer
		}
	}
	m := new(dns.Msg).SetReply(query)
	m.Rcode = dns.RcodeServerFailure
	return m
}
