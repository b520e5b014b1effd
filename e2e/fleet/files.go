package fleet

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
)

// file is a file, a folder or a link of a simulated host. It is never changed: another takes its place.
type file struct {
	mode    fs.FileMode
	content []byte
	link    string
	inode   uint64
	changed time.Time
}

// files are those of one host: its own over those that all hosts have.
type files struct {
	base map[string]*file
	own  map[string]*file // nil: removed
	last uint64           // inode
}

func (f *files) get(p string) (*file, bool) {
	if x, ok := f.own[p]; ok {
		return x, x != nil
	}
	x, ok := f.base[p]
	return x, ok
}

// follow is get of what a link leads to.
func (f *files) follow(p string) (*file, bool) {
	x, ok := f.get(p)
	for range 8 {
		if !ok || x.link == "" {
			break
		}
		to := x.link
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(p), to)
		}
		p = to
		x, ok = f.get(p)
	}
	return x, ok
}

// put makes a file, and the folders above it.
func (f *files) put(p string, x file) {
	if dir := path.Dir(p); dir != p {
		if _, ok := f.follow(dir); !ok {
			f.put(dir, file{mode: fs.ModeDir | 0o755})
		}
	}
	f.last++
	x.inode, x.changed = f.last, time.Now()
	f.own[p] = &x
}

func (f *files) remove(p string) {
	for _, q := range f.below(p) {
		f.own[p+"/"+q] = nil
	}
	f.own[p] = nil
}

// below are all paths below a folder, relative to it, sorted.
func (f *files) below(dir string) (all []string) {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	seen := map[string]bool{}
	for _, layer := range []map[string]*file{f.own, f.base} {
		for p := range layer {
			if rest, ok := strings.CutPrefix(p, prefix); ok && rest != "" {
				if _, there := f.get(p); there {
					seen[rest] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// interned are the contents that hosts have in common: a thousand have the same binaries.
var interned sync.Map

// intern gives the one copy of a content, and its digest.
func intern(b []byte) ([]byte, string) {
	digest := host.Digest(b)
	one, _ := interned.LoadOrStore(digest, b)
	return one.([]byte), digest
}

// kernelMode is a mode in the kernel's bits.
func kernelMode(m fs.FileMode) uint32 {
	raw := uint32(m.Perm())
	switch {
	case m.IsDir():
		return raw | 0o040000
	case m&fs.ModeSymlink != 0:
		return raw | 0o120000
	case m&fs.ModeSocket != 0:
		return raw | 0o140000
	}
	return raw | 0o100000
}
