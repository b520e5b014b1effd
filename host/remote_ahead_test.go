package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatTheRunBeforeReadIsAskedAtOnce(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("a"), "a", 0o600)
	reads := func(t *testing.T, r *Remote) {
		t.Helper()
		if infos, err := r.Stat(t.Context(), at("a"), at("absent")); err != nil || len(infos) != 1 {
			t.Errorf("%v, %v", infos, err)
		}
		if sums, err := r.Digest(t.Context(), at("a")); err != nil || sums[at("a")] != Digest([]byte("a")) {
			t.Errorf("%v, %v", sums, err)
		}
		if b, err := r.ReadFile(t.Context(), at("a")); err != nil || string(b) != "a" {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := r.ReadFile(t.Context(), at("absent")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
		if names, err := r.List(t.Context(), dir); err != nil || len(names) != 1 {
			t.Errorf("%q, %v", names, err)
		}
		var exit *ExitError
		if _, err := r.Run(t.Context(), Query("sh", "-c", "echo why >&2; exit 3")); !errors.As(err, &exit) || exit.Code != 3 || exit.Output != "why" {
			t.Errorf("%v", err)
		}
		if changes, err := r.WriteFiles(t.Context(), File{Path: at("a"), Content: Text("a"), Mode: 0o600}); err != nil || changes != nil {
			t.Errorf("%v, %v", changes, err)
		}
	}
	first := remote(t, "sh")
	reads(t, first)
	b, err := json.Marshal(first.Reads())
	if err != nil || strings.Contains(string(b), "why\\n") {
		t.Fatalf("%s, %v", b, err)
	}
	var stored []Read
	if err := json.Unmarshal(b, &stored); err != nil {
		t.Fatal(err)
	}
	second := func() *Remote {
		r := remote(t, "sh")
		if err := r.Prefetch(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := second()
	if reads(t, r); r.RoundTrips() != 1 || r.transport.(*beside).shells() != 1 {
		t.Errorf("%d round trips, %d shells", r.RoundTrips(), r.transport.(*beside).shells())
	}
	if len(r.Reads()) != len(stored) {
		t.Errorf("it remembers %q of %q", r.Reads(), stored)
	}

	r = second()
	for i := range 2 { // the second time it is asked again
		if err := os.WriteFile(at("a"), fmt.Append(nil, i), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := r.ReadFile(t.Context(), at("a")); err != nil || string(b) != []string{"a", "1"}[i] {
			t.Errorf("%q, %v", b, err)
		}
	}
	if err := r.Append(t.Context(), at("journal"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if names, err := r.List(t.Context(), dir); err != nil || len(names) != 1 {
		t.Errorf("after a line of the journal: %q, %v", names, err)
	}
	if _, err := r.Run(t.Context(), Cmd("touch", at("made"))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadFile(t.Context(), at("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if n := r.RoundTrips(); n != 5 {
		t.Errorf("%d round trips: after a change nothing is known", n)
	}
	for _, bad := range []Read{{}, {"run", "", "", "id"}, {"query"}, {"query", "", "5", "cat"}, {"append", "/x", "0"}} {
		if err := r.Prefetch(t.Context(), []Read{bad}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// pipes is a transport that dials one end of a pipe.
type pipes struct {
	Transport
	there []net.Conn
}

func (p *pipes) Dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p.there = append(p.there, there)
	return here, nil
}

func TestAConnectionMadeAheadIsClosedOnlyWhereNobodyCame(t *testing.T) {
	for _, somebody := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &pipes{}
			r := NewRemote(p)
			r.dialAhead(t.Context(), Read{"dial", "tcp", "192.0.2.1:1"})
			if somebody && r.dialled(t.Context(), "tcp", "192.0.2.1:1") == nil {
				t.Error("there was no connection")
			}
			time.Sleep(2 * idle) // on the clock of the bubble
			p.there[0].SetReadDeadline(time.Now().Add(time.Second))
			if _, err := p.there[0].Read(make([]byte, 1)); (err == io.EOF) == somebody {
				t.Errorf("somebody came: %t, and it ended with %v", somebody, err)
			}
		})
	}
}
