package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Bundle is a folder of artifacts, open for reading.
type Bundle struct {
	dir    string
	lock   Lock
	cache  *Cache  // whose dir it is; nil: all blobs are there, or the bundle is damaged
	remote *Remote // has what the cache lacks

	once   singleflight.Group
	good   sync.Map // blobs that Verify has read: many hosts ask for the same at once
	images sync.Map // contents, by digest
	room   *semaphore.Weighted
	text   sync.Once
	lines  string
}

// Open reads and validates the lock of the bundle in dir. It reads no blob: see Verify.
func Open(dir string) (*Bundle, error) {
	data, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w: name the folder that holds a bundle's %s", err, lockName)
	}
	l, err := ParseLock(data)
	if err != nil {
		return nil, fmt.Errorf("lock of bundle %s: %w", dir, err)
	}
	return &Bundle{dir: dir, lock: l, room: newRoom()}, nil
}

// newRoom is for the bytes of images that are on their way to all hosts at a time.
func newRoom() *semaphore.Weighted { return semaphore.NewWeighted(16 * large) }

// check reads a blob once in the life of a Bundle. What changes afterwards, whoever reads it notices.
func (b *Bundle) check(ctx context.Context, x blob, read func(int)) error {
	if _, ok := b.good.Load(x); ok {
		read(int(x.size))
		return nil
	}
	mine := false
	_, err, _ := b.once.Do(fmt.Sprint(x), func() (any, error) {
		mine = true
		err := checkBlob(ctx, b.dir, x, read)
		if err == nil {
			b.good.Store(x, true)
		}
		return nil, err
	})
	if !mine {
		read(int(x.size))
	}
	return err
}

// Lock is what the bundle's own lock says.
func (b *Bundle) Lock() Lock { return b.lock }

// LockText is the lock's YAML, made once for all hosts.
func (b *Bundle) LockText() string {
	b.text.Do(func() { b.lines = string(b.lock.Bytes()) })
	return b.lines
}

// Remote tells that blobs may have to be fetched first: see Fetch.
func (b *Bundle) Remote() bool { return b.remote != nil }

// Find returns the artifact of that name for the platform.
func (b *Bundle) Find(name, platform string) (Artifact, bool) { return b.lock.Find(name, platform) }

// Images returns all images for the platform.
func (b *Bundle) Images(platform string) []Artifact {
	var images []Artifact
	for _, a := range b.lock.Artifacts {
		if a.Type == Image && a.Platform == platform {
			images = append(images, a)
		}
	}
	return images
}

// File is the content of a file artifact. Where the bytes are not what the lock says, reading them returns an
// error before the last of them, so that whoever writes to a temporary name first never keeps bad ones.
func (b *Bundle) File(a Artifact) host.Source { return source{b.dir, a} }

type source struct {
	dir      string
	artifact Artifact
}

func (s source) Digest() string { return s.artifact.Digest }
func (s source) Size() int64    { return s.artifact.Size }

func (s source) Open() (io.ReadCloser, error) {
	r, err := openBlob(s.dir, blob{s.artifact.Digest, s.artifact.Size})
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", s.artifact, err)
	}
	return artifactReader{r, s.artifact}, nil
}

// artifactReader names the artifact in what goes wrong.
type artifactReader struct {
	*blobReader
	artifact Artifact
}

func (r artifactReader) Read(p []byte) (int, error) {
	n, err := r.blobReader.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("artifact %s: %w", r.artifact, err)
	}
	return n, err
}

// Verify reads every blob of the artifacts, each once and several at a time, and returns everything that is
// wrong: each problem names the artifact, the blob and what to do. Only manifests are held in memory.
// progress, if not nil, hears of the bytes read so far; it is called by one goroutine at a time.
func (b *Bundle) Verify(ctx context.Context, artifacts []Artifact, progress func(done, total int64)) error {
	type check struct {
		blobs []blob
		err   error // why its blobs are not all known
	}
	checks := make([]check, len(artifacts))
	problems := map[blob]error{} // of each blob, nil for a good one
	var todo []blob
	var total int64
	for i, a := range artifacts {
		checks[i].blobs, checks[i].err = b.blobs(a)
		for _, x := range checks[i].blobs {
			if _, seen := problems[x]; !seen {
				problems[x] = nil
				todo = append(todo, x)
				total += x.size
			}
		}
	}

	var mu sync.Mutex
	var done int64
	read := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		if progress != nil {
			progress(done, total)
		}
	}
	var g errgroup.Group // without its context: one bad blob must not hide the others
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, x := range todo {
		g.Go(func() error {
			err := b.check(ctx, x, read)
			mu.Lock()
			defer mu.Unlock()
			if b.cache != nil && errors.Is(err, errDamaged) && os.Remove(blobPath(b.dir, x.digest)) == nil {
				err = fmt.Errorf("%w; it was removed from the cache: run the same again", err)
			}
			problems[x] = err
			return nil
		})
	}
	g.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verify bundle %s: %w", b.dir, err)
	}

	var errs *multierror.Error
	for i, a := range artifacts {
		if err := checks[i].err; err != nil {
			errs = multierror.Append(errs, fmt.Errorf("artifact %s: %w", a, err))
		}
		for _, x := range checks[i].blobs {
			if err := problems[x]; err != nil {
				errs = multierror.Append(errs, fmt.Errorf("artifact %s: %w", a, err))
			}
		}
	}
	return config.Errors(errs)
}

// blobs returns the distinct blobs of an artifact as far as they are known: a damaged manifest names none.
func (b *Bundle) blobs(a Artifact) ([]blob, error) {
	if a.Type != Image {
		return []blob{{a.Digest, a.Size}}, nil
	}
	raw, m, err := b.manifest(a)
	if err != nil {
		return nil, err
	}
	blobs := append(imageBlobs(m), blob{a.Digest, int64(len(raw))})
	var size int64
	for _, x := range blobs {
		size += x.size
	}
	if size != a.Size {
		err = fmt.Errorf("manifest %s names %d bytes, the lock %d: %w", a.Digest, size, a.Size, errDamaged)
	}
	return blobs, err
}

// maxManifest is more than any registry takes; a larger one is not read into memory.
const maxManifest = 4 << 20

// manifest returns the manifest of an image, its bytes checked against the lock.
func (b *Bundle) manifest(a Artifact) ([]byte, *v1.Manifest, error) {
	// The lock has no size for it, the digest is enough.
	info, err := os.Stat(blobPath(b.dir, a.Digest))
	if err == nil && info.Size() > maxManifest {
		return nil, nil, fmt.Errorf("manifest %s has %d bytes: %w", a.Digest, info.Size(), errDamaged)
	}
	var size int64
	if err == nil {
		size = info.Size()
	}
	raw, err := readBlob(b.dir, blob{a.Digest, size})
	if err != nil {
		return nil, nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest %s: %w", a.Digest, err)
	}
	return raw, m, nil
}

// parseManifest decodes the manifest of one image, and refuses anything whose digests could not be blobs' names.
func parseManifest(raw []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if m.MediaType != "" && !m.MediaType.IsImage() { // OCI manifests may leave it out
		return nil, fmt.Errorf("is a %s, not the manifest of one image", m.MediaType)
	}
	for _, x := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if !digestForm.MatchString(x.Digest.String()) || x.Size < 0 {
			return nil, fmt.Errorf("names a blob %q of %d bytes", x.Digest, x.Size)
		}
	}
	return m, nil
}

// imageBlobs returns the distinct blobs that a manifest names.
func imageBlobs(m *v1.Manifest) []blob {
	var blobs []blob
	for _, x := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if b := (blob{x.Digest.String(), x.Size}); !slices.Contains(blobs, b) {
			blobs = append(blobs, b)
		}
	}
	return blobs
}
