package host

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// beside is a Transport to this machine: a shell of its own, with the environment that sshd gives.
type beside struct {
	shell string
	mu    sync.Mutex
	pipes []*Pipe
	env   []string
}

func (b *beside) Shell(_ context.Context, program string) (*Pipe, error) {
	cmd := exec.Command(b.shell, "-c", program)
	cmd.Env = append([]string{"HOME=/root", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, b.env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, outWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	aside, asideWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = outWriter, asideWriter
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	outWriter.Close()
	asideWriter.Close()
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	p := &Pipe{In: in, Out: out, Err: aside, Close: func() error {
		in.Close()
		out.Close()
		aside.Close()
		return nil
	}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pipes = append(b.pipes, &Pipe{In: in, Out: out, Err: aside, Close: func() error {
		p.Close()
		<-ended
		return nil
	}})
	return p, nil
}

func (b *beside) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return Local{}.Dial(ctx, network, addr)
}

func (b *beside) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pipes {
		p.Close()
	}
	return nil
}

func (b *beside) shells() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pipes)
}

// remote is this machine behind a shell; "bash" as machines have it whose sh it is.
func remote(t testing.TB, shell string) *Remote {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the agent is for root")
	}
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("no %s on this machine", shell)
	}
	sh := filepath.Join(t.TempDir(), "sh")
	if err := os.Symlink(path, sh); err != nil {
		t.Fatal(err)
	}
	r := NewRemote(&beside{shell: sh})
	r.shell = sh
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// onEach holds all forms of a Host to the same.
func onEach(t *testing.T, test func(*testing.T, Host)) {
	t.Run("local", func(t *testing.T) { test(t, Local{}) })
	onRemotes(t, func(t *testing.T, r *Remote) { test(t, r) })
}

func onRemotes(t *testing.T, test func(*testing.T, *Remote)) {
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) { test(t, remote(t, shell)) })
	}
}

var _ io.Reader
