package bundle

import (
	"archive/tar"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// OwnRepository holds kubewright's own image, which the pods of `kubewright verify` run.
const OwnRepository = "ghcr.io/kubewright/kubewright"

// OwnImage is the image's full reference, in a version of kubewright.
func OwnImage(version string) string { return OwnRepository + ":" + version }

// IsOwnImage tells whether an image is kubewright's own, in whatever version.
func IsOwnImage(name string) bool { return strings.HasPrefix(name, OwnRepository+":") }

// ErrNoLinux is a binary that no container can run.
var ErrNoLinux = errors.New("not a static Linux binary")

// BinaryPlatform is what a binary was built for, linux/amd64, say; the error wraps ErrNoLinux where that is not Linux.
func BinaryPlatform(path string) (string, error) {
	f, err := elf.Open(path)
	var form *elf.FormatError
	switch {
	case errors.As(err, &form) || errors.Is(err, io.EOF):
		return "", fmt.Errorf("%s: %w", path, ErrNoLinux)
	case err != nil:
		return "", err
	}
	defer f.Close()
	arch := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP { // it needs a loader, which the image has not
			arch = ""
		}
	}
	if arch == "" {
		return "", fmt.Errorf("%s: %w", path, ErrNoLinux)
	}
	return "linux/" + arch, nil
}

// Running is the path of the binary that runs, and its platform; ok tells whether an image can be made of it.
func Running() (path, platform string, ok bool) {
	path, err := os.Executable()
	if err != nil || runtime.GOOS != "linux" {
		return "", "", false
	}
	platform, err = BinaryPlatform(path)
	return path, platform, err == nil
}

// AddOwn copies kubewright's own image into the bundle, made of a binary: one layer, with it at /kubewright. The same
// binary always makes the same image.
func (w *Writer) AddOwn(ctx context.Context, version, binary string) error {
	a, err := w.writeOwn(ctx, version, binary)
	if err != nil {
		return err
	}
	w.add(a)
	return nil
}

func (w *Writer) writeOwn(ctx context.Context, version, binary string) (Artifact, error) {
	img, err := ownImage(binary)
	if err != nil {
		return Artifact{}, fmt.Errorf("make an image of %s: %w", binary, err)
	}
	return w.writeImage(ctx, OwnImage(version), img)
}

// AddOwn brings kubewright's own image into the cache that the bundle is of, and tells what a lock says of it.
func (b *Bundle) AddOwn(ctx context.Context, version, binary string) (Artifact, error) {
	return (&Writer{dir: b.dir}).writeOwn(ctx, version, binary)
}

func ownImage(binary string) (v1.Image, error) {
	platform, err := BinaryPlatform(binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return tarOf(binary) },
		tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, _ = strings.Cut(platform, "/")
	config.Config = v1.Config{Entrypoint: []string{"/kubewright"}, WorkingDir: "/"}
	return mutate.ConfigFile(img, config)
}

// tarOf is a layer with a binary in it, made while it is read: the binary is never in memory.
func tarOf(binary string) (io.ReadCloser, error) {
	f, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		defer f.Close()
		t := tar.NewWriter(w)
		err := t.WriteHeader(&tar.Header{Name: "kubewright", Mode: 0o755, Size: info.Size(), ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = io.Copy(t, f)
		}
		w.CloseWithError(errors.Join(err, t.Close()))
	}()
	return r, nil
}
