package bundle

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The image of a binary is one layer with that binary, and the same each time.
func TestOwnImageIsItsBinary(t *testing.T) {
	source, binary := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "kubewright")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const platform = "linux/amd64"
	var digests []string
	for range 2 {
		dir := t.TempDir()
		w, err := Create(dir, Built)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.AddOwn(t.Context(), "v1.2.3", binary); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, ok := b.Find(OwnRepository+":v1.2.3", platform)
		if !ok || !IsOwnImage(a.Name) || a.Type != Image {
			t.Fatalf("the lock has %v", b.Lock().Artifacts)
		}
		if err := b.Verify(t.Context(), b.Lock().Artifacts, nil); err != nil {
			t.Error(err)
		}
		digests = append(digests, a.Digest)
		_, manifest, err := b.manifest(a)
		if err != nil {
			t.Fatal(err)
		}
		if len(manifest.Layers) != 1 {
			t.Fatalf("%d layers", len(manifest.Layers))
		}
		layer, err := os.Open(blobPath(dir, manifest.Layers[0].Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		defer layer.Close()
		z, err := zstd.NewReader(layer)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r := tar.NewReader(z)
		h, err := r.Next()
		if err != nil || h.Name != "kubewright" || h.Mode != 0o755 {
			t.Fatalf("the layer begins with %+v, %v", h, err)
		}
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(binary); err != nil || string(got) != string(want) {
			t.Errorf("the binary in the layer has %d bytes, the original %d: %v", len(got), len(want), err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("the layer has more: %v", err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("one binary made %v", digests)
	}
}

func TestOnlyLinuxBinariesMakeAnImage(t *testing.T) {
	for name, content := range map[string]string{"mach-o": "\xcf\xfa\xed\xfe and more of it, which nobody reads", "empty": "", "script": "#!/bin/sh\n"} {
		file := filepath.Join(t.TempDir(), "kubewright")
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := BinaryPlatform(file); !errors.Is(err, ErrNoLinux) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := BinaryPlatform("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
