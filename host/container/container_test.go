package container

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/host"
)

// engine is a command that stands in for docker: a shell, which runs in no container. Before it does what
// docker exec does it runs a script of ours, which finds a folder of the test's in $dir.
func engine(t *testing.T, script string) Engine {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "docker")
	text := "#!/bin/sh\ndir=" + dir + "\n" + script + "\nif [ \"$1\" = exec ]; then shift; while [ \"${1#-}\" != \"$1\" ]; do shift; done; shift; exec \"$@\"; fi\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return Engine(path)
}

// brief is the way into a container of an engine that is soon given up.
func brief(e Engine, relay Relay) *Transport {
	t := New(e, "one", nil, relay)
	t.patience, t.ending = 200*time.Millisecond, 200*time.Millisecond
	return t
}

func wants(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func unreachable(t *testing.T, err error) {
	t.Helper()
	if down := (*host.UnreachableError)(nil); !errors.As(err, &down) {
		t.Errorf("this is not said of a machine that does not answer: %v", err)
	}
}

func TestAShellHasItsInputToTheByte(t *testing.T) {
	tr := New(engine(t, ""), "one", nil, nil)
	p, err := tr.Shell(t.Context(), "# "+strings.Repeat("long ", 40000)+"\ncat; echo \"$((6 * 7))\" >&2\n\n")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(p.In, "one\x00\n\ntwo")
		p.In.Close()
	}()
	out, err := io.ReadAll(p.Out)
	if err != nil || string(out) != "one\x00\n\ntwo" {
		t.Errorf("%q, %v", out, err)
	}
	if errs, err := io.ReadAll(p.Err); err != nil || string(errs) != "42\n" {
		t.Errorf("%q, %v", errs, err)
	}
}

func TestAnEngineThatStartsNothingIsGivenUp(t *testing.T) {
	for name, script := range map[string]string{
		"it hangs":            "exec tail -f /dev/null",
		"it takes no input":   "exec tail -f /dev/null <&-",
		"it loses the output": `if [ "$1" = exec ]; then cat >/dev/null; exit; fi`,
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, "echo >>$dir/tried\n"+script)
			_, err := brief(e, nil).Shell(t.Context(), strings.Repeat(" ", 1<<20)+"true") // more than a pipe takes
			wants(t, err, "one: start a shell: ", " started none within 200ms", "run this again")
			unreachable(t, err)
			if tried, _ := os.ReadFile(filepath.Join(filepath.Dir(string(e)), "tried")); string(tried) != "\n\n" {
				t.Errorf("it was tried %d times", len(tried))
			}
		})
	}
}

func TestAShellThatWasNotStartedIsTriedOnceMore(t *testing.T) {
	e := engine(t, `if ! [ -e $dir/tried ]; then echo >$dir/tried; exec tail -f /dev/null; fi`)
	tr := New(e, "one", nil, nil)
	tr.patience = time.Second
	p, err := tr.Shell(t.Context(), "echo on")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(p.Out); err != nil || string(out) != "on\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestARefusalIsQuotedAndNotTriedAgain(t *testing.T) {
	for name, script := range map[string]string{
		"on standard error":  "echo 'Error response from daemon: Container 01 is not running' >&2; exit 1",
		"on standard output": "echo 'OCI runtime exec failed: Container 01 is not running'; exit 126",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := brief(engine(t, "[ ! -e $dir/tried ] || exit 0; echo >$dir/tried; "+script), nil).Shell(t.Context(), "true")
			wants(t, err, "one: start a shell: ", "Container 01 is not running", "ps -a")
			unreachable(t, err)
		})
	}
}

func TestAnEngineThatGoesIsNotAnEndOfFile(t *testing.T) {
	p, err := New(engine(t, ""), "one", nil, nil).Shell(t.Context(), "echo on; kill -9 $$")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(p.Out)
	wants(t, err, "one was stopped, or its engine")
	unreachable(t, err)
}

func TestAnEngineWhoseCommandDoesNotEndIsGivenUp(t *testing.T) {
	p, err := brief(engine(t, ""), nil).Shell(t.Context(), "echo on; exec >&-; read _")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, err = io.ReadAll(p.Out)
	wants(t, err, "does not end")
}

func TestTheEndOfAContextEndsWhatIsBegun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	e := engine(t, "mkfifo $dir/begun 2>/dev/null; echo >$dir/begun; exec tail -f /dev/null")
	go func() {
		begun := filepath.Join(filepath.Dir(string(e)), "begun")
		for {
			if b, err := os.ReadFile(begun); err == nil && len(b) > 0 {
				break
			}
		}
		cancel(errors.New("interrupted"))
	}()
	_, err := New(e, "one", nil, nil).Shell(ctx, "true")
	wants(t, err, "one: start a shell: interrupted")
}

// slow is a Relay that starts nothing before it is told to.
func slow(start <-chan Dialer) Relay {
	return func(ctx context.Context, _ func(context.Context, string) (*host.Pipe, error)) (Dialer, error) {
		select {
		case d := <-start:
			return d, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

type dials struct{ err error }

func (d dials) Dial(context.Context, string, string) (net.Conn, error) {
	c, _ := net.Pipe()
	return c, d.err
}
func (d dials) Shell(context.Context, string) (*host.Pipe, error) {
	return &host.Pipe{Out: strings.NewReader("by the relay"), Err: strings.NewReader(""), Close: func() error { return nil }}, d.err
}
func (d dials) Close() error { return nil }

func TestTheRelayStartsShells(t *testing.T) {
	for name, test := range map[string]struct {
		relay Relay
		want  string
	}{
		"it runs": {func(context.Context, func(context.Context, string) (*host.Pipe, error)) (Dialer, error) {
			return dials{}, nil
		}, "by the relay"},
		"it has ended": {func(context.Context, func(context.Context, string) (*host.Pipe, error)) (Dialer, error) {
			return dials{io.ErrClosedPipe}, nil
		}, "by the engine"},
		"it can't be started": {func(context.Context, func(context.Context, string) (*host.Pipe, error)) (Dialer, error) {
			return nil, errors.New("noexec")
		}, "by the engine"},
	} {
		p, err := New(engine(t, ""), "one", nil, test.relay).Shell(t.Context(), "printf 'by the engine'")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out, err := io.ReadAll(p.Out); err != nil || string(out) != test.want {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestNobodyWaitsLongerForTheRelayThanHeWants(t *testing.T) {
	start := make(chan Dialer)
	tr := New("docker", "one", nil, slow(start))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	_, err := tr.Dial(ctx, "unix", "/run/a.sock")
	wants(t, err, "one: interrupted")
	go func() { start <- dials{} }()
	if _, err := tr.Dial(t.Context(), "unix", "/run/a.sock"); err != nil {
		t.Errorf("the relay whose start was awaited by nobody: %v", err)
	}
	tr.forget(tr.dialer)
	go tr.Dial(t.Context(), "unix", "/run/a.sock")
	for tr.mu.Lock(); tr.dialer == nil; tr.mu.Lock() { // the second is being started
		tr.mu.Unlock()
	}
	tr.mu.Unlock()
	if err := tr.Close(); err != nil {
		t.Errorf("closed while it starts: %v", err)
	}
}

func TestARelayThatHasEndedIsStartedAnew(t *testing.T) {
	start := make(chan Dialer, 2)
	start <- dials{io.ErrClosedPipe}
	start <- dials{}
	tr := New("docker", "one", []netip.Addr{}, slow(start))
	_, err := tr.Dial(t.Context(), "unix", "/run/a.sock")
	wants(t, err, "one: what connects there has ended")
	unreachable(t, err)
	if _, err := tr.Dial(t.Context(), "unix", "/run/a.sock"); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
