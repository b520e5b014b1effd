package bundle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kubewright/kubewright/host"
)

// Wish is what a lock has to hold.
type Wish struct {
	Kubernetes string            // v1.36.3
	Versions   map[string]string // of the files that are not Kubernetes' own; empty: those of the catalogue
	Images     []string          // full references
	Documents  []Document        `json:",omitempty"`
	Platforms  []string          // linux/amd64
}

// Resolve makes the lock of a wish, or returns the one that was made for the same wish before:
// what a name means is asked once, and then held to. Files come into the cache on the way,
// and the manifests of images; see [Bundle.Fetch] for the rest.
func (c *Cache) Resolve(ctx context.Context, w Wish, catalogue *Catalogue, r *Remote, moved Moved) (Lock, error) {
	w = w.sorted()
	downloads, err := w.downloads(catalogue)
	if err != nil {
		return Lock{}, err
	}
	name := wishName(w, downloads, r)
	if l, err := c.known(name); !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	unlock, err := c.exclusive(ctx)
	if err != nil {
		return Lock{}, err
	}
	defer unlock()
	// Another run may have made it while we waited.
	if l, err := c.known(name); !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	if moved == nil {
		moved = func(string, int64, int64) {}
	}
	x := &resolver{remote: r, dir: c.dir, moved: moved}
	x.lock = Lock{APIVersion: APIVersion, Kind: Kind, Origin: Upstream}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, d := range downloads {
		g.Go(func() error { return x.file(gctx, d) })
	}
	for _, p := range w.Platforms {
		for _, image := range w.Images {
			g.Go(func() error { return x.image(gctx, image, p) })
		}
	}
	if err := g.Wait(); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("the cache %s is full: make room (`kubewright bundle prune` removes old versions), or name another folder with --cache-dir; what was downloaded stays, and the next run goes on from there: %w", c.dir, err)
		}
		return Lock{}, err
	}
	// In one order, whoever was first.
	l, err := ParseLock(x.lock.Bytes())
	if err != nil {
		return Lock{}, err
	}
	return l, c.keepLock(name, l)
}

// known is a lock that was made before, which is used now; fs.ErrNotExist where there is none.
func (c *Cache) known(name string) (Lock, error) {
	l, err := c.remembered(name)
	if err != nil {
		return Lock{}, err
	}
	return l, c.keepLock(name, l)
}

// sorted has each thing once, so that the same wish is the same however it is written.
func (w Wish) sorted() Wish {
	w.Images = slices.Compact(slices.Sorted(slices.Values(w.Images)))
	w.Platforms = slices.Compact(slices.Sorted(slices.Values(w.Platforms)))
	return w
}

// Validate reports what a catalogue does not hold of a wish, and images without full references.
func (w Wish) Validate(catalogue *Catalogue) error {
	for _, image := range w.Images {
		if _, err := name.ParseReference(image, name.StrictValidation); err != nil {
			return fmt.Errorf("image %w: write a full reference such as registry.k8s.io/pause:3.10.2", err)
		}
	}
	_, err := w.downloads(catalogue)
	return err
}

func (w Wish) downloads(catalogue *Catalogue) ([]Download, error) {
	var all []Download
	for _, p := range w.Platforms {
		d, err := catalogue.Downloads(w.Kubernetes, p, w.Versions)
		if err != nil {
			return nil, err
		}
		all = append(all, d...)
		for _, document := range w.Documents {
			d, err := catalogue.Document(document, p)
			if err != nil {
				return nil, err
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// Adopt takes over a lock that was made elsewhere, a cluster's, say.
func (c *Cache) Adopt(l Lock, r *Remote) (*Bundle, error) {
	return c.Bundle(l, r), c.keepLock(digestName(l), l)
}

// Lock is that of the bundle which a mirror has: a folder that a web server serves.
func (r *Remote) Lock(ctx context.Context) (Lock, error) {
	at := r.mirror + "/" + lockName
	data, err := r.get(ctx, at, maxLock)
	if err != nil {
		return Lock{}, fmt.Errorf("%s: %w: is a bundle served there?", at, err)
	}
	l, err := ParseLock(data)
	if err != nil {
		return Lock{}, fmt.Errorf("%s: %w", at, err)
	}
	return l, nil
}

// wishName is the same for the same wish from the same catalogue. What was said without TLS is not
// taken for what was said with it.
func wishName(w Wish, downloads []Download, r *Remote) string {
	data, err := json.Marshal([]any{w, downloads, r.insecure()})
	if err != nil {
		panic(err) // strings always marshal
	}
	return w.Kubernetes + "-" + strings.TrimPrefix(host.Digest(data), "sha256:")[:16]
}

// resolver is one call of Resolve.
type resolver struct {
	remote *Remote
	dir    string
	moved  Moved

	mu   sync.Mutex
	lock Lock
}

func (x *resolver) add(a Artifact) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lock.Artifacts = append(x.lock.Artifacts, a)
}

func (x *resolver) image(ctx context.Context, image, platform string) error {
	found, err := x.remote.resolve(ctx, image, platform)
	if err != nil {
		return err
	}
	if _, err := writeBlob(ctx, x.dir, bytes.NewReader(found.raw), blob{found.digest, int64(len(found.raw))}); err != nil {
		return err
	}
	a := Artifact{Name: image, Type: Image, Platform: platform, Digest: found.digest, Size: found.size}
	a.Verified = ByHTTP
	if found.secure {
		a.Verified = ByTLS
	}
	x.add(a)
	return nil
}

func (x *resolver) file(ctx context.Context, d Download) (err error) {
	defer func() {
		if err != nil {
			err = x.remote.hint(fmt.Errorf("%s %s: %w", d.Name, d.Version, err), "")
		}
	}()
	digest, verified := d.Digest, []string{ByCatalogue}
	if d.ByDocument {
		verified = []string{ByDocument}
	}
	if digest == "" {
		if digest, err = x.sum(ctx, d); err != nil {
			return err
		}
		verified = []string{ByTLS}
	}
	if signed, err := x.remote.signed(ctx, d, digest); err != nil {
		return err
	} else if signed {
		verified = append(verified, BySignature)
	}
	a := Artifact{Name: d.Name, Type: cmp.Or(d.Type, File), Version: d.Version, Platform: d.Platform, Verified: strings.Join(verified, ",")}
	if d.Members == nil {
		if a.Digest = digest; isURL(d.URL) {
			a.Source = &Source{URL: d.URL}
		}
		if a.Size, err = x.whole(ctx, d, digest); err == nil {
			x.add(a)
		}
		return err
	}
	wanted := map[string]blob{} // the archive is the right one, and so is what is in it
	for member := range d.Members {
		wanted[member] = blob{}
	}
	found, err := x.remote.members(ctx, x.dir, d.URL, digest, wanted, func(done, total int64) {
		x.moved(path.Base(d.URL), done, total)
	})
	if err != nil {
		return err
	}
	for member, name := range d.Members {
		b, ok := found[member]
		if !ok {
			return fmt.Errorf("the archive %s has no %s", d.URL, member)
		}
		a.Name, a.Digest, a.Size = name, b.digest, b.size
		a.Source = &Source{URL: d.URL, Archive: digest, Member: member}
		x.add(a)
	}
	return nil
}

// whole brings a file that is an artifact itself, and returns its size.
func (x *resolver) whole(ctx context.Context, d Download, digest string) (int64, error) {
	if n, err := sizeOf(ctx, x.dir, digest); err == nil {
		return n, nil
	}
	if !isURL(d.URL) {
		return x.local(ctx, d, digest)
	}
	from, err := x.remote.fileLocations(digest, d.URL)
	if err != nil {
		return 0, err
	}
	err = x.remote.bring(ctx, x.dir, blob{digest, unknown}, from, func(done, total int64) { x.moved(d.Name, done, total) })
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(blobPath(x.dir, digest)) // its bytes have just been checked
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
