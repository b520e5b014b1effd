package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubewright/kubewright/host"
)

// Dialer connects from a container's own view of the network, and starts shells there: an engine takes long to do
// that, and more of the machine than what the shells do. One that has ended says [io.ErrClosedPipe].
type Dialer interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	Shell(ctx context.Context, program string) (*host.Pipe, error)
	Close() error
}

// Relay starts a Dialer with what starts shells in the container by the engine. The Dialer ends with ctx.
type Relay func(ctx context.Context, shell func(ctx context.Context, program string) (*host.Pipe, error)) (Dialer, error)

// Relayed makes a Relay of what starts some Dialer.
func Relayed[D Dialer](start func(ctx context.Context, shell func(ctx context.Context, program string) (*host.Pipe, error)) (D, error)) Relay {
	return func(ctx context.Context, shell func(ctx context.Context, program string) (*host.Pipe, error)) (Dialer, error) {
		return start(ctx, shell)
	}
}

// dialer is a Dialer that is being started, until done is closed.
type dialer struct {
	Dialer
	err  error
	done chan struct{}
	end  context.CancelFunc
}

// Dial goes straight where the container's addresses are reached from here, as they are on Linux,
// and else through the relay.
func (t *Transport) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network == "tcp" && t.owns(addr) && !elsewhere() && t.reached(ctx) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			return nil, errno
		}
		return conn, err
	}
	d, err := t.ready(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	if d.err != nil {
		t.forget(d)
		return nil, fmt.Errorf("%s: %w", t.name, d.err)
	}
	conn, err := d.Dial(ctx, network, addr)
	if errors.Is(err, io.ErrClosedPipe) { // somebody has ended it
		t.forget(d)
		err = &host.UnreachableError{Err: fmt.Errorf("%s: what connects there has ended", t.name)}
	}
	return conn, err
}

// ready is the Dialer of the container, once it runs or could not be started.
func (t *Transport) ready(ctx context.Context) (*dialer, error) {
	d := t.started(ctx)
	select {
	case <-d.done:
		return d, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// started is the one Dialer of the container; nobody's Dial waits longer for it than it wants to.
func (t *Transport) started(ctx context.Context) *dialer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dialer == nil {
		ctx, end := context.WithCancel(context.WithoutCancel(ctx))
		d := &dialer{done: make(chan struct{}), end: end}
		t.dialer = d
		go func() {
			defer close(d.done)
			d.Dialer, d.err = t.relay(ctx, t.shell)
		}()
	}
	return t.dialer
}

// forget has the next one start another.
func (t *Transport) forget(d *dialer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dialer == d {
		t.dialer = nil
		d.end()
	}
}

// elsewhere tells of an engine on another machine, as in a CI whose engine is a service: what has a container's
// address here is not the container.
func elsewhere() bool {
	for _, name := range []string{"DOCKER_HOST", "CONTAINER_HOST"} { // podman's
		if at := os.Getenv(name); strings.HasPrefix(at, "tcp:") || strings.HasPrefix(at, "ssh:") {
			return true
		}
	}
	return false
}

func (t *Transport) owns(addr string) bool {
	to, err := netip.ParseAddrPort(addr)
	return err == nil && slices.Contains(t.addresses, to.Addr())
}

// reached tells whether the container's network leads here. A port that nobody listens at says so at once.
func (t *Transport) reached(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.direct || len(t.addresses) == 0 {
		return t.direct
	}
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(t.addresses[0].String(), "1"))
	if err == nil {
		conn.Close()
	}
	t.direct = err == nil || errors.Is(err, syscall.ECONNREFUSED)
	return t.direct
}

// Close ends the relay. Shells end with whoever has started them.
func (t *Transport) Close() error {
	t.mu.Lock()
	d := t.dialer
	t.dialer = nil
	t.mu.Unlock()
	if d == nil {
		return nil
	}
	d.end()
	<-d.done
	if d.err != nil {
		return nil
	}
	return d.Dialer.Close()
}
