package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/renameio/v2"

	"github.com/kubewright/kubewright/host"
)

const (
	lockName = "lock.yaml"
	blobsDir = "blobs/sha256"
	newBlob  = ".new-*" // a blob that is being written
)

// Writer makes a bundle. Its methods may be called from several goroutines.
type Writer struct {
	dir string

	mu   sync.Mutex
	lock Lock
}

// Create starts a bundle in dir, which is made if it is missing. Blobs that are there already
// are used again; a lock that is there stays until Close replaces it. A folder has one Writer at a time.
func Create(dir, origin string) (*Writer, error) {
	w := &Writer{dir: dir, lock: Lock{APIVersion: APIVersion, Kind: Kind, Origin: origin}}
	if err := w.lock.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, blobsDir), 0o755); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if err := removeNew(dir); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	return w, nil
}

// removeNew removes what somebody who was killed left half written.
func removeNew(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, blobsDir, newBlob))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// AddFile copies a file into the bundle. Name, Version, Platform and, of a manifest, Type of a are the caller's; the rest is found out.
func (w *Writer) AddFile(ctx context.Context, a Artifact, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("add %s: %w", a, err)
	}
	defer f.Close()
	x, err := writeBlob(ctx, w.dir, f, blob{})
	if err != nil {
		return fmt.Errorf("add %s: %w", a, err)
	}
	a.Type, a.Digest, a.Size = cmp.Or(a.Type, File), x.digest, x.size
	w.add(a)
	return nil
}

// AddImage copies an image into the bundle under its full reference: manifest, config and layers, byte for
// byte as img gives them. The platform is the one that the config names.
func (w *Writer) AddImage(ctx context.Context, name string, img v1.Image) error {
	a, err := w.writeImage(ctx, name, img)
	if err != nil {
		return fmt.Errorf("add image %s: %w", name, err)
	}
	w.add(a)
	return nil
}

// Close writes the lock; until then a reader finds no bundle, or the one that was there before.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lock.Validate(); err != nil {
		return fmt.Errorf("lock of bundle %s: %w", w.dir, err)
	}
	if err := renameio.WriteFile(filepath.Join(w.dir, lockName), w.lock.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write lock of bundle: %w", err)
	}
	return nil
}

// Take is for an artifact whose blobs are in the folder already.
func (w *Writer) Take(a Artifact) { w.add(a) }

func (w *Writer) add(a Artifact) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lock.Artifacts = append(w.lock.Artifacts, a)
}

func (w *Writer) writeImage(ctx context.Context, name string, img v1.Image) (Artifact, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return Artifact{}, fmt.Errorf("read config: %w", err)
	}
	rawConfig, err := img.RawConfigFile()
	if err != nil {
		return Artifact{}, fmt.Errorf("read config: %w", err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		return Artifact{}, fmt.Errorf("read manifest: %w", err)
	}
	manifest, err := parseManifest(raw)
	if err != nil {
		return Artifact{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return Artifact{}, fmt.Errorf("read layers: %w", err)
	}
	if len(layers) != len(manifest.Layers) {
		return Artifact{}, fmt.Errorf("has %d layers, its manifest names %d", len(layers), len(manifest.Layers))
	}

	// Without the variant: containerd and Kubernetes too call arm64/v8 just arm64.
	a := Artifact{Name: name, Type: Image, Platform: config.OS + "/" + config.Architecture, Digest: host.Digest(raw), Size: int64(len(raw))}
	for _, x := range imageBlobs(manifest) {
		a.Size += x.size
	}
	for i, d := range manifest.Layers {
		want := blob{d.Digest.String(), d.Size}
		// Images share layers, and to compress one costs more than to hash it. One that is there
		// but damaged is written again.
		if checkBlob(ctx, w.dir, want, nil) == nil {
			continue
		}
		r, err := layers[i].Compressed()
		if err != nil {
			return a, fmt.Errorf("read layer %s: %w", want.digest, err)
		}
		_, err = writeBlob(ctx, w.dir, r, want)
		r.Close()
		if err != nil {
			return a, fmt.Errorf("layer %s: %w", want.digest, err)
		}
	}
	if _, err := writeBlob(ctx, w.dir, bytes.NewReader(rawConfig), blob{manifest.Config.Digest.String(), manifest.Config.Size}); err != nil {
		return a, fmt.Errorf("config: %w", err)
	}
	if _, err := writeBlob(ctx, w.dir, bytes.NewReader(raw), blob{a.Digest, int64(len(raw))}); err != nil {
		return a, fmt.Errorf("manifest: %w", err)
	}
	return a, nil
}

// writeBlob stores r and returns its digest and size. If want is not zero, other bytes are refused.
// Nothing has a blob's name before it is known to be right.
func writeBlob(ctx context.Context, dir string, r io.Reader, want blob) (blob, error) {
	t, err := os.CreateTemp(filepath.Join(dir, blobsDir), newBlob)
	if err != nil {
		return blob{}, err
	}
	defer os.Remove(t.Name()) // finds nothing once it is renamed
	defer t.Close()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(t, hash), contextReader{ctx, r})
	if err != nil {
		return blob{}, err
	}
	got := blob{digestOf(hash), size}
	if want != (blob{}) && got != want {
		return blob{}, fmt.Errorf("got %d bytes with digest %s, expected %d with %s", got.size, got.digest, want.size, want.digest)
	}
	if err := t.Chmod(0o644); err != nil { // CreateTemp's files are the owner's only
		return blob{}, err
	}
	if err := t.Close(); err != nil {
		return blob{}, err
	}
	return got, os.Rename(t.Name(), blobPath(dir, got.digest))
}
