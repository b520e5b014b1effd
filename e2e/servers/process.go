// Package servers runs real servers for tests: an image registry and a forward proxy. In go addresses; out come
// processes that answer, and what they logged. It is imported by tests alone, and imports nothing of this project,
// so that any package's tests may.
//
// A server ends with Close, or with the process that started it, however that ends; what a killed one left on disk is
// removed when the next one starts.
package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server with a folder of its own.
type process struct {
	name, dir string
	stop      func()
	ended     chan struct{}
	err       error // of a process that has ended
}

// newProcess makes the folder, in which the caller puts the server's configuration before run.
func newProcess(name string) (*process, error) {
	base := filepath.Join(os.TempDir(), "kubewright-servers")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	if err := sweep(base); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("%d-%s-", os.Getpid(), name))
	return &process{name: name, dir: dir}, err
}

// sweep removes the folders whose makers are gone.
func sweep(base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range entries {
		owner, _, _ := strings.Cut(e.Name(), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			err = os.RemoveAll(filepath.Join(base, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *process) file(name string) string { return filepath.Join(p.dir, name) }

// write makes a file that only the owner reads.
func (p *process) write(name, content string) error {
	return os.WriteFile(p.file(name), []byte(content), 0o600)
}

// run starts the server and waits until ready returns nil. A server that cannot be had leaves nothing.
func (p *process) run(ctx context.Context, ready func() error, argv ...string) error {
	logFile, err := os.OpenFile(p.file("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, logFile, logFile
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // a registry's options can be variables as well
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	p.ended = make(chan struct{})
	go func() {
		// The kernel means the death of the thread that forked, so it has to live as long as the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.stop = func() { cmd.Process.Kill() }
	return p.wait(ctx, ready)
}

// wait asks every 20 ms, and no longer than a minute.
func (p *process) wait(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %w: %s", p.name, p.err, bytes.TrimSpace([]byte(p.Log())))
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w, last seen: %w", p.name, context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log is what the server has logged so far, with a line for each request.
func (p *process) Log() string {
	b, _ := os.ReadFile(p.file("log")) // none: it has said nothing
	return string(b)
}

// Close ends the server and removes all that it wrote.
func (p *process) Close() error {
	if p.stop != nil {
		p.stop()
		<-p.ended
	}
	return os.RemoveAll(p.dir)
}
