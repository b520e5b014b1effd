package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
)

// line is a way to a server that can be cut without a word, as by a firewall.
type line struct {
	net.Listener
	cut   atomic.Bool
	count atomic.Int32 // connections so far
}

func startLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	way := &line{Listener: l}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			way.count.Add(1)
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			go way.carry(far, near)
			go way.carry(near, far)
		}
	}()
	return way
}

func (l *line) carry(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if l.cut.Load() {
			return // and the connections stay open
		}
		if _, werr := to.Write(b[:n]); werr != nil || err != nil {
			to.Close()
			return
		}
	}
}

func (l *line) port() int32 { return int32(l.Addr().(*net.TCPAddr).Port) }

func TestADeadLinkEndsEverythingThatWaits(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	way := startLine(t, server.addr())
	c := newClient(t, Options{AcceptNew: true})
	c.silence = 300 * time.Millisecond
	to := server.to("root")
	to.Port = way.port()
	h, err := c.Connect(t.Context(), "one", to)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	reads, err := h.Shell(t.Context(), "echo on; exec cat")
	if err != nil {
		t.Fatal(err)
	}
	writes, err := h.Shell(t.Context(), "exec cat >/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(reads.Out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	way.cut.Store(true)
	var all sync.WaitGroup
	for _, what := range []func() error{
		func() error { _, err := reads.Out.Read(make([]byte, 1)); return err },
		func() error { _, err := reads.Err.Read(make([]byte, 1)); return err },
		func() error { _, err := io.Copy(writes.In, endless{}); return err },
		func() error { _, err := h.Shell(t.Context(), "true"); return err },
		func() error { _, err := h.Dial(t.Context(), "tcp", "127.0.0.1:1"); return err },
	} {
		all.Go(func() { wants(t, what(), "one", "no answer for") })
	}
	all.Wait()
}

func TestAChannelThatIsAskedForTooLateIsNotWaitedFor(t *testing.T) {
	sshHome(t)
	h := startSSHD(t).login("root", Options{})
	never := make(chan struct{})
	defer close(never)
	time.AfterFunc(50*time.Millisecond, func() { h.conn.Close() })
	_, err := opened(t.Context(), h.link, func() (int, error) { <-never; return 0, nil }, nil)
	if err == nil || h.cause() == nil {
		t.Errorf("it ends with %v; the connection has ended for %v", err, h.cause())
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestAServerThatGoesIsNotAnEndOfFile(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	h := server.login("root", Options{})
	pipe, err := h.Shell(t.Context(), "echo on; read _; kill -9 $PPID; exec cat") // the server's process of this connection
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pipe.Out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(pipe.In, "\n")
	_, err = io.ReadAll(pipe.Out)
	wants(t, err, "one", "connection lost")
	_, err = h.Shell(t.Context(), "true")
	wants(t, err, "one", "connection lost")
}

func TestAServerThatNeverAnswersIsGivenUp(t *testing.T) {
	sshHome(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(t, Options{})
	to := config.SSH{Address: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port)}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			io.ReadFull(conn, make([]byte, 4)) // the handshake has begun
			cancel(errors.New("interrupted"))
			io.Copy(io.Discard, conn)
		}
	}()
	_, err = c.Connect(ctx, "one", to)
	wants(t, err, "one", "interrupted")
	c.connect = 50 * time.Millisecond
	_, err = c.Connect(t.Context(), "one", to)
	wants(t, err, "one", "did not finish the login")
}

func TestTheEndOfAContextEndsTheShell(t *testing.T) {
	sshHome(t)
	h := startSSHD(t).login("root", Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	pipe, err := h.Shell(ctx, "echo on; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pipe.Out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	full, written := make(chan struct{}), make(chan error, 1)
	go func() {
		io.CopyN(pipe.In, endless{}, 2<<20) // the window; the program reads none of it
		close(full)
		_, err := io.Copy(pipe.In, endless{})
		written <- err
	}()
	<-full
	cancel(errors.New("interrupted"))
	wants(t, <-written, "one", "interrupted")
	_, err = pipe.Out.Read(make([]byte, 1))
	wants(t, err, "one", "interrupted")
	_, err = h.Shell(ctx, "true")
	wants(t, err, "one", "interrupted")
	if out, _, err := shellOutput(t, h, "echo on", ""); err != nil || out != "on\n" {
		t.Errorf("another shell: %q, %v", out, err)
	}
}

func TestAServerThatOpensNoMoreSessions(t *testing.T) {
	sshHome(t)
	h := startSSHD(t, "MaxSessions 1").login("root", Options{})
	pipe, err := h.Shell(t.Context(), "exec cat")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	_, err = h.Shell(t.Context(), "true")
	wants(t, err, "one", "MaxSessions")
}

func TestUnreadErrorsDoNotHoldUpTheOutput(t *testing.T) {
	sshHome(t)
	h := startSSHD(t).login("root", Options{})
	pipe, err := h.Shell(t.Context(), "head -c 900000 /dev/zero >&2; echo on")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if out := readAll(t, pipe.Out); out != "on\n" {
		t.Errorf("%q", out)
	}
	if errs := readAll(t, pipe.Err); len(errs) != 900000 {
		t.Errorf("%d bytes", len(errs))
	}
}

func TestJumpHosts(t *testing.T) {
	home := sshHome(t)
	far, middle, near := startSSHD(t), startSSHDAt(t, "::1", 0), startSSHD(t)
	way := startLine(t, near.addr())
	for _, s := range []*sshd{middle, near} {
		far.allow(publicKey(t, s.keyFile))
	}
	for _, s := range []*sshd{far, middle} {
		s.allow(publicKey(t, near.keyFile))
	}
	put(t, filepath.Join(home, ".ssh", "config"), "Host near\n HostName 127.0.0.1\n Port "+portOf(way.Addr().String())+"\n User root\nHost *\n IdentityFile "+near.keyFile+"\n", 0o600)
	path := filepath.Join(home, ".ssh", "known_hosts")
	to := config.SSH{Address: "127.0.0.1", Port: int32(far.port), User: "root", ProxyJump: "near,root@" + middle.addr()}

	// Each one's key is verified.
	_, err := newClient(t, Options{}).Connect(t.Context(), "far", to)
	wants(t, err, "far", "jump host", "near", "not known", fingerprint(near.hostKey))
	put(t, path, knownLine(way.Addr().String(), near.hostKey), 0o600)
	_, err = newClient(t, Options{}).Connect(t.Context(), "far", to)
	wants(t, err, "far", "jump host", "not known", fingerprint(middle.hostKey))

	c := newClient(t, Options{AcceptNew: true})
	before := way.count.Load()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			h, err := c.Connect(t.Context(), "far", to)
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			if out, _, err := shellOutput(t, h, "echo on", ""); err != nil || out != "on\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	all.Wait()
	if h, err := c.Connect(t.Context(), "far", to); err != nil {
		t.Error(err)
	} else {
		h.Close()
	}
	if n := way.count.Load() - before; n != 1 {
		t.Errorf("%d connections to the jump host, want one", n)
	}
	to.Port = 1
	_, err = c.Connect(t.Context(), "far", to)
	wants(t, err, "far", "not reachable", "refused")
	to.ProxyJump = "127.0.0.1:2"
	_, err = c.Connect(t.Context(), "far", to)
	wants(t, err, "far", "jump host", "127.0.0.1:2", "not reachable", "refused")
}
