package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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

func TestARemoteSaysWhatLocalSays(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		dir := t.TempDir()
		var paths []string
		for _, name := range []string{"plain", "with blanks  two", "it's", "a\nnewline", "ünï", `back\slash`, "-dash", "arrow -> b", "$HOME", "end\n", "\ttab", "'"} {
			put(t, filepath.Join(dir, name), name, 0o640)
			paths = append(paths, filepath.Join(dir, name))
			link := filepath.Join(dir, name+" link")
			if err := os.Symlink("to -> "+name, link); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, link)
		}
		for name, mode := range map[string]fs.FileMode{"setuid": 0o755 | fs.ModeSetuid, "sticky": 0o777 | fs.ModeSticky, "setgid": 0o644 | fs.ModeSetgid} {
			put(t, filepath.Join(dir, name), "", mode)
			paths = append(paths, filepath.Join(dir, name))
		}
		if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, "fifo"), dir, "/dev/null", "/proc/self/nothing", filepath.Join(dir, "absent"), filepath.Join(dir, "plain/below"))
		same(t, "stat", func(h Host) (any, error) { return h.Stat(t.Context(), paths...) }, r)

		files := slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
			fi, err := os.Lstat(p)
			return err == nil && !fi.Mode().IsRegular()
		})
		same(t, "digest", func(h Host) (any, error) { return h.Digest(t.Context(), files...) }, r)
		same(t, "list", func(h Host) (any, error) { return h.List(t.Context(), dir) }, r)
		for _, p := range append(files, dir) {
			same(t, "read "+p, func(h Host) (any, error) { return h.ReadFile(t.Context(), p) }, r)
		}
		empty := filepath.Join(dir, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			t.Fatal(err)
		}
		same(t, "list empty", func(h Host) (any, error) { return h.List(t.Context(), empty) }, r)
		same(t, "list a file", func(h Host) (any, error) { return h.List(t.Context(), files[0]) }, r)
		same(t, "digest a folder", func(h Host) (any, error) { return h.Digest(t.Context(), dir) }, r)
		same(t, "nothing", func(h Host) (any, error) { return h.Stat(t.Context()) }, r)
		same(t, "/proc", func(h Host) (any, error) { return h.ReadFile(t.Context(), "/proc/sys/kernel/hostname") }, r)
	})
}

// same checks that this machine gives one answer, whatever is between.
func same(t *testing.T, what string, ask func(Host) (any, error), r *Remote) {
	t.Helper()
	want, wanted := ask(Local{})
	got, err := ask(r)
	if (err == nil) != (wanted == nil) || errors.Is(err, fs.ErrNotExist) != errors.Is(wanted, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) != errors.Is(wanted, syscall.ENOTDIR) {
		t.Errorf("%s: %v instead of %v", what, err, wanted)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); wanted == nil && diff != "" {
		t.Errorf("%s\n%s", what, diff)
	}
}

func TestBytesAndWordsPassUnchanged(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		all := make([]byte, 3<<20)
		for i := range all {
			all[i] = byte(i * 7 >> 3)
		}
		path := filepath.Join(t.TempDir(), "binary")
		put(t, path, string(all), 0o600)
		if b, err := r.ReadFile(t.Context(), path); err != nil || !bytes.Equal(b, all) {
			t.Errorf("a file of all bytes: %d of them, %v", len(b), err)
		}
		out, err := r.Run(t.Context(), Command{Argv: []string{"sh", "-c", "cat | tee /dev/stderr"}, Stdin: bytes.NewReader(all)})
		if err != nil || !bytes.Equal(out.Stdout, all) || !bytes.Equal(out.Stderr, all) {
			t.Errorf("input: %d and %d bytes, %v", len(out.Stdout), len(out.Stderr), err)
		}
		words := []string{"", " ", "two words", "'", `"`, `\`, `\'`, "$HOME", "`id`", "*", "a\nb\n", "\n", "ü€", "-n", "'\\''", "\xff\xfe", "; exit 3"}
		for _, reads := range []bool{true, false} {
			out, err = r.Run(t.Context(), Command{Argv: append([]string{"printf", `%s\0`}, words...), Reads: reads})
			if diff := cmp.Diff(words, records(out.Stdout)); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		}
		// A command that leaves its input, and one that would read ours.
		for range 3 {
			if _, err := r.Run(t.Context(), Command{Argv: []string{"true"}, Stdin: bytes.NewReader(all)}); err != nil {
				t.Error(err)
			}
			if out, err := r.Run(t.Context(), Query("cat")); err != nil || len(out.Stdout) > 0 {
				t.Errorf("%q, %v", out.Stdout, err)
			}
		}
		if n := r.transport.(*beside).shells(); n != 1 {
			t.Errorf("one after the other needed %d shells", n)
		}
		if _, err := r.Run(t.Context(), Cmd("echo", "a\x00b")); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a NUL: %v", err)
		}
	})
}

func TestCommandsHaveTheirEnvironment(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		out, err := r.Run(t.Context(), Query("sh", "-c", `echo "$LC_ALL $PATH $KUBEWRIGHT_RUN"`))
		want := "C /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin " + r.run + "\n"
		if err != nil || string(out.Stdout) != want {
			t.Errorf("%q, %v", out.Stdout, err)
		}
		_, err = r.Run(t.Context(), Cmd("no-such-command"))
		if !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}

func TestAppendAddsAndIsPrivate(t *testing.T) { onEach(t, testAppendAddsAndIsPrivate) }

func testAppendAddsAndIsPrivate(t *testing.T, h Host) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a b", "journal")
	for _, line := range []string{"one\n", "", "two\x00\xff\n", strings.Repeat("long ", 100_000)} {
		if err := h.Append(t.Context(), path, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if got := text(t, path); got != "one\ntwo\x00\xff\n"+strings.Repeat("long ", 100_000) {
		t.Errorf("it has %d bytes", len(got))
	}
	if perm(t, path) != 0o600 || perm(t, filepath.Dir(path)) != 0o700 {
		t.Errorf("modes %o and %o", perm(t, path), perm(t, filepath.Dir(path)))
	}
	put(t, filepath.Join(dir, "file"), "", 0o600)
	for _, bad := range []string{filepath.Join(dir, "file", "below"), dir} {
		if err := h.Append(t.Context(), bad, make([]byte, 200_000)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if got, err := h.ReadFile(t.Context(), path); err != nil || len(got) != len(text(t, path)) {
		t.Errorf("after that: %v", err)
	}
}

func TestWhatIsAskedTogetherGoesTogether(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		dir := t.TempDir()
		var wait sync.WaitGroup
		for i := range 200 {
			path := filepath.Join(dir, fmt.Sprint(i))
			put(t, path, path, 0o600)
			wait.Go(func() {
				if out, err := r.Run(t.Context(), Query("echo", path)); err != nil || string(out.Stdout) != path+"\n" {
					t.Errorf("%q, %v", out.Stdout, err)
				}
				if b, err := r.ReadFile(t.Context(), path); err != nil || string(b) != path {
					t.Errorf("%q, %v", b, err)
				}
				if infos, err := r.Stat(t.Context(), path); err != nil || infos[path].Size != int64(len(path)) {
					t.Errorf("%v, %v", infos, err)
				}
				if err := r.Append(t.Context(), path, []byte(path)); err != nil {
					t.Error(err)
				}
				if got := text(t, path); got != path+path {
					t.Errorf("%q", got)
				}
			})
		}
		wait.Wait()
		if n := r.RoundTrips(); n > 200 {
			t.Errorf("%d round trips", n)
		}
		if n := r.transport.(*beside).shells(); n > 2 {
			t.Errorf("%d shells for reads alone", n)
		}
		t.Logf("%d round trips, %d shells", r.RoundTrips(), r.transport.(*beside).shells())
	})
}

func TestSlowWorkDoesNotHoldUpReads(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		slow := make(chan error, 2)
		go func() {
			_, err := r.Run(t.Context(), Query("cat", fifo))
			slow <- err
		}()
		go func() {
			_, err := r.Run(t.Context(), Cmd("cat", fifo))
			slow <- err
		}()
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // blocks until one of them runs
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := r.Stat(t.Context(), "/"); err != nil {
				t.Error(err)
			}
			if _, err := r.Run(t.Context(), Cmd("true")); err != nil {
				t.Error(err)
			}
			if _, err := r.WriteFiles(t.Context(), File{Path: fifo + "2", Content: Text("a")}); err != nil {
				t.Error(err)
			}
		}
		w.Close()
		<-slow
		if w, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			w.Close()
		}
		<-slow
	})
}

func TestWhatACommandLeavesRunningDoesNotDisturb(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		out, err := r.Run(t.Context(), Cmd("sh", "-c", "(sleep 0.2; echo late; echo late >&2) & echo early"))
		if err != nil || string(out.Stdout) != "early\nlate\n" || string(out.Stderr) != "late\n" {
			t.Errorf("%q, %q, %v", out.Stdout, out.Stderr, err)
		}
	})
}
