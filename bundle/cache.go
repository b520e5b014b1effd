package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// Cache is a folder of blobs that many bundles share, and of their locks. It is never
// trusted: what is read from it is checked against a lock, as with any bundle.
type Cache struct{ dir string }

const (
	locksDir  = "locks" // NAME.yaml; the time of a file is that of its last use
	cacheLock = ".lock"
)

// CacheDir is where the cache is unless the user says otherwise: /var/cache/kubewright for
// root, else as the system has it for users.
func CacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/kubewright", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: name a folder with --cache-dir", err)
	}
	return filepath.Join(dir, "kubewright", "artifacts"), nil
}

// OpenCache makes the folder if it is not there.
func OpenCache(dir string) (*Cache, error) {
	for _, d := range []string{locksDir, blobsDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("cache: %w: name another folder with --cache-dir", err)
		}
	}
	return &Cache{dir}, nil
}

// exclusive keeps other processes from changing the cache until unlock is called.
func (c *Cache) exclusive(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, cacheLock), os.O_RDWR|os.O_CREATE, 0o600) // who can open it can hold it
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			if err := removeNew(c.dir); err != nil {
				f.Close()
				return nil, fmt.Errorf("cache: %w", err)
			}
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another run changes the cache %s: %w", c.dir, ctx.Err())
		}
	}
}

// lockFile of a name, which must be a file name's.
func (c *Cache) lockFile(name string) string { return filepath.Join(c.dir, locksDir, name+".yaml") }

// remembered returns a lock that was kept; fs.ErrNotExist where there is none, or a damaged one.
func (c *Cache) remembered(name string) (Lock, error) {
	data, err := os.ReadFile(c.lockFile(name))
	if err != nil {
		return Lock{}, err
	}
	l, err := ParseLock(data)
	if err != nil {
		return Lock{}, fmt.Errorf("%s: %w: %w", c.lockFile(name), err, fs.ErrNotExist)
	}
	return l, nil
}

// keepLock remembers a lock; one that is there already is only marked as used.
func (c *Cache) keepLock(name string, l Lock) error {
	if have, err := c.remembered(name); err == nil && have.Digest() == l.Digest() {
		now := time.Now()
		return os.Chtimes(c.lockFile(name), now, now)
	}
	return renameio.WriteFile(c.lockFile(name), l.Bytes(), 0o644)
}

// Bundle is a lock whose blobs are in the cache, or come there when they are needed. Remote
// may be nil.
func (c *Cache) Bundle(l Lock, r *Remote) *Bundle {
	return &Bundle{dir: c.dir, lock: l, cache: c, remote: r, room: newRoom()}
}

// digestName is the name of a lock that was not made here.
func digestName(l Lock) string { return strings.Replace(l.Digest(), ":", "-", 1) }

// has tells that a blob is there, by its size; its bytes are checked when they are read.
func has(dir string, b blob) bool {
	info, err := os.Stat(blobPath(dir, b.digest))
	return err == nil && (b.size == unknown || info.Size() == b.size)
}
