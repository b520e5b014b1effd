package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	namespace   = "k8s.io"    // where the kubelet's runtime looks
	snapshotter = "overlayfs" // containerd's default on Linux; its client's default is that of the machine it runs on
)

// Labels by which containerd's CRI plugin knows its images, and which of them the kubelet never collects.
const (
	managedLabel, managed = "io.cri-containerd.image", "managed"
	pinnedLabel, pinned   = "io.cri-containerd.pinned", "pinned"
)

// Dialer connects to the socket of a containerd, /run/containerd/containerd.sock, wherever that is.
type Dialer func(ctx context.Context) (net.Conn, error)

// ImportOptions is what Import can do beside.
type ImportOptions struct {
	Pinned []string // references that the kubelet must never collect: the sandbox image

	// Progress hears how many bytes of an image containerd has, of all of them. It is called by one goroutine
	// at a time, and not at all for an image that is unchanged.
	Progress func(image string, done, total int64)
}

// Outcome is what became of a wanted image.
type Outcome struct {
	Image    string
	Imported bool // if not, it was there already, with this digest: unchanged
}

// Import brings images of the bundle into containerd and unpacks them, so that a container can start at once. Images
// are imported side by side, what they share once. An image that is there with the same digest, whole and unpacked,
// is not touched. The outcomes are in the order of wanted; the first error, which names its image, ends all, and an
// import that was cut short is finished by the next.
func (b *Bundle) Import(ctx context.Context, dial Dialer, wanted []Artifact, o ImportOptions) ([]Outcome, error) {
	c, err := connect(dial)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx = within(ctx)
	absent, err := b.missing(ctx, c, wanted)
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, len(wanted))
	for i, a := range wanted {
		outcomes[i] = Outcome{Image: a.Name, Imported: slices.Contains(absent, a)}
	}
	if len(absent) == 0 {
		return outcomes, nil
	}

	jobs, loads, err := b.plan(absent)
	if err != nil {
		return nil, err
	}

	// The lease keeps containerd from collecting what no image record names yet. After a failure it stays until it
	// expires, so that the next run does not send again what has arrived.
	ctx, release, err := c.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	im := &importer{dir: b.dir, client: c, loads: loads, progress: o.Progress, room: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0)) * large), shared: b.room}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return im.sendAll(gctx) })
	for _, j := range jobs {
		labels := map[string]string{managedLabel: managed}
		if slices.Contains(o.Pinned, j.Name) {
			labels[pinnedLabel] = pinned
		}
		g.Go(func() error {
			if err := im.unpack(gctx, j); err != nil {
				return fmt.Errorf("import image %s: unpack: %w", j.Name, err)
			}
			if err := im.record(gctx, j, labels); err != nil {
				return fmt.Errorf("import image %s: record: %w", j.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := release(ctx); err != nil {
		return nil, fmt.Errorf("import images: release the lease: %w", err)
	}
	return outcomes, nil
}

// Absent returns the wanted images that Import would import. It changes nothing.
func (b *Bundle) Absent(ctx context.Context, dial Dialer, wanted []Artifact) (absent []Artifact, err error) {
	c, err := connect(dial)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return b.missing(within(ctx), c, wanted)
}

func connect(dial Dialer) (*client.Client, error) {
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),                                           // a unix socket, or one through SSH
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(16<<10), grpc.WithSharedWriteBuffer(true), // there may be many
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	// All platforms: an operator's laptop need not have that of the host, and the lock has chosen already.
	return client.NewWithConn(conn, client.WithDefaultPlatform(platforms.All))
}

// within is a context for calls to containerd. Its library would log to standard error what it returns as well.
func within(ctx context.Context) context.Context {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return log.WithLogger(namespaces.WithNamespace(ctx, namespace), logrus.NewEntry(silent))
}

// missing returns the wanted images that are not in containerd with their digest, whole and unpacked.
// All is asked at once: through a long line, a question is a round trip.
func (b *Bundle) missing(ctx context.Context, c *client.Client, wanted []Artifact) ([]Artifact, error) {
	there := make([]bool, len(wanted))
	g, ctx := errgroup.WithContext(ctx)
	for i, a := range wanted {
		g.Go(func() (err error) {
			if there[i], err = b.present(ctx, c, a); err != nil {
				return fmt.Errorf("look for image %s: %w", a.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var absent []Artifact
	for i, a := range wanted {
		if !there[i] {
			absent = append(absent, a)
		}
	}
	return absent, nil
}

func (b *Bundle) present(ctx context.Context, c *client.Client, a Artifact) (bool, error) {
	if l, err := b.contents(a); err == nil {
		return l.present(ctx, c, a)
	}
	// Its blobs have not been downloaded, and need not be, if containerd has them: it is asked what they are.
	record, err := c.ImageService().Get(ctx, a.Name)
	if errdefs.IsNotFound(err) || err == nil && record.Target.Digest.String() != a.Digest {
		return false, nil
	} else if err != nil {
		return false, err
	}
	readable, _, _, gone, err := images.Check(ctx, c.ContentStore(), record.Target, platforms.All)
	if err != nil || !readable || len(gone) > 0 {
		return false, err
	}
	return client.NewImage(c, record).IsUnpacked(ctx, snapshotter)
}

// job is one image on its way into containerd.
type job struct {
	Artifact
	id     string             // digest of its config
	target ocispec.Descriptor // its manifest
	done   int64              // bytes that containerd has
}

// load is one blob on its way into containerd, for all the images that need it.
type load struct {
	blob
	jobs    []*job
	arrived chan struct{} // closed when containerd has it
}

// plan reads the manifests: what has to be sent, in that order. Manifests and configs go first, because unpacking
// starts with them; then the largest layer, because it takes the longest to unpack, and so the end waits for it.
func (b *Bundle) plan(artifacts []Artifact) ([]*job, []*load, error) {
	var jobs []*job
	first, byDigest := map[string]bool{}, map[string]*load{}
	for _, a := range artifacts {
		raw, m, err := b.manifest(a)
		if err != nil {
			return nil, nil, fmt.Errorf("import image %s: %w", a.Name, err)
		}
		j := &job{Artifact: a, id: m.Config.Digest.String(), target: ocispec.Descriptor{
			MediaType: cmp.Or(string(m.MediaType), ocispec.MediaTypeImageManifest), // OCI manifests may leave it out
			Digest:    digest.Digest(a.Digest),
			Size:      int64(len(raw)),
		}}
		jobs = append(jobs, j)
		first[a.Digest], first[j.id] = true, true
		for _, x := range append(imageBlobs(m), blob{a.Digest, j.target.Size}) {
			if byDigest[x.digest] == nil {
				byDigest[x.digest] = &load{blob: x, arrived: make(chan struct{})}
			}
			byDigest[x.digest].jobs = append(byDigest[x.digest].jobs, j)
		}
	}
	loads := slices.SortedFunc(maps.Values(byDigest), func(x, y *load) int {
		switch {
		case first[x.digest] && !first[y.digest]:
			return -1
		case first[y.digest] && !first[x.digest]:
			return 1
		}
		return cmp.Compare(y.size, x.size)
	})
	return jobs, loads, nil
}

// importer is one run of Import.
type importer struct {
	dir    string
	client *client.Client
	loads  []*load
	chains locks // of layers that are being unpacked

	room     *semaphore.Weighted // bytes that are on their way
	shared   *semaphore.Weighted // the same of all hosts
	mu       sync.Mutex          // of progress and job.done
	progress func(image string, done, total int64)
}

// sendAll brings every load into the content store, as many at a time as there is room for, in their order.
func (im *importer) sendAll(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range im.loads {
		size := min(l.size, large)
		if im.room.Acquire(ctx, size) != nil {
			break // one has failed
		}
		g.Go(func() error {
			defer im.room.Release(size)
			if err := im.shared.Acquire(ctx, size); err != nil {
				return err
			}
			defer im.shared.Release(size)
			if err := im.send(ctx, l); err != nil {
				return fmt.Errorf("import image %s: %w", l.jobs[0].Name, err)
			}
			close(l.arrived)
			return nil
		})
	}
	return g.Wait()
}

func (im *importer) send(ctx context.Context, l *load) error {
	r, err := openBlob(im.dir, l.blob)
	if err != nil {
		return err
	}
	defer r.Close()
	report := func(n int64) {
		im.mu.Lock()
		defer im.mu.Unlock()
		for _, j := range l.jobs {
			j.done += n
			if im.progress != nil {
				im.progress(j.Name, j.done, j.Size)
			}
		}
	}
	counted := &countingReader{r: r, report: report}
	ref := "kubewright-" + l.digest // always the same, so that the next run goes on where this one was cut short
	store := im.client.ContentStore()
	err = write(ctx, im.client, ref, counted, l.blob)
	if err != nil {
		if ctx.Err() == nil {
			// What arrived may not be what it should be: the next run must not go on from there.
			if aborted := store.Abort(ctx, ref); !errdefs.IsNotFound(aborted) {
				err = errors.Join(err, aborted)
			}
		}
		return err
	}
	report(l.size - counted.n) // nothing is read of a blob that is there
	return nil
}

// unpack makes the snapshots of an image as its layers arrive, and labels its manifest and config so that
// containerd keeps what they refer to. When it returns, all of the image is there.
func (im *importer) unpack(ctx context.Context, j *job) error {
	store := im.client.ContentStore()
	u, err := unpack.NewUnpacker(ctx, store,
		unpack.WithUnpackPlatform(unpack.Platform{
			SnapshotterKey: snapshotter,
			Snapshotter:    im.client.SnapshotService(snapshotter),
			Applier:        im.client.DiffService(),
		}),
		unpack.WithDuplicationSuppressor(&im.chains))
	if err != nil {
		return err
	}
	children := images.SetChildrenLabels(store, images.ChildrenHandler(store))
	arrived := images.HandlerFunc(func(ctx context.Context, x ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		for _, l := range im.loads {
			if l.digest == x.Digest.String() {
				if err := l.wait(ctx); err != nil {
					return nil, err
				}
			}
		}
		return children(ctx, x)
	})
	err = images.Dispatch(ctx, u.Unpack(arrived), nil, j.target)
	_, unpackErr := u.Wait() // also after an error: it must not outlive us
	if err := errors.Join(err, unpackErr); err != nil {
		return err
	}
	// A layer whose snapshot was there has not been waited for.
	for _, l := range im.loads {
		if slices.Contains(l.jobs, j) {
			if err := l.wait(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *load) wait(ctx context.Context) error {
	select {
	case <-l.arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// record makes names mean the image, as the CRI plugin does itself: first its id, by which it is removed, then its
// name. Labels that others have put on a record stay.
func (im *importer) record(ctx context.Context, j *job, labels map[string]string) error {
	fields := []string{"target"}
	for key := range labels {
		fields = append(fields, "labels."+key)
	}
	store := im.client.ImageService()
	for _, name := range []string{j.id, j.Name} {
		image := images.Image{Name: name, Target: j.target, Labels: labels}
		_, err := store.Create(ctx, image)
		if errdefs.IsAlreadyExists(err) {
			_, err = store.Update(ctx, image, fields...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// countingReader reports what is read.
type countingReader struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.report(int64(n))
	return n, err
}

// locks lets one goroutine at a time work on what a key names; the others wait and then find it done.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when released
}

func (l *locks) Lock(ctx context.Context, key string) error {
	for {
		l.mu.Lock()
		released, busy := l.held[key]
		if !busy {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			l.held[key] = make(chan struct{})
		}
		l.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *locks) Unlock(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[key])
	delete(l.held, key)
}
