// Package container is the way into a container that is a machine: systemd runs in it. In goes the
// name of the container; out comes a [host.Transport]. It needs the command of the engine that runs
// it (docker, podman, nerdctl) and no SSH.
package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kubewright/kubewright/host"
)

// Transport is the way into one container.
type Transport struct {
	engine    Engine
	name      string
	addresses []netip.Addr
	relay     Relay
	patience  time.Duration // with an engine that starts something there
	ending    time.Duration // that its command may take, once it has nothing more to do

	mu     sync.Mutex
	dialer *dialer
	direct bool // its addresses are reached from here
}

// New is the way into a container of that name, of which these are the addresses; relay leads to its
// sockets, and to its ports where its addresses are not reached from here. Nothing is started yet.
func New(e Engine, name string, addresses []netip.Addr, relay Relay) *Transport {
	return &Transport{engine: e, name: name, addresses: addresses, relay: relay, patience: 30 * time.Second, ending: 5 * time.Second}
}

// silentError is an engine that has started nothing, and said nothing.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// Shell is that of [host.Transport]: the relay starts it, or the engine, where there is no relay.
func (t *Transport) Shell(ctx context.Context, program string) (*host.Pipe, error) {
	if t.relay == nil {
		return t.shell(ctx, program)
	}
	d, err := t.ready(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: start a shell: %w", t.name, err)
	}
	if d.err != nil {
		return t.shell(ctx, program)
	}
	p, err := d.Shell(ctx, program)
	switch {
	case err == nil:
		return &host.Pipe{In: p.In, Out: named{t.name, p.Out}, Err: named{t.name, p.Err}, Close: p.Close}, nil
	case errors.Is(err, io.ErrClosedPipe): // the container was stopped, and has perhaps been started again
		t.forget(d)
		return t.shell(ctx, program)
	}
	return nil, fmt.Errorf("%s: start a shell: %w", t.name, err)
}

// named says in errors where they are from.
type named struct {
	container string
	io.Reader
}

func (n named) Read(b []byte) (int, error) {
	i, err := n.Reader.Read(b)
	if down := (*host.UnreachableError)(nil); errors.As(err, &down) {
		err = &host.UnreachableError{Err: fmt.Errorf("%s: %w", n.container, err)}
	}
	return i, err
}

// shell is one by the engine. It says a word once it has the program: engines under load have been seen to start none, or to lose what it prints, for ever.
func (t *Transport) shell(ctx context.Context, program string) (*host.Pipe, error) {
	p, err := t.start(ctx, program)
	if errors.As(err, new(silentError)) {
		p, err = t.start(ctx, program)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: start a shell: %w", t.name, err)
	}
	return &host.Pipe{In: p.in, Out: reader{p, p.out}, Err: reader{p, p.err}, Close: p.close}, nil
}

func (t *Transport) start(ctx context.Context, program string) (*process, error) {
	word := rand.Text() + "\n"
	script := fmt.Sprintf(`kubewright=$(%s) && echo %s && eval "$kubewright"`, host.ProgramFrom(program), strings.TrimSpace(word))
	p, err := t.run(ctx, "exec", "--interactive", "--privileged", t.name, "sh", "-c", script)
	if err != nil {
		return nil, err
	}
	late := time.AfterFunc(t.patience, func() { p.close() })
	said := make([]byte, len(word))
	n, err := 0, error(nil)
	if _, err = io.WriteString(p.in, program); err == nil || errors.Is(err, syscall.EPIPE) {
		n, err = io.ReadFull(p.out, said)
	}
	inTime := late.Stop()
	if err == nil && string(said) == word && inTime {
		return p, nil
	}
	defer p.close()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case !inTime:
		return nil, silentError{&host.UnreachableError{Err: fmt.Errorf("%s started none within %s, and said nothing: it has too much to do, or hangs: see `%s ps` and its log, and run this again", t.engine, t.patience, t.engine)}}
	}
	return nil, p.refused(string(said[:n]))
}

// refused is why a program was not started, in the engine's words, some of which are on standard output.
func (p *process) refused(begun string) error {
	p.out.SetReadDeadline(time.Now().Add(p.ending))
	p.err.SetReadDeadline(time.Now().Add(p.ending))
	out, _ := io.ReadAll(io.LimitReader(p.out, 2<<10))
	errs, _ := io.ReadAll(io.LimitReader(p.err, 2<<10))
	words := strings.TrimSpace(begun + string(out) + string(errs))
	return &host.UnreachableError{Err: fmt.Errorf("%s: the container may have stopped: see `%s ps -a` and start it, or make the cluster anew", cmp.Or(words, "the engine refused, and did not say why"), p.engine)}
}

// process is the engine's command while a program runs in the container.
type process struct {
	*Transport
	in       io.WriteCloser
	out, err *os.File
	ended    chan struct{} // closed when the command has ended, as state says
	state    *os.ProcessState
	close    func() error
}

func (t *Transport) run(ctx context.Context, args ...string) (*process, error) {
	p := &process{Transport: t, ended: make(chan struct{})}
	cmd := exec.Command(string(t.engine), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to hear, and to tidy up after
	var theirs [2]*os.File
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	for i, ours := range []**os.File{&p.out, &p.err} {
		if *ours, theirs[i], err = os.Pipe(); err != nil {
			return nil, err
		}
		defer theirs[i].Close()
	}
	cmd.Stdout, cmd.Stderr = theirs[0], theirs[1]
	if err := cmd.Start(); err != nil {
		p.in.Close()
		p.out.Close()
		p.err.Close()
		return nil, err
	}
	go func() {
		cmd.Wait()
		p.state = cmd.ProcessState
		close(p.ended)
	}()
	p.close = sync.OnceValue(func() error {
		// The program sees the end of its input, and the command ends with it: else it is ended.
		p.in.Close()
		p.out.Close()
		p.err.Close()
		go func() {
			select {
			case <-p.ended:
			case <-time.After(p.ending):
				cmd.Process.Kill()
			}
		}()
		return nil
	})
	stop := context.AfterFunc(ctx, func() { p.close() })
	go func() { <-p.ended; stop() }()
	return p, nil
}

// reader is one of the outputs. A container that stops is an error, not the end of a file.
type reader struct {
	*process
	from *os.File
}

// Exit codes of the engine's command, not of a program: it, or the container, has been ended.
var lost = []int{-1, 125, 126, 137, 143}

func (r reader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	switch {
	case errors.Is(err, os.ErrClosed):
		err = io.ErrClosedPipe
	case err == io.EOF && n == 0:
		select {
		case <-r.ended:
		case <-time.After(r.ending): // whoever holds its outputs open, it does not
			return 0, &host.UnreachableError{Err: fmt.Errorf("the engine's command for %s does not end", r.name)}
		}
		if slices.Contains(lost, r.state.ExitCode()) {
			err = &host.UnreachableError{Err: fmt.Errorf("the container %s was stopped, or its engine: %s", r.name, r.state)}
		}
	}
	return n, err
}
