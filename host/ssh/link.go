package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kubewright/kubewright/host"
	"golang.org/x/crypto/ssh"
)

// link is one connection to one server that was logged in to.
type link struct {
	endpoint
	client *ssh.Client
	conn   *watchedConn
	gone   chan struct{} // closed when the connection has ended
}

// watchedConn knows when it was last heard of, and why it ended.
type watchedConn struct {
	net.Conn
	heard atomic.Int64 // since began
	began time.Time
	ended atomic.Pointer[error]
}

func (w *watchedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.heard.Store(int64(time.Since(w.began)))
	if err != nil {
		w.end(err) // before anybody sees a channel end for it
	}
	return n, err
}

func (w *watchedConn) end(err error) {
	w.ended.CompareAndSwap(nil, &err)
	w.Conn.Close()
}

func (w *watchedConn) silent() time.Duration {
	return time.Since(w.began) - time.Duration(w.heard.Load())
}

func (l *link) close(why error) { l.conn.end(why) }

// cause is why the connection has ended; nil: it has not.
func (l *link) cause() error {
	if p := l.conn.ended.Load(); p != nil {
		return &host.UnreachableError{Err: fmt.Errorf("%s: connection lost: %w", l.endpoint, *p)}
	}
	return nil
}

// link connects, verifies the host key, and logs in.
func (c *Client) link(ctx context.Context, before *link, e endpoint) (*link, error) {
	known, err := c.known(e.known)
	if err != nil {
		return nil, err
	}
	raw, err := c.dialServer(ctx, before, e)
	if err != nil {
		return nil, err
	}
	conn := &watchedConn{Conn: raw, began: time.Now()}
	stop := context.AfterFunc(ctx, func() { conn.end(context.Cause(ctx)) })
	defer stop()
	slow := errors.New("timeout")
	timer := time.AfterFunc(e.connect, func() { conn.end(slow) })
	defer timer.Stop()

	waited := false
	login := c.login(ctx, e, func(k *key) (ssh.Signer, error) {
		if k.open() {
			return k.unlock(nil)
		}
		waited = true
		timer.Stop() // nobody types a passphrase against the clock
		defer timer.Reset(e.connect)
		return wait(ctx, func() (ssh.Signer, error) { return k.unlock(c.ask()) }, nil)
	})
	defer login.close()
	var hostKey error
	verified := false
	algorithms := known.db.HostKeyAlgorithms(e.keyName())
	client, channels, requests, err := ssh.NewClientConn(conn, e.addr(), &ssh.ClientConfig{
		User: e.user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(login.signers...)},
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			hostKey = known.verify(e, c.AcceptNew, remote, key)
			verified = hostKey == nil
			return hostKey
		},
		HostKeyAlgorithms: algorithms,
		// The library's first cipher is aes128-gcm@openssh.com, the fastest on machines with AES instructions.
	})
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", e, context.Cause(ctx))
	case hostKey != nil:
		return nil, fmt.Errorf("%s: %w", e, hostKey)
	case conn.ended.Load() != nil && errors.Is(*conn.ended.Load(), slow):
		return nil, &host.UnreachableError{Err: fmt.Errorf("%s: it did not finish the login within %s: see whether sshd there is overloaded, and that the port is that of SSH", e, e.connect)}
	case login.refused != nil:
		return nil, fmt.Errorf("%s: %w", e, login.refused)
	case !verified && len(algorithms) > 0 && errors.As(err, &negotiation):
		return nil, fmt.Errorf("%s: it has no host key of the kinds that known_hosts has for it (%s), so it is refused like a changed one: %w", e, strings.Join(algorithms, ", "), err)
	case verified && waited:
		// The server may have lost its patience meanwhile (LoginGraceTime); the key is open now.
		return c.link(ctx, before, e)
	case verified:
		return nil, &DeniedError{fmt.Errorf("%s: the user %s was not let in; tried: %s (%w). See that the user's name is right, and that the public key is in its ~/.ssh/authorized_keys there", e, e.user, login, err)}
	default:
		return nil, &host.UnreachableError{Err: fmt.Errorf("%s: %w: see that the port is that of an SSH server, and whether it drops connections (MaxStartups)", e, err)}
	}
	l := &link{endpoint: e, client: ssh.NewClient(client, channels, requests), conn: conn, gone: make(chan struct{})}
	go l.keepAlive(c.silence)
	return l, nil
}

// DeniedError is of a host that is the right one, and knows none of our keys: on one that has just booted they may come later.
type DeniedError struct{ Err error }

func (e *DeniedError) Error() string { return e.Err.Error() }
func (e *DeniedError) Unwrap() error { return e.Err }

// wait returns what f does, or earlier with ctx's error: f cannot be interrupted. What f gives
// too late is dropped.
func wait[T any](ctx context.Context, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil && drop != nil {
				drop(r.v)
			}
		}()
		var none T
		return none, context.Cause(ctx)
	}
}

// opened is wait for a channel: asked for one just when the connection ends, the library waits for ever.
func opened[T any](ctx context.Context, l *link, open func() (T, error), drop func(T)) (T, error) {
	while, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	go func() {
		select {
		case <-l.gone:
			leave(net.ErrClosed)
		case <-while.Done():
		}
	}()
	return wait(while, open, drop)
}

// dialServer makes the TCP connection, through the jump host if there is one.
func (c *Client) dialServer(ctx context.Context, before *link, e endpoint) (net.Conn, error) {
	timed, cancel := context.WithTimeout(ctx, e.connect)
	defer cancel()
	var conn net.Conn
	var err error
	if before != nil {
		conn, err = before.dialTCP(timed, e.addr())
	} else {
		var d net.Dialer
		conn, err = d.DialContext(timed, "tcp", e.addr())
	}
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", e, context.Cause(ctx))
	case timed.Err() != nil:
		return nil, &host.UnreachableError{Err: fmt.Errorf("%s: not reachable: no answer within %s: see that the host is up, and what lies between (firewall, proxyJump)", e, e.connect)}
	}
	return nil, &host.UnreachableError{Err: fmt.Errorf("%s: not reachable: %w: see that the host is up, and that sshd listens on port %s", e, err, e.port)}
}

// keepAlive ends a connection that is not heard of any more: what is sent into a dead one is never
// answered, and TCP would wait for a quarter of an hour. Any byte counts, so that an answer that
// queues behind an upload over a slow line harms nobody.
func (l *link) keepAlive(silence time.Duration) {
	tick := time.NewTicker(silence / 3)
	defer tick.Stop()
	go func() {
		l.client.Wait()
		l.close(net.ErrClosed)
		close(l.gone)
	}()
	var pending atomic.Bool
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
		}
		silent := l.conn.silent()
		if silent > silence {
			l.close(fmt.Errorf("no answer for %s", silence))
		} else if silent >= silence/3 && pending.CompareAndSwap(false, true) {
			go func() { // it may block where the line does
				l.client.SendRequest("keepalive@openssh.com", true, nil)
				pending.Store(false)
			}()
		}
	}
}
