package reach

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/reach/probe"
)

// pipe is one to a program that is a function here: in and out are its own.
func pipe(program func(in io.ReadCloser, out io.WriteCloser, errs io.Writer)) *host.Pipe {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	go func() {
		program(inR, outW, errW)
		outW.Close()
		errW.Close()
	}()
	return &host.Pipe{In: inW, Out: outR, Err: errR, Close: func() error {
		inW.Close()
		outR.Close()
		errR.Close()
		return nil
	}}
}

// take is what a machine does before the program runs: it says what it is, and takes the one for it.
func take(in io.Reader, out io.Writer) {
	io.WriteString(out, "x86_64\n")
	packed, _ := program("amd64")
	io.CopyN(io.Discard, in, int64(len(packed)))
}

// relayTo is a Relay to a program that takes its own text first, as the one on a host does.
func relayTo(t *testing.T) *Relay {
	t.Helper()
	r, err := converse(t.Context(), pipe(func(in io.ReadCloser, out io.WriteCloser, _ io.Writer) {
		take(in, out)
		probe.Relay(in, out)
	}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestARelayConnects(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	r := relayTo(t)
	conn, err := r.Dial(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.Repeat("to and fro ", 100000)
	go func() {
		io.WriteString(conn, sent)
		conn.Close() // a half of it: what comes back is read yet
	}()
	if back, err := io.ReadAll(conn); err != nil || string(back) != sent {
		t.Errorf("%d bytes of %d came back: %v", len(back), len(sent), err)
	}
}

func TestARelaySaysWhyItDoesNotConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	r := relayTo(t)
	if _, err := r.Dial(t.Context(), "unix", filepath.Join(t.TempDir(), "none")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a socket that is missing: %v", err)
	}
	if _, err := r.Dial(t.Context(), "tcp", closed); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that nobody listens at: %v", err)
	}
	if _, err := r.Dial(t.Context(), "carrier-pigeon", "a"); err == nil || !strings.Contains(err.Error(), "carrier-pigeon") {
		t.Errorf("a network that there is not: %v", err)
	}
	r.Close()
	if _, err := r.Dial(t.Context(), "tcp", closed); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a relay that has ended: %v", err)
	}
}

func TestARelayStartsShells(t *testing.T) {
	r := relayTo(t)
	p, err := r.Shell(t.Context(), "cat; printf errors >&2; umask\n")
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.Repeat("to and fro ", 100000)
	go func() {
		io.WriteString(p.In, sent)
		p.In.Close()
	}()
	if back, err := io.ReadAll(p.Out); err != nil || !strings.HasPrefix(string(back), sent) {
		t.Errorf("%d bytes of %d came back: %v", len(back), len(sent), err)
	}
	if errs, err := io.ReadAll(p.Err); err != nil || string(errs) != "errors" {
		t.Errorf("%q, %v", errs, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestShellsOfARelayEnd(t *testing.T) {
	r := relayTo(t)
	read := func(ctx context.Context, end func(*host.Pipe)) error {
		t.Helper()
		p, err := r.Shell(ctx, "echo begun; read _; [ ! -e /proc/$$ ]\n")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := firstLine(p.Out); err != nil {
			t.Fatal(err)
		}
		go end(p)
		_, err = io.ReadAll(p.Out)
		return err
	}
	if err := read(t.Context(), func(p *host.Pipe) { p.Close() }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a shell that was closed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := read(ctx, func(*host.Pipe) { cancel() }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a shell whose context has ended: %v", err)
	}
	if err := read(t.Context(), func(p *host.Pipe) { p.In.Close() }); err != nil {
		t.Errorf("a shell that has ended: %v", err)
	}
	p, err := r.Shell(t.Context(), "exit")
	if err != nil {
		t.Fatal(err)
	}
	io.ReadAll(p.Out)
	if _, err := io.WriteString(p.In, strings.Repeat("nobody reads this", 1<<17)); err != nil {
		t.Logf("a shell that has ended takes nothing more: %v", err) // or it does; nobody hangs
	}
	err = read(t.Context(), func(*host.Pipe) { r.pipe.Close() })
	if down := (*host.UnreachableError)(nil); !errors.As(err, &down) {
		t.Errorf("a shell whose relay was ended: %v", err)
	}
	if _, err := r.Shell(t.Context(), "true"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a shell of a relay that has ended: %v", err)
	}
}

func TestARelayThatDoesNotAnswerIsGivenUp(t *testing.T) {
	for name, program := range map[string]func(in io.ReadCloser, out io.WriteCloser, errs io.Writer){
		"it takes nothing":   func(in io.ReadCloser, _ io.WriteCloser, _ io.Writer) { select {} },
		"it answers nothing": func(in io.ReadCloser, out io.WriteCloser, _ io.Writer) { take(in, out); io.Copy(io.Discard, in) },
		"it answers half": func(in io.ReadCloser, out io.WriteCloser, _ io.Writer) {
			take(in, out)
			out.Write([]byte{0})
			io.Copy(io.Discard, in)
		},
	} {
		_, err := converse(t.Context(), pipe(program), 100*time.Millisecond)
		if down := (*host.UnreachableError)(nil); !errors.As(err, &down) || !strings.Contains(err.Error(), "did not answer within 100ms") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAProgramThatCannotBeRunIsQuoted(t *testing.T) {
	_, err := converse(t.Context(), pipe(func(in io.ReadCloser, out io.WriteCloser, errs io.Writer) {
		take(in, out)
		io.WriteString(errs, "no program can be run in /run: mount it without noexec\n")
	}), time.Minute)
	if err == nil || err.Error() != "no program can be run in /run: mount it without noexec" {
		t.Error(err)
	}
}

func TestTheEndOfAContextEndsADial(t *testing.T) {
	asked := make(chan struct{})
	r, err := converse(t.Context(), pipe(func(in io.ReadCloser, out io.WriteCloser, _ io.Writer) {
		take(in, out)
		swallow(in, out, asked)
	}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(errors.New("interrupted"))
	}()
	if _, err := r.Dial(ctx, "unix", "/run/a.sock"); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Error(err)
	}
}

// swallow is a relay that takes what it is asked, and never answers.
func swallow(in io.ReadCloser, out io.WriteCloser, asked chan<- struct{}) {
	session, err := yamux.Server(duplex{in, out}, probe.Session())
	if err != nil {
		return
	}
	if stream, err := session.Accept(); err == nil {
		firstLine(stream)
		close(asked)
		io.Copy(io.Discard, in)
	}
}

type duplex struct {
	io.ReadCloser
	io.Writer
}
