package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Paths looks at the ways from here to peers that serve.
type Paths struct {
	To     []Peer
	Rate   bool          // measure a transfer from the first of them
	Within time.Duration // for all to answer
}

// Peer is a pod that serves.
type Peer struct{ Name, Address string }

// Ways is what was seen.
type Ways struct {
	Addresses []string // of this network namespace
	Paths     []Path
}

// Path to a peer.
type Path struct {
	Peer
	Source string // of the sender, as the peer saw it
	Error  string `json:",omitempty"` // why nobody did
	Device string // that the way begins with
	Bytes  int    // of a packet as large as the device takes
	State  State
	Ping   float64 // ms from a small datagram to its answer; 0: none
	Rate   float64 // MB/s; 0: not measured
}

// State of packets as large as the device takes, which may not be fragmented.
type State string

// What becomes of them.
const (
	Whole      State = "whole"
	Fragmented State = "fragmented" // on this host, after they were wrapped in another packet
	Lost       State = "lost"
	Silent     State = "silent" // no datagram was answered, not even a small one
)

// atATime is to how many peers datagrams are on their way at once. One after the other, a cluster of many nodes whose
// MTU is wrong would take minutes to say so.
const atATime = 64

func paths(ctx context.Context, p Paths) (Ways, error) {
	w := Ways{Paths: make([]Path, len(p.To))}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return w, err
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			w.Addresses = append(w.Addresses, n.IP.String())
		}
	}
	routes, err := routes()
	if err != nil {
		return w, err
	}
	var all sync.WaitGroup
	for i, peer := range p.To {
		all.Go(func() { w.Paths[i] = meet(ctx, peer, p.Within) })
	}
	all.Wait()
	before := fragments()
	places := make(chan struct{}, atATime)
	for i := range w.Paths {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if x := &w.Paths[i]; x.Error == "" {
				x.Error = x.full(ctx, routes)
			}
		})
	}
	all.Wait()
	cut := fragments() != before // whose, is found out one after the other: the count is of all together
	rate := p.Rate
	for i := range w.Paths {
		x := &w.Paths[i]
		if cut && x.State == Whole && x.fragmented(ctx) {
			x.State = Fragmented
		}
		if rate && x.Error == "" && x.State != Lost {
			x.Rate, rate = x.transfer(ctx), false
		}
	}
	return w, nil
}

// meet asks a peer who it is, and whom it sees, until it answers: its server may be a moment late.
func meet(ctx context.Context, to Peer, within time.Duration) Path {
	got, _ := get(ctx, Get{URLs: []string{to.url("/who")}, By: []string{to.Name}, Within: within})
	return Path{Peer: to, Source: got[0].Who.Source, Error: got[0].Error}
}

func (p Peer) url(path string) string {
	return "http://" + net.JoinHostPort(p.Address, strconv.Itoa(Port)) + path
}

// full sends a small datagram, and then two as large as the device takes. Of two the first alone may arrive: the
// kernel learns from it that the way is narrower.
func (x *Path) full(ctx context.Context, routes []Route) string {
	to, err := netip.ParseAddr(x.Address)
	if err != nil {
		return err.Error()
	}
	way, ok := routeTo(routes, to)
	if !ok {
		return "no route"
	}
	x.Device, x.Bytes = way.Device, way.MTU
	conn, err := wholeOnly(ctx, netip.AddrPortFrom(to, Port))
	if err != nil {
		return complaint(err)
	}
	defer conn.Close()
	began := time.Now()
	if !answered(conn, 40, 1, 3) {
		x.State = Silent
		return ""
	}
	x.Ping = float64(time.Since(began).Microseconds()) / 1000
	x.State = Lost
	if answered(conn, x.payload(to), 2, 4) {
		x.State = Whole
	}
	return ""
}

// payload is what a datagram holds of a packet as large as the device takes.
func (x *Path) payload(to netip.Addr) int {
	if to.Is6() {
		return x.Bytes - 48 // IPv6 and UDP
	}
	return x.Bytes - 28
}

// fragmented tells whether packets as large as the device takes are cut into pieces. On a node others' packets may be
// as well, and are counted with ours: so it is said only of what is cut each time.
func (x *Path) fragmented(ctx context.Context) bool {
	to, err := netip.ParseAddr(x.Address)
	if err != nil {
		return false
	}
	conn, err := wholeOnly(ctx, netip.AddrPortFrom(to, Port))
	if err != nil {
		return false
	}
	defer conn.Close()
	for range 5 {
		before := fragments()
		answered(conn, x.payload(to), 1, 1)
		if fragments() == before {
			return false
		}
	}
	return true
}

// answered sends datagrams until so many are answered, or so many were sent.
func answered(conn net.Conn, size, want, most int) bool {
	out, in := make([]byte, size), make([]byte, 64)
	for try := range most {
		out[7] = byte(try + 1)
		if _, err := conn.Write(out); err != nil {
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return false
		}
		for {
			n, err := conn.Read(in)
			if err != nil {
				break
			}
			// An answer to a small one is not taken for one to a large one.
			if n == 12 && in[7] == out[7] && binary.BigEndian.Uint32(in[8:]) == uint32(size) {
				want--
				break
			}
		}
		if want == 0 {
			return true
		}
	}
	return false
}

// transfer measures MB/s, of 10^6 bytes.
func (x *Path) transfer(ctx context.Context) float64 {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.url("/zeros"), nil)
	if err != nil {
		return 0
	}
	began := time.Now()
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	n, _ := io.Copy(io.Discard, answer.Body) // what came until the limit counts
	return float64(n) / 1e6 / time.Since(began).Seconds()
}

// Route of this network namespace's main table.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // zero: the network is at hand
	Device string
	MTU    int // of the route, else of the device
}

var errLinux = errors.New("probes run on Linux")

// routeTo is the most specific route to an address.
func routeTo(routes []Route, to netip.Addr) (best Route, ok bool) {
	for _, r := range routes {
		if r.To.Contains(to) && (!ok || r.To.Bits() > best.To.Bits()) {
			best, ok = r, true
		}
	}
	return best, ok
}

func (r Route) String() string { return fmt.Sprintf("%s dev %s", r.To, r.Device) }
