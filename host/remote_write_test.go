package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestManyFilesAreWrittenInOrder(t *testing.T) { onEach(t, testManyFilesAreWrittenInOrder) }

func testManyFilesAreWrittenInOrder(t *testing.T, h Host) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("old"), "old", 0o644)
	put(t, at("same"), "same", 0o644)
	put(t, at("mode"), "mode", 0o644)
	put(t, at("full/file"), "x", 0o644)
	long := strings.Repeat("long/", 60) + "it's a\nfile"
	files := []File{
		{Path: at("private"), Dir: true, Mode: 0o700},
		{Path: at("private/key"), Content: Text("secret"), Mode: 0o600, Secret: true},
		{Path: at("old"), Content: Text("new"), Mode: 0o640},
		{Path: at("same"), Content: Text("same")},
		{Path: at("mode"), Content: Text("mode"), Mode: 0o755},
		{Path: at("link"), Link: "private/key"},
		{Path: at("deep/er/link"), Link: "/nowhere"},
		{Path: at("full/file"), Absent: true},
		{Path: at("full"), Absent: true},
		{Path: at("full"), Content: Text("a file now")},
		{Path: at(long), Content: Text("")},
		{Path: at("old"), Content: Text("newer")},
		{Path: at("given"), Content: Text("given"), Owner: "12:34"},
	}
	changes, err := h.WriteFiles(t.Context(), files...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("create create update mode create create delete delete create create update create", strings.Join(actions(changes), " ")); diff != "" {
		t.Error(diff)
	}
	if perm(t, at("private")) != 0o700 || perm(t, at("private/key")) != 0o600 || perm(t, at("old")) != 0o644 || perm(t, at("mode")) != 0o755 || perm(t, at("deep")) != 0o755 {
		t.Error("modes are wrong")
	}
	if text(t, at("full")) != "a file now" || text(t, at("old")) != "newer" || text(t, at("link")) != "secret" || text(t, at(long)) != "" {
		t.Error("contents are wrong")
	}
	infos, err := h.Stat(t.Context(), at("given"), at("old"))
	if err != nil || infos[at("given")].Owner != "12:34" || infos[at("old")].Owner != "0:0" {
		t.Errorf("%v, %v", infos, err)
	}
	noStrangers(t, dir, "private", "old", "same", "mode", "link", "deep", "full", "long", "given")
}

func TestAStepThatFailsEndsTheOrder(t *testing.T) { onEach(t, testAStepThatFailsEndsTheOrder) }

func testAStepThatFailsEndsTheOrder(t *testing.T, h Host) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("full/file"), "x", 0o644)
	changes, err := h.WriteFiles(t.Context(), File{Path: at("a"), Content: Text("a")}, File{Path: at("full"), Absent: true}, File{Path: at("b"), Content: Text("b")})
	if err == nil || !strings.HasPrefix(err.Error(), "write "+at("full")+": ") || !strings.HasSuffix(strings.ToLower(err.Error()), "directory not empty") {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff([]Change{{at("a"), "create"}}, changes); diff != "" {
		t.Error(diff)
	}
	noStrangers(t, dir, "a", "full")
}

func TestWhatAKilledRunLeftIsReplaced(t *testing.T) { onEach(t, testWhatAKilledRunLeftIsReplaced) }

func testWhatAKilledRunLeftIsReplaced(t *testing.T, h Host) {
	for name, leave := range map[string]func(path string) error{
		"file":   func(p string) error { return os.WriteFile(p, []byte("half of it, and longer"), 0o600) },
		"link":   func(p string) error { return os.Symlink("/etc/hostname", p) },
		"folder": func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) },
	} {
		for _, f := range []File{{Content: Text("a")}, {Link: "target"}} {
			f.Path = filepath.Join(t.TempDir(), "f")
			if err := leave(Temporary(f.Path)); err != nil {
				t.Fatal(err)
			}
			if _, err := h.WriteFiles(t.Context(), f); err != nil {
				t.Errorf("a %s: %v", name, err)
			}
			noStrangers(t, filepath.Dir(f.Path), "f")
		}
	}
}

func TestAFullDiskSaysWhatItNeeds(t *testing.T) { onEach(t, testAFullDiskSaysWhatItNeeds) }

func testAFullDiskSaysWhatItNeeds(t *testing.T, h Host) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	put(t, large, "what was there", 0o644)
	source := zeros(8 << 20)
	_, err := h.WriteFiles(t.Context(), File{Path: small, Content: Text("a")}, File{Path: large, Content: source})
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "write "+large+": ") || !strings.Contains(err.Error(), "the file has 8388608 bytes: make room") {
		t.Errorf("%v", err)
	}
	if text(t, large) != "what was there" {
		t.Error("the old file is gone")
	}
	noStrangers(t, dir, "small", "large")
	if _, err := h.WriteFiles(t.Context(), File{Path: large, Content: Text("fits")}); err != nil || text(t, large) != "fits" {
		t.Errorf("after that: %v", err)
	}
}

// zeros is so many bytes that are nowhere.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }
func (z zeros) Digest() string {
	r, _ := z.Open()
	d, _ := digestOf(r)
	return d
}
func (z zeros) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(zero{}, int64(z))), nil
}

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestLargeFilesAreNotHeldInMemory(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		source := zeros(300 << 20)
		var most uint64
		path := filepath.Join(t.TempDir(), "large")
		measured := measuring{source, func() {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}, source.Digest()}
		start := time.Now()
		if _, err := r.WriteFiles(t.Context(), File{Path: path, Content: measured}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f MB/s", 300/time.Since(start).Seconds())
		if fi, err := os.Stat(path); err != nil || fi.Size() != source.Size() {
			t.Errorf("%v, %v", fi, err)
		}
		if most > 32<<20 {
			t.Errorf("%d MB of heap", most>>20)
		}
	})
}

type measuring struct {
	Source
	look   func()
	digest string
}

func (m measuring) Digest() string { return m.digest }

func (m measuring) Open() (io.ReadCloser, error) {
	r, err := m.Source.Open()
	return struct {
		io.Reader
		io.Closer
	}{&looking{r, m.look, 0}, r}, err
}

type looking struct {
	io.Reader
	look func()
	n    int
}

func (l *looking) Read(b []byte) (int, error) {
	if l.n++; l.n%100 == 0 {
		l.look()
	}
	return l.Reader.Read(b)
}

func TestASourceThatLiesIsNamed(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		dir := t.TempDir()
		a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
		put(t, b, "what was there", 0o644)
		lie := measuring{Text("bb"), func() {}, Digest([]byte("other"))}
		changes, err := r.WriteFiles(t.Context(), File{Path: a, Content: Text("a")}, File{Path: b, Content: lie}, File{Path: c, Content: Text("c")})
		if err == nil || err.Error() != "write "+b+": the source holds "+Digest([]byte("bb"))+" instead of "+Digest([]byte("other")) {
			t.Errorf("%v", err)
		}
		if diff := cmp.Diff([]Change{{a, "create"}}, changes); diff != "" || text(t, b) != "what was there" {
			t.Error(diff)
		}
		// All that it says is there, and more: only the sender can know.
		long := measuring{zeros(1<<20 + 1), func() {}, zeros(1 << 20).Digest()}
		_, err = r.WriteFiles(t.Context(), File{Path: b, Content: sized{long, 1 << 20}})
		if err == nil || !strings.HasSuffix(err.Error(), "1048577 bytes instead of 1048576: the source was cut short") || text(t, b) != "what was there" {
			t.Errorf("%v", err)
		}
		noStrangers(t, dir, "a", "b")
	})
}

type sized struct {
	Source
	size int64
}

func (s sized) Size() int64 { return s.size }

// stalling is a source that gives half, says so, and then waits until it is over.
type stalling struct {
	half chan struct{}
	over <-chan struct{}
}

func (s stalling) Size() int64    { return 4 << 20 }
func (s stalling) Digest() string { return zeros(4 << 20).Digest() }
func (s stalling) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(io.LimitReader(zero{}, 2<<20), waiting(s))), nil
}

type waiting stalling

func (w waiting) Read([]byte) (int, error) {
	close(w.half)
	<-w.over
	return 0, errors.New("over")
}

func TestAnUploadThatIsCancelledLeavesNothing(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		dir := t.TempDir()
		old := filepath.Join(dir, "old")
		put(t, old, "what was there", 0o644)
		s := stalling{make(chan struct{}), ctx.Done()}
		go func() {
			<-s.half
			cancel()
		}()
		changes, err := r.WriteFiles(ctx, File{Path: old, Content: s}, File{Path: old + "2", Content: Text("x")})
		if !errors.Is(err, context.Canceled) || changes != nil || text(t, old) != "what was there" {
			t.Errorf("%v, %v", changes, err)
		}
		noStrangers(t, dir, "old")
	})
}

func TestAnUploadThatIsCutLeavesNothing(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		dir := t.TempDir()
		old := filepath.Join(dir, "old")
		put(t, old, "what was there", 0o644)
		over := make(chan struct{})
		s := stalling{make(chan struct{}), over}
		go func() {
			<-s.half
			fi, err := os.Lstat(Temporary(old))
			if err == nil && fi.Mode().Perm()&0o077 != 0 {
				err = fmt.Errorf("mode %o", fi.Mode().Perm())
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("while it is written: %v", err)
			}
			r.transport.Close() // returns when the shells there have ended
			close(over)
		}()
		changes, err := r.WriteFiles(t.Context(), File{Path: old, Content: s, Mode: 0o600, Secret: true})
		if err == nil || changes != nil || text(t, old) != "what was there" {
			t.Errorf("%v, %v", changes, err)
		}
		noStrangers(t, dir, "old")
	})
}

func TestRunEndsWithAllThatItStarted(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		for _, reads := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			dir := t.TempDir()
			fifo := filepath.Join(dir, "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() {
				_, err := r.Run(ctx, Command{Argv: []string{"sh", "-c", "sleep 600 & sh -c 'sleep 600; :' & echo $$ >" + fifo + "; wait"}, Reads: reads})
				failed <- err
			}()
			pid := strings.TrimSpace(text(t, fifo))
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) || err.Error() != "sh: context canceled" {
				t.Errorf("%v", err)
			}
			environs, _ := filepath.Glob("/proc/[0-9]*/environ")
			for _, e := range environs {
				if b, _ := os.ReadFile(e); strings.Contains(string(b), "KUBEWRIGHT_REQUEST="+r.run) {
					t.Errorf("%s still runs, %s was the first", e, pid)
				}
			}
			if out, err := r.Run(t.Context(), Query("echo", "on")); err != nil || string(out.Stdout) != "on\n" {
				t.Errorf("after that: %q, %v", out.Stdout, err)
			}
		}
	})
}

func TestParentsDoNotHaveTheUmaskOfTheShell(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	onRemotes(t, func(t *testing.T, r *Remote) {
		for i, f := range []File{{Content: Text("a")}, {Link: "x"}, {Dir: true}} {
			dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
			f.Path = filepath.Join(dir, "f")
			if _, err := r.WriteFiles(t.Context(), f); err != nil || perm(t, dir) != 0o755 {
				t.Errorf("mode %o, %v", perm(t, dir), err)
			}
		}
	})
}
