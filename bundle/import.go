package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
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
	absent, err := missing(ctx, c, wanted)
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

	// The lease keeps containerd from collecting what no image record names yet. After a failure it stays until it
	// expires, so that the next run does not send again what has arrived.
	ctx, release, err := c.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	im := &importer{
		Bundle: b,
		client: c,
		o:      o,
		busy:   locks{held: map[string]chan struct{}{}},
		sends:  semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0))), // one waits for the disk while another hashes
	}
	// The largest first: begun last, it would be waited for alone.
	slices.SortStableFunc(absent, func(x, y Artifact) int { return cmp.Compare(y.Size, x.Size) })
	g, gctx := errgroup.WithContext(ctx)
	for _, a := range absent {
		g.Go(func() error {
			if err := im.image(gctx, a); err != nil {
				return fmt.Errorf("import image %s: %w", a.Name, err)
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

// Present returns the wanted images that Import would import. It changes nothing.
func Present(ctx context.Context, dial Dialer, wanted []Artifact) (absent []Artifact, err error) {
	c, err := connect(dial)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return missing(within(ctx), c, wanted)
}

func connect(dial Dialer) (*client.Client, error) {
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket, or one through SSH
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
func missing(ctx context.Context, c *client.Client, wanted []Artifact) ([]Artifact, error) {
	there := make([]bool, len(wanted))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, a := range wanted {
		g.Go(func() (err error) {
			if there[i], err = present(ctx, c, a); err != nil {
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

func present(ctx context.Context, c *client.Client, a Artifact) (bool, error) {
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

// importer is one run of Import.
type importer struct {
	*Bundle
	client *client.Client
	o      ImportOptions
	busy   locks               // blobs that are being sent, chains of layers that are being unpacked
	sends  *semaphore.Weighted // how many blobs are sent at once

	mu sync.Mutex // of o.Progress
}

func (im *importer) image(ctx context.Context, a Artifact) error {
	raw, m, err := im.manifest(a)
	if err != nil {
		return err
	}
	var done int64
	report := func(n int64) {
		im.mu.Lock()
		defer im.mu.Unlock()
		done += n
		if im.o.Progress != nil {
			im.o.Progress(a.Name, done, a.Size)
		}
	}
	target := ocispec.Descriptor{
		MediaType: cmp.Or(string(m.MediaType), ocispec.MediaTypeImageManifest), // OCI manifests may leave it out
		Digest:    digest.Digest(a.Digest),
		Size:      int64(len(raw)),
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, x := range append(imageBlobs(m), blob{a.Digest, target.Size}) {
		g.Go(func() error { return im.send(gctx, x, report) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := im.unpack(ctx, target); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	labels := map[string]string{managedLabel: managed}
	if slices.Contains(im.o.Pinned, a.Name) {
		labels[pinnedLabel] = pinned
	}
	// As the CRI plugin does itself: first a record under the image's id, by which it is removed, then its name.
	for _, name := range []string{m.Config.Digest.String(), a.Name} {
		if err := im.record(ctx, images.Image{Name: name, Target: target, Labels: labels}); err != nil {
			return fmt.Errorf("record %s: %w", name, err)
		}
	}
	return nil
}

// send brings one blob into the content store, unless it is there.
func (im *importer) send(ctx context.Context, x blob, report func(int64)) error {
	if err := im.busy.Lock(ctx, x.digest); err != nil {
		return err
	}
	defer im.busy.Unlock(x.digest)
	if err := im.sends.Acquire(ctx, 1); err != nil {
		return err
	}
	defer im.sends.Release(1)
	r, err := openBlob(im.dir, x)
	if err != nil {
		return err
	}
	defer r.Close()
	ref := "kubewright-" + x.digest // always the same, so that the next run goes on where this one was cut short
	counted := &countingReader{r: r, report: report}
	store := im.client.ContentStore()
	err = content.WriteBlob(ctx, store, ref, counted, ocispec.Descriptor{Digest: digest.Digest(x.digest), Size: x.size})
	if err != nil {
		if ctx.Err() == nil {
			// What arrived may not be what it should be: the next run must not go on from there.
			if aborted := store.Abort(ctx, ref); !errdefs.IsNotFound(aborted) {
				err = errors.Join(err, aborted)
			}
		}
		return err
	}
	report(x.size - counted.n) // nothing is read of a blob that is there
	return nil
}

// unpack makes the snapshots of an image whose blobs are all there, and labels its manifest and config so that
// containerd keeps what they refer to.
func (im *importer) unpack(ctx context.Context, target ocispec.Descriptor) error {
	store := im.client.ContentStore()
	u, err := unpack.NewUnpacker(ctx, store,
		unpack.WithUnpackPlatform(unpack.Platform{
			SnapshotterKey: snapshotter,
			Snapshotter:    im.client.SnapshotService(snapshotter),
			Applier:        im.client.DiffService(),
		}),
		unpack.WithDuplicationSuppressor(&im.busy))
	if err != nil {
		return err
	}
	err = images.Dispatch(ctx, u.Unpack(images.SetChildrenLabels(store, images.ChildrenHandler(store))), nil, target)
	_, unpackErr := u.Wait() // also after an error: it must not outlive us
	return errors.Join(err, unpackErr)
}

// record makes the name mean the image. Labels that others have put on it stay.
func (im *importer) record(ctx context.Context, image images.Image) error {
	store := im.client.ImageService()
	_, err := store.Create(ctx, image)
	if errdefs.IsAlreadyExists(err) {
		fields := []string{"target"}
		for key := range image.Labels {
			fields = append(fields, "labels."+key)
		}
		_, err = store.Update(ctx, image, fields...)
	}
	return err
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
