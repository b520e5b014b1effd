package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Moved hears how many bytes of an item are here, of all of them; total is less than 1 where
// nobody knows. It is called by several goroutines.
type Moved func(item string, done, total int64)

// Fetch brings what the bundle's cache lacks of some artifacts, several at a time, and returns
// how many of them it lacked. A bundle that was given whole lacks nothing. What was fetched
// before an error stays, and the next call goes on from there.
func (b *Bundle) Fetch(ctx context.Context, artifacts []Artifact, moved Moved) (fetched int, err error) {
	if b.remote == nil {
		return 0, nil
	}
	unlock, err := b.cache.exclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if moved == nil {
		moved = func(string, int64, int64) {}
	}
	f := &fetch{bundle: b, moved: moved, archives: map[string][]Artifact{}}
	if err := f.look(ctx, artifacts); err != nil {
		return 0, err
	}
	if err := f.space(); err != nil {
		return 0, err
	}
	err = f.run(ctx)
	if err != nil && b.lock.Origin == Built {
		err = fmt.Errorf("%w\nthe lock is that of a bundle that somebody built, and so may be nowhere but there: pass it with --bundle", err)
	}
	return f.lacking, err
}

// fetch is one call of Fetch.
type fetch struct {
	bundle   *Bundle
	moved    Moved
	files    []Artifact
	archives map[string][]Artifact // members that are lacking, by the archive's digest
	layers   []layer
	lacking  int
	bytes    int64 // that are lacking, as far as is known
}

// layer is a blob of an image; its config is one too.
type layer struct {
	blob
	image Artifact
	done  *atomic.Int64 // bytes of the image
}

// look finds what is lacking. Manifests are brought at once: they name the rest.
func (f *fetch) look(ctx context.Context, artifacts []Artifact) error {
	dir := f.bundle.dir
	manifests := make([]*v1.Manifest, len(artifacts))
	new := make([]bool, len(artifacts))
	first := map[string]int{} // by digest: two names may mean the same
	for i, a := range artifacts {
		if _, ok := first[a.Digest]; !ok {
			first[a.Digest] = i
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, a := range artifacts {
		if a.Type != Image || first[a.Digest] != i {
			continue
		}
		g.Go(func() (err error) {
			if _, manifests[i], err = f.bundle.manifest(a); err == nil {
				return nil
			}
			new[i] = true
			if err := f.manifest(gctx, a); err != nil {
				return f.bundle.remote.hint(fmt.Errorf("image %s: %w", a, err), a.Name)
			}
			_, manifests[i], err = f.bundle.manifest(a)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, a := range artifacts {
		blobs := []blob{{a.Digest, a.Size}}
		if a.Type == Image {
			blobs = imageBlobs(manifests[first[a.Digest]])
		}
		lacking, done := new[i], &atomic.Int64{}
		if a.Type == Image {
			done.Store(a.Size - sizeOfAll(blobs)) // its manifest is here
		}
		for _, x := range blobs {
			if seen[x.digest] || checkBlob(ctx, dir, x, nil) == nil {
				done.Add(x.size)
				continue
			}
			seen[x.digest] = true
			lacking = true
			f.bytes += x.size - partOf(dir, x.digest)
			switch {
			case a.Type == Image:
				f.layers = append(f.layers, layer{x, a, done})
			case a.Source != nil && a.Source.Archive != "":
				f.archives[a.Source.Archive] = append(f.archives[a.Source.Archive], a)
			default:
				f.files = append(f.files, a)
			}
		}
		if lacking {
			f.lacking++
		}
	}
	return nil
}

// partOf a blob that is here already.
func partOf(dir, digest string) int64 {
	info, err := os.Stat(partialPath(dir, digest))
	if err != nil {
		return 0
	}
	return info.Size()
}

func sizeOfAll(blobs []blob) (n int64) {
	for _, x := range blobs {
		n += x.size
	}
	return n
}

// space refuses to begin what cannot end.
func (f *fetch) space() error {
	var s unix.Statfs_t
	if err := unix.Statfs(f.bundle.dir, &s); err != nil {
		return fmt.Errorf("statfs %s: %w", f.bundle.dir, err)
	}
	if free := int64(s.Bavail) * int64(s.Bsize); free < f.bytes {
		return noSpace(f.bundle.dir, f.bytes, free)
	}
	return nil
}

func noSpace(dir string, need, free int64) error {
	return fmt.Errorf("%s must take another %s and has room for %s: make room (`kubewright bundle prune --cache-dir %s` removes old versions), or name another folder with --cache-dir; what was downloaded stays, and the next run goes on from there: %w",
		dir, mebibytes(need), mebibytes(free), dir, unix.ENOSPC)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(max(n, 0))/(1<<20)) }

func (f *fetch) run(ctx context.Context) error {
	var came atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, a := range f.files {
		g.Go(func() error { return f.file(ctx, a, &came) })
	}
	for _, members := range f.archives {
		g.Go(func() error { return f.archive(ctx, members, &came) })
	}
	for _, l := range f.layers {
		g.Go(func() error { return f.layer(ctx, l, &came) })
	}
	err := g.Wait()
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: %w", noSpace(f.bundle.dir, f.bytes-came.Load(), 0), err)
	}
	return err
}

func (f *fetch) manifest(ctx context.Context, a Artifact) error {
	from, err := f.bundle.remote.imageLocations(a.Name, a.Digest, true)
	if err != nil {
		return err
	}
	return f.bundle.remote.bring(ctx, f.bundle.dir, blob{a.Digest, unknown}, from, nil)
}

func (f *fetch) layer(ctx context.Context, l layer, came *atomic.Int64) error {
	from, err := f.bundle.remote.imageLocations(l.image.Name, l.digest, false)
	if err != nil {
		return err
	}
	err = f.bundle.remote.bring(ctx, f.bundle.dir, l.blob, from, f.step(came, func(n, _ int64) {
		f.moved(l.image.Name, l.done.Add(n), l.image.Size)
	}))
	if err != nil {
		return f.bundle.remote.hint(fmt.Errorf("image %s: %w", l.image, err), l.image.Name)
	}
	return nil
}

func (f *fetch) file(ctx context.Context, a Artifact, came *atomic.Int64) error {
	url := ""
	if a.Source != nil {
		url = a.Source.URL
	}
	from, err := f.bundle.remote.fileLocations(a.Digest, url)
	if err != nil {
		return err
	}
	err = f.bundle.remote.bring(ctx, f.bundle.dir, blob{a.Digest, a.Size}, from, f.step(came, func(_, done int64) {
		f.moved(a.Name, done, a.Size)
	}))
	if err != nil {
		return f.bundle.remote.hint(fmt.Errorf("%s: %w", a, err), "")
	}
	return nil
}

// archive brings members of an archive: each from a mirror that has it, else all with the archive.
func (f *fetch) archive(ctx context.Context, members []Artifact, came *atomic.Int64) error {
	r, dir := f.bundle.remote, f.bundle.dir
	rest := map[string]blob{}
	for _, a := range members {
		from, err := r.fileLocations(a.Digest, "")
		if err != nil {
			return err
		}
		if len(from) > 0 {
			err := r.bring(ctx, dir, blob{a.Digest, a.Size}, from, f.step(came, func(_, done int64) { f.moved(a.Name, done, a.Size) }))
			if err == nil {
				continue
			} else if !errors.Is(err, errNowhere) {
				return fmt.Errorf("%s: %w", a, err)
			}
		}
		rest[a.Source.Member] = blob{a.Digest, a.Size}
	}
	if len(rest) == 0 {
		return nil
	}
	s := members[0].Source
	got, err := r.members(ctx, dir, s.URL, s.Archive, rest, func(done, total int64) {
		f.moved(path.Base(s.URL), done, total)
	})
	if err != nil {
		return r.hint(fmt.Errorf("%s: %w", members[0], err), "")
	}
	for _, a := range members {
		want, wanted := rest[a.Source.Member]
		if wanted && got[a.Source.Member] != want {
			return fmt.Errorf("%s: the archive %s has no %s", a, s.URL, a.Source.Member)
		}
		came.Add(want.size)
	}
	return nil
}

// step turns how much of a blob is here into how much has come since.
func (f *fetch) step(came *atomic.Int64, tell func(n, done int64)) func(done, total int64) {
	var last int64
	return func(done, _ int64) {
		n := done - last
		last = done
		came.Add(n)
		tell(n, done)
	}
}
