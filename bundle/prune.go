package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cached is a lock of the cache.
type Cached struct {
	Name string
	Lock Lock
	Used time.Time // last
}

// List returns the locks of the cache, the one that was used last first. A damaged one is removed.
func (c *Cache) List() ([]Cached, error) {
	files, err := os.ReadDir(filepath.Join(c.dir, locksDir))
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	var all []Cached
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".yaml")
		if !ok {
			continue
		}
		l, err := c.remembered(name)
		if errors.Is(err, fs.ErrNotExist) { // damaged: no use to anybody
			if err := os.Remove(c.lockFile(name)); err != nil && !errors.Is(err, fs.ErrPermission) {
				return nil, fmt.Errorf("cache: %w", err)
			}
			continue
		} else if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		info, err := f.Info()
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		all = append(all, Cached{name, l, info.ModTime()})
	}
	slices.SortFunc(all, func(x, y Cached) int { return cmp.Or(y.Used.Compare(x.Used), strings.Compare(x.Name, y.Name)) })
	return all, nil
}

// Whoever uses a lock may still be at it for so long, and whoever was cut short comes back.
const inUse = time.Hour

// Pruned is what was removed from the cache, or would be.
type Pruned struct {
	Locks []Cached
	Blobs int
	Bytes int64
}

// Prune removes all locks but the keep that were used last, and every blob that no lock names any
// more. What was used within the last hour stays, unless keep is 0. With dry it only says what it would do.
func (c *Cache) Prune(ctx context.Context, keep int, dry bool) (Pruned, error) {
	unlock, err := c.exclusive(ctx)
	if err != nil {
		return Pruned{}, err
	}
	defer unlock()
	all, err := c.List()
	if err != nil {
		return Pruned{}, err
	}
	var p Pruned
	recently := time.Now().Add(-inUse)
	if keep == 0 {
		recently = time.Now().Add(time.Hour)
	}
	named := map[string]bool{}
	for i, l := range all {
		if i >= keep && l.Used.Before(recently) {
			p.Locks = append(p.Locks, l)
			continue
		}
		for _, a := range l.Lock.Artifacts {
			named[a.Digest] = true
			blobs, _ := c.Bundle(l.Lock, nil).blobs(a) // of a manifest that is not here, nothing is
			for _, b := range blobs {
				named[b.digest] = true
			}
		}
	}
	// Blobs go last: a lock without its blobs is fetched again, a blob without a lock is pruned again.
	for _, l := range p.Locks {
		if err := remove(c.lockFile(l.Name), dry); err != nil {
			return p, fmt.Errorf("prune: %w", err)
		}
	}
	files, err := os.ReadDir(filepath.Join(c.dir, blobsDir))
	if err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return p, fmt.Errorf("prune: %w", err)
		}
		if named["sha256:"+f.Name()] || info.ModTime().After(recently) {
			continue
		}
		if err := remove(filepath.Join(c.dir, blobsDir, f.Name()), dry); err != nil {
			return p, fmt.Errorf("prune: %w", err)
		}
		p.Blobs++
		p.Bytes += info.Size()
	}
	return p, nil
}

func remove(path string, dry bool) error {
	if dry {
		return nil
	}
	return os.Remove(path)
}
