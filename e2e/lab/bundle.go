package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/bundle"
)

// bundledFiles are the binaries of a bundle: what a host needs beside its images. kubeadm is none of them.
func bundledFiles() []string {
	return strings.Fields(`kubelet kubectl crictl containerd containerd-shim-runc-v2 ctr runc
		cni/bandwidth cni/bridge cni/host-local cni/loopback cni/portmap cni/ptp cni/tuning`)
}

// Bundle returns the folder of a bundle with everything that a cluster is made of, and kubewright's own image as
// kubewright is now.
func (b *Builder) Bundle(ctx context.Context) (string, error) {
	upstream, err := b.upstream(ctx)
	if err != nil {
		return "", err
	}
	binary, err := b.Kubewright(ctx)
	if err != nil {
		return "", err
	}
	version, err := ownVersion(ctx, binary)
	if err != nil {
		return "", err
	}
	f, err := os.Open(binary)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	code, err := b.packingCode()
	if err != nil {
		return "", err
	}
	k := key(upstream, version, hex.EncodeToString(sum.Sum(nil)), code)
	return b.make(ctx, "bundle", "bundle with kubewright's own image", k, func(ctx context.Context, dir string) error {
		return extend(ctx, upstream, dir, func(w *bundle.Writer) error { return w.AddOwn(ctx, version, binary) })
	})
}

// ownVersion is what a kubewright says that it is.
func ownVersion(ctx context.Context, binary string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, "version", "-o", "json").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w", binary, err)
	}
	var v struct{ Version string }
	if err := json.Unmarshal(out, &v); err != nil || v.Version == "" {
		return "", fmt.Errorf("%s version says %q: %w", binary, out, err)
	}
	return v.Version, nil
}

// extend makes a bundle of another one, whose blobs it shares, and of what is added.
func extend(ctx context.Context, from, dir string, add func(*bundle.Writer) error) error {
	if err := run(exec.CommandContext(ctx, "cp", "--recursive", "--link", from+"/.", dir)); err != nil {
		return err
	}
	b, err := bundle.Open(from)
	if err != nil {
		return err
	}
	w, err := bundle.Create(dir, bundle.Built)
	if err != nil {
		return err
	}
	for _, a := range b.Lock().Artifacts {
		w.Take(a)
	}
	if err := add(w); err != nil {
		return err
	}
	return w.Close()
}

// upstream returns the folder of a bundle without kubewright's own image, which is another after every change.
func (b *Builder) upstream(ctx context.Context) (string, error) {
	if _, err := b.Rootfs(ctx); err != nil { // outside of make, for a line of its own
		return "", err
	}
	parts := []string{rootfsKey(), pauseSource, runtime.GOARCH, fmt.Sprint(images(), bundledFiles())}
	for _, m := range modules() {
		if _, err := b.module(ctx, m); err != nil {
			return "", err
		}
		k, err := b.moduleKey(m)
		if err != nil {
			return "", err
		}
		parts = append(parts, k)
	}
	code, err := b.packingCode()
	if err != nil {
		return "", err
	}
	return b.make(ctx, "bundle-without", "bundle without kubewright's own image", key(append(parts, code)...), b.pack)
}

// packingCode is the hash of the sources that pack: cheaper than a version that somebody forgets to raise.
func (b *Builder) packingCode() (string, error) {
	lab, err := treeKey(filepath.Join(b.source, "e2e/lab"), func(p string) bool {
		return slices.Contains([]string{"bundle.go", "images.go", "layer.go", "closure.go"}, filepath.Base(p)) &&
			filepath.Dir(p) == filepath.Join(b.source, "e2e/lab")
	})
	if err != nil {
		return "", err
	}
	format, err := treeKey(filepath.Join(b.source, "bundle"), func(p string) bool {
		return slices.Contains([]string{"writer.go", "lock.go", "own.go"}, filepath.Base(p)) // what writes a bundle
	})
	return key(lab, format), err
}

func (b *Builder) pack(ctx context.Context, dir string) error {
	w, err := bundle.Create(dir, bundle.Built)
	if err != nil {
		return err
	}
	for _, name := range bundledFiles() {
		m, err := moduleOf(name)
		if err != nil {
			return err
		}
		file, err := b.Binary(ctx, name)
		if err != nil {
			return err
		}
		a := bundle.Artifact{Name: name, Version: m.version, Platform: "linux/" + runtime.GOARCH}
		if err := w.AddFile(ctx, a, file); err != nil {
			return err
		}
	}
	if err := b.addImages(ctx, dir, w, images()); err != nil {
		return err
	}
	return w.Close()
}
