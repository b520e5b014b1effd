package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// LookUp asks the pod's DNS server, all questions at once.
type LookUp struct {
	Queries []Query
	Within  time.Duration // for all answers to be as wanted
}

// Query asks for records of a type. {domain} in Name and Want is the cluster's.
type Query struct {
	Kind string   // for people
	Type string   // A, AAAA, CNAME, PTR
	Name string   // for PTR: an address
	Want []string // sorted
}

// LookedUp are the answers, in the order of the questions.
type LookedUp struct {
	Server, Domain string // of the pod's /etc/resolv.conf
	Answers        []Answer
}

// Answer to a query.
type Answer struct {
	Query  Query // with the domain in it
	Values []string
	Error  string `json:",omitempty"`
}

// Good tells whether an answer is as wanted.
func (a Answer) Good() bool { return slices.Equal(a.Values, a.Query.Want) }

func lookUp(ctx context.Context, l LookUp) (LookedUp, error) {
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return LookedUp{}, err
	}
	r := parseResolver(string(conf))
	if r.Server == "" || r.Domain == "" {
		return r, fmt.Errorf("/etc/resolv.conf names no server or no cluster domain, which are the kubelet's clusterDNS and clusterDomain: %q", conf)
	}
	for _, q := range l.Queries {
		q.Name = strings.ReplaceAll(q.Name, "{domain}", r.Domain)
		q.Want = slices.Clone(q.Want)
		for i := range q.Want {
			q.Want[i] = strings.ReplaceAll(q.Want[i], "{domain}", r.Domain)
		}
		r.Answers = append(r.Answers, Answer{Query: q})
	}
	until(ctx, l.Within, func(ctx context.Context) bool {
		var wg sync.WaitGroup
		for i := range r.Answers {
			a := &r.Answers[i]
			if a.Good() {
				continue
			}
			wg.Go(func() {
				var err error
				if a.Values, err = ask(ctx, net.JoinHostPort(r.Server, "53"), a.Query); err != nil {
					a.Error = err.Error()
				} else {
					a.Error = ""
				}
			})
		}
		wg.Wait()
		return !slices.ContainsFunc(r.Answers, func(a Answer) bool { return !a.Good() })
	})
	return r, nil
}

func parseResolver(conf string) (r LookedUp) {
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "nameserver" && r.Server == "":
			r.Server = f[1]
		case len(f) > 1 && f[0] == "search":
			for _, s := range f[1:] {
				if domain, ok := strings.CutPrefix(s, "svc."); ok {
					r.Domain = domain
				}
			}
		}
	}
	return r
}

var recordTypes = map[string]dnsmessage.Type{"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME, "PTR": dnsmessage.TypePTR}

// ask sends one datagram, a second where the first is not answered, and returns the sorted values.
func ask(ctx context.Context, server string, q Query) ([]string, error) {
	name := q.Name
	if q.Type == "PTR" {
		a, err := netip.ParseAddr(name)
		if err != nil {
			return nil, err
		}
		name = reverse(a)
	}
	qname, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("name %s: %w", name, err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: qname, Type: recordTypes[q.Type], Class: dnsmessage.ClassINET}}}
	packed, err := m.Pack()
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b := make([]byte, 4<<10)
	for range 2 {
		if _, err := conn.Write(packed); err != nil {
			return nil, errors.New(complaint(err))
		}
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return nil, err
		}
		var n int
		if n, err = conn.Read(b); err == nil {
			return parseAnswer(b[:n], m.ID)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.New(complaint(err))
		}
	}
	return nil, fmt.Errorf("%s did not answer within 4s", server)
}

func parseAnswer(b []byte, id uint16) ([]string, error) {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("not a DNS answer: %w", err)
	}
	if m.ID != id || len(m.Questions) != 1 {
		return nil, errors.New("an answer to another question")
	}
	if m.RCode != dnsmessage.RCodeSuccess {
		words := map[dnsmessage.RCode]string{dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeRefused: "REFUSED"}
		return nil, errors.New("the server says " + cmp.Or(words[m.RCode], m.RCode.String()))
	}
	var values []string
	for _, r := range m.Answers {
		if r.Header.Type != m.Questions[0].Type { // an alias on the way
			continue
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			values = append(values, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			values = append(values, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.CNAMEResource:
			values = append(values, strings.TrimSuffix(body.CNAME.String(), "."))
		case *dnsmessage.PTRResource:
			values = append(values, strings.TrimSuffix(body.PTR.String(), "."))
		}
	}
	slices.Sort(values)
	return values, nil
}

// reverse is the name under which the name of an address is kept.
func reverse(a netip.Addr) string {
	a = a.Unmap()
	var parts []string
	if a.Is4() {
		for _, b := range a.AsSlice() {
			parts = append(parts, fmt.Sprint(b))
		}
		slices.Reverse(parts)
		return strings.Join(parts, ".") + ".in-addr.arpa"
	}
	for _, b := range a.AsSlice() {
		parts = append(parts, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
	}
	slices.Reverse(parts)
	return strings.Join(parts, ".") + ".ip6.arpa"
}
