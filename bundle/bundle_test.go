package bundle

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/kubewright/kubewright/host"
)

const amd64 = "linux/amd64"

// randomImage has a platform, which random.Image leaves out, and is built on base if there is one.
func randomImage(t *testing.T, base v1.Image, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(4096, layers)
	if err != nil {
		t.Fatal(err)
	}
	if base != nil {
		own, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(base, own...); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// newBundle holds a file, kubelet, and two images that share a layer, example.test/a:1 and b:1.
func newBundle(t *testing.T) (dir string, a, b v1.Image) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bundle")
	file := filepath.Join(t.TempDir(), "kubelet")
	if err := os.WriteFile(file, []byte(strings.Repeat("kubelet", 100_000)), 0o755); err != nil {
		t.Fatal(err)
	}
	a = randomImage(t, nil, 2)
	b = randomImage(t, a, 1)
	ctx := context.Background()
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		w.AddImage(ctx, "example.test/b:1", b),
		w.AddImage(ctx, "example.test/a:1", a),
		w.AddFile(ctx, Artifact{Name: "kubelet", Version: "v1.36.3", Platform: amd64}, file),
		w.Close(),
	); err != nil {
		t.Fatal(err)
	}
	return dir, a, b
}

func open(t *testing.T, dir string) *Bundle {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundleGivesBackWhatWentIn(t *testing.T) {
	dir, img, _ := newBundle(t)
	b := open(t, dir)
	var done, total int64
	if err := b.Verify(context.Background(), b.Lock().Artifacts, func(d, t int64) { done, total = d, t }); err != nil {
		t.Fatal(err)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, blobsDir))
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, x := range blobs {
		info, err := x.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	// A file, two manifests, two configs, three distinct layers: each read once.
	for _, x := range blobs {
		if info, _ := x.Info(); info.Mode().Perm() != 0o644 {
			t.Errorf("blob %s has mode %s", x.Name(), info.Mode())
		}
	}
	if len(blobs) != 8 || total != size || done != size {
		t.Errorf("%d blobs of %d bytes, verified %d of %d", len(blobs), size, done, total)
	}

	a, ok := b.Find("kubelet", amd64)
	if !ok {
		t.Fatal("kubelet is not there")
	}
	if _, ok := b.Find("kubelet", "linux/arm64"); ok {
		t.Error("found a kubelet for arm64")
	}
	src := b.File(a)
	data := read(t, src)
	if host.Digest(data) != src.Digest() || int64(len(data)) != src.Size() || string(data[:7]) != "kubelet" {
		t.Errorf("kubelet came back as %d bytes, %s", len(data), host.Digest(data))
	}

	images := b.Images(amd64)
	if len(images) != 2 || images[0].Name != "example.test/a:1" || len(b.Images("linux/arm64")) != 0 {
		t.Fatalf("images: %v", images)
	}
	if digest, _ := img.Digest(); images[0].Digest != digest.String() {
		t.Errorf("image has digest %s in the lock, %s in fact", images[0].Digest, digest)
	}
}

func read(t *testing.T, src host.Source) []byte {
	t.Helper()
	r, err := src.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// blobOf returns the path of one blob of each kind.
func blobOf(t *testing.T, dir string, img v1.Image, kind string) string {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	kubelet, _ := open(t, dir).Find("kubelet", amd64)
	return blobPath(dir, map[string]string{
		"file":     kubelet.Digest,
		"manifest": digest.String(),
		"config":   m.Config.Digest.String(),
		"layer":    m.Layers[0].Digest.String(),
	}[kind])
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func flip(b []byte) []byte { b[len(b)/2] ^= 1; return b }

func TestVerifyNamesEveryDamage(t *testing.T) {
	damages := []struct {
		name string
		do   func(t *testing.T, path string)
		says string
	}{
		{"flipped", func(t *testing.T, p string) { edit(t, p, flip) }, "has digest sha256:"},
		{"shorter", func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return b[:len(b)-1] }) }, "has "},
		{"longer", func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return append(b, 0) }) }, "has "},
		{"empty", func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return nil }) }, "has "},
		{"missing", func(t *testing.T, p string) {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
	}
	owners := map[string][]string{
		"file":     {"kubelet v1.36.3"},
		"manifest": {"example.test/a:1"},
		"config":   {"example.test/a:1"},
		"layer":    {"example.test/a:1", "example.test/b:1"}, // shared
	}
	for kind, artifacts := range owners {
		for _, damage := range damages {
			t.Run(kind+" "+damage.name, func(t *testing.T) {
				dir, img, _ := newBundle(t)
				path := blobOf(t, dir, img, kind)
				damage.do(t, path)
				b := open(t, dir)
				err := b.Verify(context.Background(), b.Lock().Artifacts, nil)
				if err == nil {
					t.Fatal("accepted")
				}
				if n := strings.Count(err.Error(), "artifact "); n != len(artifacts) {
					t.Errorf("%d problems, want %d: %v", n, len(artifacts), err)
				}
				for _, artifact := range artifacts {
					want := "artifact " + artifact + ": blob sha256:" + filepath.Base(path) + " " + damage.says
					if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "make or fetch it again") {
						t.Errorf("got %v\nwant %q", err, want)
					}
				}
			})
		}
	}
}

func TestVerifyReportsAllDamagesAtOnce(t *testing.T) {
	dir, img, _ := newBundle(t)
	for _, kind := range []string{"file", "config"} {
		edit(t, blobOf(t, dir, img, kind), flip)
	}
	b := open(t, dir)
	err := b.Verify(context.Background(), b.Lock().Artifacts, nil)
	for _, want := range []string{"kubelet v1.36.3", "example.test/a:1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
	// What is not asked for is not looked at.
	a, _ := b.Find("example.test/b:1", amd64)
	if err := b.Verify(context.Background(), []Artifact{a}, nil); err != nil {
		t.Error(err)
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	dir, _, _ := newBundle(t)
	b := open(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var read int64
	err := b.Verify(ctx, b.Lock().Artifacts, func(done, _ int64) { read = done })
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "artifact") {
		t.Errorf("got %v, which must blame no artifact", err)
	}
	if read != 0 {
		t.Errorf("read %d bytes all the same", read)
	}
}

// A lock can be changed so that it still is one; then it has another digest, and the blobs don't fit it.
func TestChangedLockIsNoticed(t *testing.T) {
	dir, _, _ := newBundle(t)
	path := filepath.Join(dir, lockName)
	pinned := open(t, dir).Lock().Digest()
	pristine, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]struct{ expr, with, says string }{
		"digest":  {`digest: sha256:[0-9a-f]`, "digest: sha256:x", "digest"},
		"other":   {`digest: sha256:[0-9a-f]{8}`, "digest: sha256:00000000", "is missing"},
		"size":    {`size: \d+\n  type: file`, "size: 9\n  type: file", "should have 9"},
		"sizes":   {`size: \d+\n  type: image`, "size: 9\n  type: image", "bytes, the lock 9"},
		"type":    {`type: image`, "type: file", "is not a file's name"},
		"version": {`v1\.36\.3`, "v1.36.4", ""},
		"name":    {`example.test/a:1`, "example.test/c:1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			changed := regexp.MustCompile(change.expr).ReplaceAll(pristine, []byte(change.with))
			if err := os.WriteFile(path, changed, 0o644); err != nil {
				t.Fatal(err)
			}
			b, err := Open(dir)
			if err == nil {
				if b.Lock().Digest() == pinned {
					t.Error("the lock has the same digest")
				}
				err = b.Verify(context.Background(), b.Lock().Artifacts, nil)
			}
			if change.says == "" {
				if err != nil {
					t.Errorf("only the pinned digest can notice it, but got %v", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), change.says) {
				t.Errorf("got %v, want %q", err, change.says)
			}
		})
	}
}

func TestSourceRefusesBadBytes(t *testing.T) {
	dir, _, _ := newBundle(t)
	b := open(t, dir)
	a, _ := b.Find("kubelet", amd64)
	edit(t, blobPath(dir, a.Digest), flip)
	says := "artifact kubelet v1.36.3: blob " + a.Digest + " has digest"

	for name, copyAll := range map[string]func(io.Reader) (int64, error){
		"to EOF":  func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
		"to size": func(r io.Reader) (int64, error) { return io.CopyN(io.Discard, r, a.Size) },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := b.File(a).Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n, err := copyAll(r)
			if err == nil || !strings.Contains(err.Error(), says) || n >= a.Size {
				t.Errorf("got %d bytes and %v, want fewer than %d and %q", n, err, a.Size, says)
			}
			if n, again := r.Read(make([]byte, 1)); n != 0 || again == nil || again == io.EOF {
				t.Errorf("read again: %d, %v", n, again)
			}
		})
	}

	edit(t, blobPath(dir, a.Digest), func(b []byte) []byte { return b[:10] })
	if _, err := b.File(a).Open(); err == nil || !strings.Contains(err.Error(), "artifact kubelet v1.36.3") {
		t.Errorf("a truncated blob opens with %v", err)
	}
}

// A layer whose bytes are not those of its manifest, as a broken image source gives them.
type lyingLayer struct{ v1.Layer }

func (l lyingLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("something else")), nil
}

type lyingImage struct{ v1.Image }

func (i lyingImage) Layers() ([]v1.Layer, error) {
	layers, err := i.Image.Layers()
	for n := range layers {
		layers[n] = lyingLayer{layers[n]}
	}
	return layers, err
}

func TestWriterKeepsNothingWrong(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	err = w.AddImage(context.Background(), "example.test/a:1", lyingImage{randomImage(t, nil, 1)})
	if err == nil || !strings.Contains(err.Error(), "add image example.test/a:1: layer sha256:") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.AddFile(ctx, Artifact{Name: "f", Platform: amd64}, os.Args[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("with its context ended: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, blobsDir)); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if _, err := Open(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a bundle that was not closed opens with %v", err)
	}
}

func TestWriterMendsDamagedBlobs(t *testing.T) {
	dir, img, _ := newBundle(t)
	edit(t, blobOf(t, dir, img, "layer"), flip)
	left := filepath.Join(dir, blobsDir, ".new-123")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.AddImage(context.Background(), "example.test/a:1", img), w.Close()); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if err := b.Verify(context.Background(), b.Lock().Artifacts, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed writer left is still there: %v", err)
	}
}

func TestWriterRefusesAnInvalidLock(t *testing.T) {
	if _, err := Create(t.TempDir(), "elsewhere"); err == nil || !strings.Contains(err.Error(), `origin: is "elsewhere"`) {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(10, 1) // its config names no platform
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddImage(context.Background(), "example.test/a:1", img); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), `has platform "/"`) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("wrote the lock all the same: %v", err)
	}
}

func TestManifestIsThatOfOneImage(t *testing.T) {
	const h = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for name, test := range map[string]struct{ raw, says string }{
		"index":         {`{"mediaType":"application/vnd.oci.image.index.v1+json","config":{"digest":"` + h + `"}}`, "not the manifest of one image"},
		"index unnamed": {`{"manifests":[{"digest":"` + h + `"}]}`, "names a blob"},
		"size":          {`{"config":{"digest":"` + h + `","size":-1}}`, "names a blob"},
		"path":          {`{"config":{"digest":"sha256:../../../../../../../../../../../../../../../../../../../../../etc/passwd"}}`, "hash"},
		"no JSON":       {"x", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseManifest([]byte(test.raw)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

func TestHugeManifestIsNotRead(t *testing.T) {
	dir, img, _ := newBundle(t)
	if err := os.Truncate(blobOf(t, dir, img, "manifest"), 64<<20); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir)
	if err := b.Verify(context.Background(), b.Images(amd64), nil); err == nil || !strings.Contains(err.Error(), "has 67108864 bytes") {
		t.Errorf("got %v", err)
	}
}
