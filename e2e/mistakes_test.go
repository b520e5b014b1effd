package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// What users get wrong on the way to a control plane: each mistake is refused before anything
// is touched, with the next step.
func TestMistakes(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 5*time.Minute)
	const etcd = "registry.k8s.io/etcd:3.6.8-0"
	file, layer, manifest := damagedBundle(ctx, t, l, "kubelet", aFile), damagedBundle(ctx, t, l, etcd, aLayer), damagedBundle(ctx, t, l, etcd, aManifest)
	lock, packed := damagedBundle(ctx, t, l, "kubelet", aLock), damagedBundle(ctx, t, l, "kubelet", aTar)
	var mounts []lab.Mount
	for name, d := range map[string]damaged{"file": file, "layer": layer, "manifest": manifest, "lock": lock, "tar": packed} {
		mounts = append(mounts, lab.Mount{Source: d.dir, Target: "/mnt/damaged-" + name})
	}
	h := hosts(ctx, t, lab.HostOptions{Mounts: mounts}, "mistaken")[0]
	before := state(ctx, t, h)
	initWith := func(t *testing.T, document string, args ...string) []string {
		t.Helper()
		if err := h.Write(ctx, "/root/mistaken.yaml", 0o644, strings.NewReader(document)); err != nil {
			t.Fatal(err)
		}
		return append([]string{tool, "init", "--config", "/root/mistaken.yaml"}, args...)
	}
	good := cluster.Document("")

	t.Run("not root", func(t *testing.T) {
		asNobody := []string{"setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", tool}
		refused(ctx, t, h, append(asNobody, "init", "--bundle", lab.BundleDir), "this is not root", "IsPrivilegedUser", "run it with sudo")
	})
	t.Run("cgroup v1 without the opt-in", func(t *testing.T) {
		if v2 := run(ctx, t, h, "sh", "-c", "test ! -e /sys/fs/cgroup/cgroup.controllers || echo yes"); v2 != "" {
			t.Skip("this machine runs cgroup v2")
		}
		without := strings.Replace(good, "failCgroupV1: false", "", 1)
		refused(ctx, t, h, initWith(t, without, cluster.Bundle...), "[SystemVerification] this host runs cgroup v1", "spec.kubelet.failCgroupV1: false", "systemd.unified_cgroup_hierarchy=1")
	})
	t.Run("a port in use", func(t *testing.T) {
		listen(ctx, t, h, "6443")
		refused(ctx, t, h, initWith(t, good, cluster.Bundle...), "[Port-6443] port 6443 is in use, and the API server needs it", "ss -ltnp sport = :6443", "--ignore-preflight-errors")
	})
	t.Run("a pod range that overlaps the hosts' network", func(t *testing.T) {
		overlapping := cluster.Document("network:\n  podCIDR: 10.213.0.0/16")
		refused(ctx, t, h, initWith(t, overlapping, cluster.Bundle...), "[NetworkOverlap] the pod range 10.213.0.0/16 overlaps the host's address "+h.IP, "choose another with --pod-network-cidr, or spec.network.podCIDR in the document")
	})
	t.Run("a service range that overlaps the hosts' network", func(t *testing.T) {
		overlapping := cluster.Document("network:\n  serviceCIDR: 10.213.0.0/16")
		refused(ctx, t, h, initWith(t, overlapping, cluster.Bundle...), "[NetworkOverlap] the service range 10.213.0.0/16 overlaps the host's address "+h.IP, "choose another with --service-cidr, or spec.network.serviceCIDR in the document")
	})
	t.Run("an unknown field", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, cluster.Document("netwerk: {}"), cluster.Bundle...), "spec.netwerk: unknown field: write one of ", "network")
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		listen(ctx, t, h, "2379")
		overlapping := cluster.Document("network:\n  podCIDR: 10.213.0.0/16")
		refused(ctx, t, h, initWith(t, overlapping, "--bundle", "/mnt/damaged-file"), "[NetworkOverlap]", "[Port-2379]", "[Artifacts]")
	})
	t.Run("a flipped byte in a binary", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-file"), "[Artifacts]", "kubelet "+lab.KubernetesVersion, file.digest, "damaged or was tampered with; make or fetch it again")
	})
	t.Run("a flipped byte in a layer of an image", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-layer"), "[Artifacts]", etcd, layer.digest, "damaged or was tampered with; make or fetch it again")
	})
	t.Run("a flipped byte in a manifest", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-manifest"), "[Artifacts]", etcd, manifest.digest, "damaged or was tampered with; make or fetch it again")
	})
	t.Run("a lock that says something else", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-lock"), "[Artifacts]", "kubelet "+lab.KubernetesVersion, "is missing", "damaged or was tampered with; make or fetch it again")
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-lock", "--lock", lock.digest), "--lock asks for "+lock.digest, "somebody has changed it")
	})
	t.Run("a flipped byte in a packed bundle", func(t *testing.T) {
		refused(ctx, t, h, initWith(t, good, "--bundle", "/mnt/damaged-tar/bundle.tar"), "kubelet "+lab.KubernetesVersion, packed.digest, "damaged or was tampered with; make or fetch it again")
		if left := run(ctx, t, h, "sh", "-c", "find /var/cache/kubewright -name '"+strings.TrimPrefix(packed.digest, "sha256:")+"'; ls /var/cache/kubewright/locks"); left != "" {
			t.Errorf("it left %s", left)
		}
	})

	if after := state(ctx, t, h); after != before {
		t.Errorf("a refused init changed the host.\nbefore:\n%s\nafter:\n%s", before, after)
	}

	// A phase alone is run without preflight: what it writes, it verifies itself.
	phase := func(t *testing.T, name, bundle string) []string {
		return append([]string{tool, "init", "phase", name}, initWith(t, good, "--bundle", bundle)[2:]...)
	}
	t.Run("a flipped byte in a binary that is being installed", func(t *testing.T) {
		refused(ctx, t, h, phase(t, "install", "/mnt/damaged-file"), "/usr/local/bin/kubelet", file.digest, "damaged or was tampered with; make or fetch it again")
		if left := run(ctx, t, h, "sh", "-c", "ls -A /usr/local/bin | grep kubelet; true"); left != "" {
			t.Errorf("it left %s", left)
		}
	})
	t.Run("a flipped byte in an image that is being imported", func(t *testing.T) {
		run(ctx, t, h, phase(t, "install", lab.BundleDir)...)
		run(ctx, t, h, phase(t, "runtime", lab.BundleDir)...)
		refused(ctx, t, h, phase(t, "images", "/mnt/damaged-layer"), "registry.k8s.io/etcd:3.6.8-0", layer.digest, "damaged or was tampered with; make or fetch it again")
		there := run(ctx, t, h, "sh", "-c", "ctr -n k8s.io content ls -q; crictl images -o json")
		if strings.Contains(there, layer.digest) || strings.Contains(there, "registry.k8s.io/etcd") {
			t.Errorf("containerd has it:\n%s", there)
		}
	})
}

// state is all that a refused command must not change.
func state(ctx context.Context, t *testing.T, h *lab.Host) string {
	t.Helper()
	return run(ctx, t, h, "sh", "-c", `find /etc /usr/local /opt /var/lib ! -path '/var/lib/systemd*' ! -type d -printf '%p %s %T@\n' | sort
		ls /etc/systemd/system /run/containerd 2>/dev/null; true`)
}

// damaged is a bundle with a wrong byte, and the digest of what should be there.
type damaged struct{ dir, digest string }

// Where the byte is.
const (
	aFile     = "a file"
	aLayer    = "the last layer of an image"
	aManifest = "the manifest of an image"
	aLock     = "what the lock says of an artifact; the digest is the right lock's"
	aTar      = "a file in bundle.tar, which holds nothing else"
)

// damagedBundle is a copy of the lab's bundle in which one byte is another.
func damagedBundle(ctx context.Context, t *testing.T, l *lab.Lab, artifact, where string) damaged {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	from, err := l.Bundle(ctx)
	must(err)
	// Beside the cache: all other blobs are links.
	dir, err := os.MkdirTemp(filepath.Dir(from), "damaged-")
	must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := bundle.Open(from)
	must(err)
	a, ok := b.Find(artifact, "linux/"+runtime.GOARCH)
	if !ok {
		t.Fatalf("the bundle has no %s", artifact)
	}
	blob := func(root, digest string) string {
		return filepath.Join(root, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
	}
	d := damaged{dir, a.Digest}
	at := blob(from, d.digest)
	switch where {
	case aTar:
		file := filepath.Join(dir, "bundle.tar")
		must(b.Pack(ctx, []bundle.Artifact{a}, file, nil))
		flipByte(t, file, file)
		return d
	case aLayer:
		content, err := os.ReadFile(at)
		must(err)
		manifest, err := v1.ParseManifest(bytes.NewReader(content))
		must(err)
		d.digest = manifest.Layers[len(manifest.Layers)-1].Digest.String()
		at = blob(from, d.digest)
	case aLock:
		at = filepath.Join(from, "lock.yaml")
	}
	must(filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if path != at {
			return os.Link(path, to)
		}
		if where == aLock {
			lock, err := os.ReadFile(path)
			hex := strings.TrimPrefix(d.digest, "sha256:")
			return errors.Join(err, os.WriteFile(to, bytes.Replace(lock, []byte(hex), []byte(strings.Repeat("0", 64)), 1), 0o644))
		}
		flipByte(t, path, to)
		return nil
	}))
	if where == aLock {
		d.digest = b.Lock().Digest()
	}
	return d
}

// flipByte copies a file with another byte in its middle.
func flipByte(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(to, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
