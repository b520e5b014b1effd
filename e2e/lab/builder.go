package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Builder makes what a lab needs, once, and keeps it in the cache.
type Builder struct {
	source string // the repository
	cache  string
	log    func(format string, args ...any)
}

// NewBuilder returns a builder of the repository that the working folder is in. It logs to log, if not nil,
// a line when something that takes long begins and one when it is done.
func NewBuilder(log func(format string, args ...any)) (*Builder, error) {
	if log == nil {
		log = func(string, ...any) {}
	}
	source, err := repository()
	if err != nil {
		return nil, err
	}
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	return &Builder{source: source, cache: cache, log: log}, nil
}

// Cache is the folder where everything built is kept: kubewright/lab in $KUBEWRIGHT_CACHE, else in the user's
// cache folder. It may be deleted at any time when no lab runs.
func Cache() (string, error) {
	dir := os.Getenv("KUBEWRIGHT_CACHE")
	if dir == "" {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("find a cache folder (set KUBEWRIGHT_CACHE): %w", err)
		}
	}
	return filepath.Abs(filepath.Join(dir, "kubewright", "lab"))
}

// repository finds the sources from the working folder: nested modules cannot be embedded in a binary.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/kubewright/kubewright\n")) {
			return dir, nil
		}
	}
	return "", errors.New("the lab builds from Kubewright's sources: run it inside the repository")
}

// make returns the folder of the thing of that kind and key. If the cache lacks it, build makes it in a folder
// beside, which gets its name only when it is whole. Processes that want the same thing wait for each other.
func (b *Builder) make(ctx context.Context, kind, what, key string, build func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(b.cache, kind, key)
	if used(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for another process that makes %s: %w", what, err)
	}
	defer unlock()
	if used(dir) {
		return dir, nil
	}
	b.log("making %s", what)
	began := time.Now()
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, tmp); err != nil {
		return "", fmt.Errorf("make %s: %w", what, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	b.log("made   %s in %s", what, time.Since(began).Round(100*time.Millisecond))
	prune(filepath.Dir(dir), keepUnused, time.Now().Add(-time.Hour))
	return dir, nil
}

// So many things of a kind are kept: somebody goes back to an older commit, or two checkouts share the cache.
const keepUnused = 5

// used says whether dir is there, and notes the time of use for prune.
func used(dir string) bool {
	now := time.Now()
	return os.Chtimes(dir, now, now) == nil
}

// prune deletes all things of a kind but the n used last, as far as it can: the next one tries again. What was used
// after the limit may be in use now.
func prune(kind string, n int, limit time.Time) {
	entries, _ := os.ReadDir(kind)
	when := map[string]time.Time{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.IsDir() {
			when[e.Name()], names = info.ModTime(), append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return when[b].Compare(when[a]) })
	for i, name := range names {
		if i >= n && when[name].Before(limit) {
			os.RemoveAll(filepath.Join(kind, name))
		}
	}
}

// key is the hash of the parts; ("ab", "c") is not ("a", "bc").
func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// treeKey is the hash of all files below dir that keep says yes to, with their paths.
func treeKey(dir string, keep func(path string) bool) (string, error) {
	var parts []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !keep(path) {
			return err
		}
		content, err := os.ReadFile(path)
		parts = append(parts, strings.TrimPrefix(path, dir), string(content))
		return err
	})
	return key(parts...), err
}

// lock waits for an exclusive lock on the file, which the kernel gives back when a process dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// poll calls f every 50 ms until it returns nil, and returns its last error when the context ends.
func poll(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, last seen: %w", context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// run runs a command; the error holds the end of what it printed.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return commandError(cmd, err, out)
	}
	return nil
}

func commandError(cmd *exec.Cmd, err error, output []byte) error {
	const most = 4 << 10
	output = bytes.TrimSpace(output)
	if len(output) > most {
		output = append([]byte("... "), output[len(output)-most:]...)
	}
	return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, output)
}
