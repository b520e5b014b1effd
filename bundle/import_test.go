package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// startContainerd runs a containerd of the test's own.
func startContainerd(t *testing.T) (dial Dialer, root string) {
	t.Helper()
	path := os.Getenv("KUBEWRIGHT_TEST_CONTAINERD")
	if path == "" {
		var err error
		if path, err = exec.LookPath("containerd"); err != nil {
			t.Skip("no containerd: neither KUBEWRIGHT_TEST_CONTAINERD nor PATH leads to one")
		}
	}
	if os.Getuid() != 0 {
		t.Skip("containerd needs root to mount the snapshots that it unpacks into")
	}
	dir := t.TempDir()
	root = filepath.Join(dir, "root")
	socket := filepath.Join(dir, "sock")
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, root, filepath.Join(dir, "state"), socket, socket+".ttrpc")
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(path, "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for { // IsServing waits, but at grpc's own pace: a second after the first refusal
		if conn, err := dial(ctx); err == nil {
			conn.Close()
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("containerd does not listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
	c := clientOf(t, dial)
	if ok, err := c.IsServing(ctx); !ok {
		t.Fatalf("containerd does not serve: %v", err)
	}
	return dial, root
}

func clientOf(t *testing.T, dial Dialer) *client.Client {
	t.Helper()
	c, err := connect(dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func imported(outcomes []Outcome) string {
	var s []string
	for _, o := range outcomes {
		s = append(s, fmt.Sprintf("%s=%t", o.Image, o.Imported))
	}
	return strings.Join(s, " ")
}

func TestImportIsWholeAndHappensOnce(t *testing.T) {
	dial, _ := startContainerd(t)
	dir, img, _ := newBundle(t)
	b := open(t, dir)
	wanted := b.Images(amd64)
	ctx := within(context.Background())

	absent, err := b.Absent(ctx, dial, wanted)
	if err != nil || len(absent) != 2 {
		t.Fatalf("before: %v absent, %v", absent, err)
	}
	progress := map[string][2]int64{}
	o := ImportOptions{
		Pinned:   []string{"example.test/a:1"},
		Progress: func(image string, done, total int64) { progress[image] = [2]int64{done, total} },
	}
	outcomes, err := b.Import(ctx, dial, wanted, o)
	if got := imported(outcomes); err != nil || got != "example.test/a:1=true example.test/b:1=true" {
		t.Fatalf("got %s, %v", got, err)
	}
	for _, a := range wanted {
		if progress[a.Name] != [2]int64{a.Size, a.Size} {
			t.Errorf("%s of %d bytes ends its progress at %v", a.Name, a.Size, progress[a.Name])
		}
	}
	if absent, err := b.Absent(ctx, dial, wanted); err != nil || len(absent) != 0 {
		t.Errorf("after: %v absent, %v", absent, err)
	}

	c := clientOf(t, dial)
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for name, labels := range map[string]map[string]string{
		"example.test/a:1": {managedLabel: managed, pinnedLabel: pinned},
		id.String():        {managedLabel: managed, pinnedLabel: pinned},
		"example.test/b:1": {managedLabel: managed},
	} {
		record, err := c.ImageService().Get(ctx, name)
		if err != nil || !maps.Equal(record.Labels, labels) {
			t.Errorf("record %s has labels %v (%v), want %v", name, record.Labels, err, labels)
		}
	}
	if left, err := c.LeasesService().List(ctx); err != nil || len(left) != 0 {
		t.Errorf("left leases %v, %v", left, err)
	}
	// Nothing may hang on the lease alone: a collection takes nothing away.
	collect(t, c)
	if absent, err := b.Absent(ctx, dial, wanted); err != nil || len(absent) != 0 {
		t.Errorf("after a garbage collection: %v absent, %v", absent, err)
	}

	clear(progress)
	outcomes, err = b.Import(ctx, dial, wanted, o)
	if got := imported(outcomes); err != nil || got != "example.test/a:1=false example.test/b:1=false" {
		t.Errorf("second run: %s, %v", got, err)
	}
	if len(progress) != 0 {
		t.Errorf("second run: progress %v", progress)
	}
}

// collect runs containerd's garbage collector to its end.
func collect(t *testing.T, c *client.Client) {
	t.Helper()
	ctx := within(context.Background())
	l, err := c.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.LeasesService().Delete(ctx, l, leases.SynchronousDelete); err != nil {
		t.Fatal(err)
	}
}

func TestImportMendsWhatIsHalfThere(t *testing.T) {
	dial, _ := startContainerd(t)
	dir, img, other := newBundle(t)
	b := open(t, dir)
	ctx := within(context.Background())
	c := clientOf(t, dial)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	otherDigest, err := other.Digest()
	if err != nil {
		t.Fatal(err)
	}
	wanted := b.Images(amd64)
	if _, err := b.Import(ctx, dial, wanted, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spoil func() error
		gone  int
	}{
		"no record": {func() error { return c.ImageService().Delete(ctx, "example.test/a:1") }, 1},
		"a layer gone": {func() error {
			return c.ContentStore().Delete(ctx, digest.Digest(layer.String()))
		}, 2},
		"not unpacked": {func() error {
			sn := c.SnapshotService(snapshotter)
			config, err := other.ConfigFile()
			if err != nil {
				return err
			}
			chain := make([]digest.Digest, len(config.RootFS.DiffIDs))
			for i, d := range config.RootFS.DiffIDs {
				chain[i] = digest.Digest(d.String())
			}
			return sn.Remove(ctx, identity.ChainID(chain).String())
		}, 1},
		"another image under that name": {func() error {
			record, err := c.ImageService().Get(ctx, "example.test/a:1")
			if err != nil {
				return err
			}
			record.Target.Digest = digest.Digest(otherDigest.String())
			_, err = c.ImageService().Update(ctx, record, "target")
			return err
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.spoil(); err != nil {
				t.Fatal(err)
			}
			if absent, err := b.Absent(ctx, dial, wanted); err != nil || len(absent) != test.gone {
				t.Errorf("absent %v, %v; want %d", absent, err, test.gone)
			}
			progress := map[string]int64{} // what is still to do
			if _, err := b.Import(ctx, dial, wanted, ImportOptions{
				Progress: func(image string, done, total int64) { progress[image] = total - done },
			}); err != nil {
				t.Fatal(err)
			}
			for image, left := range progress {
				if left != 0 {
					t.Errorf("progress of %s ends %d bytes before its end", image, left)
				}
			}
			if absent, err := b.Absent(ctx, dial, wanted); err != nil || len(absent) != 0 {
				t.Errorf("still absent: %v, %v", absent, err)
			}
		})
	}
}

func TestImportRefusesDamage(t *testing.T) {
	dial, _ := startContainerd(t)
	ctx := within(context.Background())
	c := clientOf(t, dial)
	for _, kind := range []string{"layer", "config", "manifest"} {
		t.Run(kind, func(t *testing.T) {
			dir, img, _ := newBundle(t)
			b := open(t, dir)
			path := blobOf(t, dir, img, kind)
			bad := "sha256:" + filepath.Base(path)
			a, _ := b.Find("example.test/a:1", amd64)
			edit(t, path, flip)
			_, err := b.Import(ctx, dial, []Artifact{a}, ImportOptions{})
			for _, want := range []string{"import image example.test/a:1: ", "blob " + bad + " has digest", "make or fetch it again"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if _, err := c.ContentStore().Info(ctx, digest.Digest(bad)); !errdefs.IsNotFound(err) {
				t.Errorf("the bad blob is in containerd: %v", err)
			}
			if _, err := c.ImageService().Get(ctx, a.Name); !errdefs.IsNotFound(err) {
				t.Errorf("the image has a record: %v", err)
			}

			edit(t, path, flip) // mended: nothing of the bad bytes is in the way
			if _, err := b.Import(ctx, dial, []Artifact{a}, ImportOptions{}); err != nil {
				t.Error(err)
			}
			if err := c.ImageService().Delete(ctx, a.Name); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestImportGoesOnAfterBadBytesOfAnother(t *testing.T) {
	dial, _ := startContainerd(t)
	dir, img, _ := newBundle(t)
	b := open(t, dir)
	ctx := within(context.Background())
	a, _ := b.Find("example.test/a:1", amd64)
	bad := "sha256:" + filepath.Base(blobOf(t, dir, img, "layer"))
	// Somebody left half an upload under our name for this blob, and it was not this blob.
	w, err := clientOf(t, dial).ContentStore().Writer(ctx, content.WithRef("kubewright-"+bad))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("something else")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Import(ctx, dial, []Artifact{a}, ImportOptions{}); err == nil {
		t.Fatal("accepted")
	}
	if _, err := b.Import(ctx, dial, []Artifact{a}, ImportOptions{}); err != nil {
		t.Errorf("the bad half is still in the way: %v", err)
	}
}

func TestImportThatWasCutShortIsFinishedByTheNext(t *testing.T) {
	dial, _ := startContainerd(t)
	dir, _, _ := newBundle(t)
	b := open(t, dir)
	wanted := b.Images(amd64)
	ctx, cancel := context.WithCancel(context.Background())
	o := ImportOptions{Progress: func(string, int64, int64) { cancel() }}
	if _, err := b.Import(ctx, dial, wanted, o); !errdefs.IsCanceled(err) || !strings.Contains(err.Error(), "import image example.test/") {
		t.Fatalf("cut short: %v", err)
	}
	if _, err := b.Import(context.Background(), dial, wanted, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if absent, err := b.Absent(context.Background(), dial, wanted); err != nil || len(absent) != 0 {
		t.Errorf("still absent: %v, %v", absent, err)
	}
}

// What images share crosses the connection once and is unpacked once, although they are imported side by side.
func TestImportDoesSharedLayersOnce(t *testing.T) {
	dial, root := startContainerd(t)
	const shared = 4 << 20
	layer, err := random.Layer(shared, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	base, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(context.Background())
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := w.AddImage(ctx, "example.test/"+name+":1", randomImage(t, base, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	var sent atomic.Int64
	counting := func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		return countingConn{conn, &sent}, err
	}
	b := open(t, dir)
	if _, err := b.Import(ctx, counting, b.Images(amd64), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := sent.Load(); n < shared || n > shared*3/2 {
		t.Errorf("%d bytes crossed the connection for a shared layer of %d", n, shared)
	}
	// Every snapshot that is begun takes the next number: the shared one and one of each image.
	snapshots, err := os.ReadDir(filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs/snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range snapshots {
		names = append(names, s.Name())
	}
	if slices.Sort(names); !slices.Equal(names, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("snapshots %v, want 1 to 5", names)
	}
}

// countingConn counts the bytes that are written.
type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func TestImportEndsWithItsContext(t *testing.T) {
	dir, _, _ := newBundle(t)
	b := open(t, dir)
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket) // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	_, err = b.Import(ctx, dial, b.Images(amd64), ImportOptions{})
	if !errdefs.IsDeadlineExceeded(err) || !strings.Contains(err.Error(), "look for image example.test/") {
		t.Errorf("got %v", err)
	}
}

func TestImportSaysWhenNobodyListens(t *testing.T) {
	dir, _, _ := newBundle(t)
	b := open(t, dir)
	dial := func(ctx context.Context) (net.Conn, error) { return nil, errors.New("no such socket") }
	_, err := b.Import(context.Background(), dial, b.Images(amd64), ImportOptions{})
	if err == nil || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("got %v", err)
	}
}
