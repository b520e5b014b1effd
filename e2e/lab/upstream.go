package lab

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// release is a file, or an archive of files, as upstream publishes it.
type release struct {
	name, url string
	sum       bool              // its digest lies beside it
	members   map[string]string // of an archive: path in it -> binary, see [Builder.Binary]
}

// releases are the files of a node, at upstream's addresses.
func releases() []release {
	const kube, github = "https://dl.k8s.io/release/v{version}/bin/linux/{arch}/", "https://github.com/"
	plugins := map[string]string{}
	for _, name := range bundledFiles() {
		if plugin, ok := strings.CutPrefix(name, "cni/"); ok {
			plugins[plugin] = name
		}
	}
	return []release{
		{name: "kubelet", url: kube + "kubelet", sum: true},
		{name: "kubectl", url: kube + "kubectl", sum: true},
		{name: "containerd", url: github + "containerd/containerd/releases/download/v{version}/containerd-{version}-linux-{arch}.tar.gz",
			members: map[string]string{"bin/containerd": "containerd", "bin/containerd-shim-runc-v2": "containerd-shim-runc-v2", "bin/ctr": "ctr"}},
		{name: "runc", url: github + "opencontainers/runc/releases/download/v{version}/runc.{arch}"},
		{name: "crictl", url: github + "kubernetes-sigs/cri-tools/releases/download/v{version}/crictl-v{version}-linux-{arch}.tar.gz",
			members: map[string]string{"crictl": "crictl"}},
		{name: "cni-plugins", url: github + "containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-{arch}-v{version}.tgz",
			members: plugins},
	}
}

// binary is one whose version is that of the release.
func (r release) binary() string {
	if r.name == "cni-plugins" {
		return "cni/bridge"
	}
	return r.name
}

// Upstream returns a folder that holds the lab's binaries as upstream publishes them, for this machine's
// architecture. What upstream has at https://HOST/PATH is at files/HOST/PATH: with a server over the folder
// files, a mirror. catalogue.yaml is kubewright's catalogue of just these files, with their digests.
func (b *Builder) Upstream(ctx context.Context) (string, error) {
	parts := []string{runtime.GOARCH, fmt.Sprint(releases())}
	for _, m := range modules() {
		k, err := b.moduleKey(m)
		if err != nil {
			return "", err
		}
		parts = append(parts, k)
	}
	code, err := treeKey(filepath.Join(b.source, "e2e/lab"), func(p string) bool {
		return slices.Contains([]string{"upstream.go", "layer.go"}, filepath.Base(p))
	})
	if err != nil {
		return "", err
	}
	return b.make(ctx, "upstream", "upstream's files", key(append(parts, code)...), b.publish)
}

func (b *Builder) publish(ctx context.Context, dir string) error {
	defaults, files := map[string]string{}, map[string]any{}
	for _, r := range releases() {
		m, err := moduleOf(r.binary())
		if err != nil {
			return err
		}
		address := strings.NewReplacer("{version}", strings.TrimPrefix(m.version, "v"), "{arch}", runtime.GOARCH).Replace(r.url)
		file := filepath.Join(dir, "files", strings.TrimPrefix(address, "https://"))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := b.writeRelease(ctx, r, file); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		sum, err := sumOf(file)
		if err != nil {
			return err
		}
		f := map[string]any{"url": r.url, "versions": map[string]any{m.version: map[string]string{runtime.GOARCH: "sha256:" + sum}}}
		if len(r.members) > 0 {
			f["members"] = r.members
		}
		if r.sum {
			f["sum"] = ".sha256"
			if err := os.WriteFile(file+".sha256", []byte(sum), 0o644); err != nil {
				return err
			}
		} else {
			defaults[r.name] = m.version // the others have Kubernetes' version
		}
		files[r.name] = f
	}
	minor := KubernetesVersion[:strings.LastIndex(KubernetesVersion, ".")]
	catalogue, err := yaml.Marshal(map[string]any{"apiVersion": "kubewright.dev/v1alpha1", "kind": "Catalogue",
		"defaults": map[string]any{minor: defaults}, "files": files})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "catalogue.yaml"), catalogue, 0o644)
}

func (b *Builder) writeRelease(ctx context.Context, r release, file string) error {
	if len(r.members) == 0 {
		from, err := b.Binary(ctx, r.name)
		if err != nil {
			return err
		}
		return os.Link(from, file) // the cache is one file system
	}
	var entries []entry
	for _, at := range slices.Sorted(maps.Keys(r.members)) {
		from, err := b.Binary(ctx, r.members[at])
		if err != nil {
			return err
		}
		if path.Dir(at) == "." {
			at = "./" + at // as upstream packs its plugins
		}
		entries = append(entries, entry{path: at, from: from})
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := writeTar(z, entries); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}

// sumOf is the sha256 of a file, as hex.
func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
