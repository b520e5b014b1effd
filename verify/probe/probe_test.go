package probe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestGetAsksUntilTheRightOneAnswers(t *testing.T) {
	s := &states{no: map[string]bool{}}
	server := httptest.NewServer(s.handler("pod-1"))
	defer server.Close()
	for name, c := range map[string]struct {
		get  Get
		want string // in the error
	}{
		"whoever":           {Get{URLs: []string{server.URL + "/who"}}, ""},
		"the right one":     {Get{URLs: []string{server.URL + "/who"}, By: []string{"pod-0", "pod-1"}, Times: 3}, ""},
		"another":           {Get{URLs: []string{server.URL + "/who"}, By: []string{"pod-0"}}, "something else answered"},
		"nobody":            {Get{URLs: []string{"http://127.0.0.1:1/who"}}, "connection refused"},
		"not ready":         {Get{URLs: []string{server.URL + "/is/late"}}, "503"},
		"nobody, as wanted": {Get{URLs: []string{"http://127.0.0.1:1/who"}, Silent: true}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.set("late=no"); err != nil {
				t.Fatal(err)
			}
			got, err := get(t.Context(), c.get)
			if err != nil {
				t.Fatal(err)
			}
			if (c.want == "") != (got[0].Error == "") || !strings.Contains(got[0].Error, c.want) {
				t.Errorf("got %q, want %q", got[0].Error, c.want)
			}
			if c.get.Times > 0 && got[0].By["pod-1"] != c.get.Times {
				t.Errorf("answers by %v", got[0].By)
			}
		})
	}
}

func TestStatesAreSet(t *testing.T) {
	s := &states{no: map[string]bool{}}
	for text, good := range map[string]bool{"ready=no,started=yes": true, "ready": false, "ready=": false} {
		if err := s.set(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
	if !s.no["ready"] || s.no["started"] {
		t.Errorf("got %v", s.no)
	}
}

// What runs in the pod may be told before it listens.
func TestSetWaitsForServe(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	told, served := make(chan error, 1), make(chan error, 1)
	go func() { told <- set(ctx, Streams{}, "ready=no") }()
	time.Sleep(300 * time.Millisecond) // so that set is refused first, mostly
	go func() { served <- serve(ctx, Streams{Out: io.Discard}, "") }()
	if err := <-told; err != nil {
		t.Error(err)
	}
	if answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/is/ready", Port)); err != nil || answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("it is said to be ready: %v, %v", answer, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The way to this very host, over which everything arrives whole.
func TestPathsOnLoopback(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	served := make(chan error, 1)
	t.Setenv("POD", "here")
	go func() { served <- serve(ctx, Streams{Out: &out}, "") }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	all, err := routes()
	if err != nil {
		t.Skip(err)
	}
	if _, ok := routeTo(all, netip.MustParseAddr("192.0.2.1")); !ok {
		t.Skip("this machine has no default route, so no way whose device is known")
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(addresses, func(a net.Addr) bool {
		n := a.(*net.IPNet)
		return n.IP.To4() != nil && !n.IP.IsLoopback()
	})
	if i < 0 {
		t.Skip("this machine has no address")
	}
	w, err := paths(t.Context(), Paths{To: []Peer{{"here", addresses[i].(*net.IPNet).IP.String()}}, Rate: true, Within: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	p := w.Paths[0]
	if p.Error != "" || p.State != Whole || p.Bytes < 576 || p.Ping == 0 || p.Rate == 0 || !slices.Contains(w.Addresses, p.Source) {
		t.Errorf("got %+v, addresses %v", p, w.Addresses)
	}
}

func TestTheMostSpecificRoute(t *testing.T) {
	all := []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Device: "eth0"}, {To: netip.MustParsePrefix("10.244.1.0/24"), Device: "flannel.1"}, {To: netip.MustParsePrefix("10.244.0.0/16"), Device: "tun"}}
	for to, want := range map[string]string{"10.244.1.7": "flannel.1", "10.244.2.7": "tun", "192.0.2.1": "eth0", "2001:db8::1": ""} {
		if r, _ := routeTo(all, netip.MustParseAddr(to)); r.Device != want {
			t.Errorf("%s goes to %q, want %q", to, r.Device, want)
		}
	}
}

func TestAnswersOfDNS(t *testing.T) {
	name := dnsmessage.MustNewName("web.x.")
	head := func(kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET}
	}
	a := func(last byte) dnsmessage.Resource {
		return dnsmessage.Resource{Header: head(dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{10, 0, 0, last}}}
	}
	alias := dnsmessage.Resource{Header: head(dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("example.org.")}}
	for what, c := range map[string]struct {
		kind    dnsmessage.Type
		code    dnsmessage.RCode
		answers []dnsmessage.Resource
		want    string
	}{
		"addresses in any order":    {dnsmessage.TypeA, 0, []dnsmessage.Resource{a(2), a(1)}, "10.0.0.1 10.0.0.2"},
		"an alias":                  {dnsmessage.TypeCNAME, 0, []dnsmessage.Resource{alias}, "example.org"},
		"an alias on the way":       {dnsmessage.TypeA, 0, []dnsmessage.Resource{alias, a(1)}, "10.0.0.1"},
		"a name that is not there":  {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, "the server says NXDOMAIN"},
		"a server that is in need":  {dnsmessage.TypeA, dnsmessage.RCodeServerFailure, nil, "the server says SERVFAIL"},
		"a name without an address": {dnsmessage.TypeA, 0, nil, ""},
	} {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true, RCode: c.code},
			Questions: []dnsmessage.Question{{Name: name, Type: c.kind, Class: dnsmessage.ClassINET}}, Answers: c.answers}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		values, err := parseAnswer(b, 7)
		got := strings.Join(values, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
		if _, err := parseAnswer(b, 8); err == nil {
			t.Errorf("%s: the answer to another question was taken", what)
		}
	}
}

func TestNamesOfAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"10.96.0.10":  "10.0.96.10.in-addr.arpa",
		"2001:db8::1": strings.Repeat("0.", 0) + "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := reverse(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

func TestResolver(t *testing.T) {
	r := parseResolver("search x.svc.example.test svc.example.test example.test lan\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n")
	if r.Server != "10.96.0.10" || r.Domain != "example.test" {
		t.Errorf("got %v", r)
	}
}

func TestTwiceFailsOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "began")
	for i, good := range []bool{false, true} {
		if err := twice(t.Context(), Streams{}, file); (err == nil) != good {
			t.Errorf("run %d: %v", i, err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := Beginnings(string(b)); err != nil || len(all) != 2 || len(all[1].Addresses) == 0 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestConnectCarriesBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 4)
		_, _ = c.Read(b)
		_, _ = c.Write(append(b, "!"...))
	}()
	var out bytes.Buffer
	if err := connect(t.Context(), Streams{In: strings.NewReader("said"), Out: &out}, l.Addr().String()); err != nil || out.String() != "said!" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// A snapshot comes in pieces of any size.
func TestTheDigestAtTheEndOfASnapshot(t *testing.T) {
	content := bytes.Repeat([]byte("etcd "), 1000)
	sum := sha256.Sum256(content)
	for _, size := range []int{1, 7, 32, 33, 4096, 1 << 20} {
		x := tail{hash: sha256.New()}
		for piece := range slices.Chunk(append(content, sum[:]...), size) {
			if _, err := x.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if got := hex.EncodeToString(x.hash.Sum(nil)); got != hex.EncodeToString(sum[:]) || !bytes.Equal(x.last, sum[:]) {
			t.Errorf("in pieces of %d: hash %s, end %x", size, got, x.last)
		}
	}
}

func TestQuestionsAndAnswersAreJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	argv := Argv("files", []string{file})
	if !slices.Equal(argv[:3], []string{Binary, "probe", "files"}) {
		t.Errorf("got %q", argv)
	}
	var out bytes.Buffer
	if err := Run(t.Context(), Streams{Out: &out}, argv[2:]); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got[file] != "text" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	if err := Run(t.Context(), Streams{}, []string{"fly"}); err == nil {
		t.Error("a command that is none was run")
	}
}

// Who cuts packets short, and answers, has not let them through whole.
func TestAnAnswerToAnotherSizeIsNone(t *testing.T) {
	for cut, want := range map[int]bool{0: true, 100: false} {
		server, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			b := make([]byte, 2<<10)
			for {
				n, from, err := server.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = server.WriteTo(echoed(b[:n-cut]), from)
			}
		}()
		conn, err := net.Dial("udp", server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := answered(conn, 1400, 1, 1); got != want {
			t.Errorf("%d bytes cut off: %t", cut, got)
		}
	}
}
