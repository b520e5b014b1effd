package host

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFramesAreReadAsTheyWereSent(t *testing.T) {
	sent := [][][]string{
		{{"stat", "/a", "/b c"}},
		{{"read", "it's"}, {"list", "a\nop 'read' 'b'\n"}, {"query", "", "", "''\\''", "'", "ü\xff"}},
		{{"renew"}},
	}
	var wire bytes.Buffer
	for _, operations := range sent {
		wire.Write(frame(operations))
		wire.WriteString("payload")
	}
	r := bufio.NewReader(&wire)
	for _, operations := range sent {
		got, err := ReadFrame(r)
		if diff := cmp.Diff(operations, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
		if _, err := r.Discard(len("payload")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadFrame(r); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for _, bad := range []string{"x\nop 'a'", "3\nop ", "5\nop 'a", "6\nop 'a", "8\nop 'a' b", "7\nop 'a'\n", "-1\n", "10\nop 'a'"} {
		if got, err := ReadFrame(bufio.NewReader(bytes.NewBufferString(bad))); err == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
}

func TestAnswersAreFoundInWhateverIsPrinted(t *testing.T) {
	var wire bytes.Buffer
	printed := []string{"", "plain", "line\n", "\n\n", "\nnonce", "\nnonce x 1\n", "\x00\xff", string(bytes.Repeat([]byte("long\n"), 100_000))}
	for i, p := range printed {
		wire.WriteString(p)
		if err := Answer(&wire, "NONCE", i); err != nil {
			t.Fatal(err)
		}
	}
	wire.WriteString("rest")
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(wire.Bytes()), "in pieces": &pieces{wire.Bytes()}} {
		got := newAnswers(r, "NONCE")
		for i, p := range printed {
			if a := got.next(); string(a.printed) != p || a.code != i || a.err != nil {
				t.Errorf("%s: %.20q: %.20q, %d, %v", name, p, a.printed, a.code, a.err)
			}
		}
		if a := got.next(); string(a.printed) != "rest" || a.err != io.EOF {
			t.Errorf("%s: at the end %q, %v", name, a.printed, a.err)
		}
	}
}

// pieces gives seven bytes at a time.
type pieces struct{ rest []byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(7, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
