package phases

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Ready is preflight as far as it needs no bundle, so that a host that is not ready is not told so after
// downloads of minutes. It says nothing but what is in the way: preflight itself comes later, with the rest.
func Ready(ctx context.Context, list []Phase, t *Target, skip []string) error {
	if skipped(skip, "preflight") {
		return nil
	}
	own := *t
	own.Acquires, own.Journal = true, t.Journal.only()
	own.Report = func(e Event) {
		if e.State == Failed {
			t.Report(e)
		}
	}
	return Run(ctx, Select(list, "preflight"), &own, nil)
}

// Acquire gives the target the bundle that get opens, unpacks or makes. It is told of like a
// phase, and comes before all phases: they have to know what the host is made of.
func Acquire(ctx context.Context, t *Target, get func(context.Context, bundle.Moved) (*bundle.Bundle, error)) error {
	return Show(ctx, t, "artifacts", "find out what this host is made of", func(ctx context.Context, moved bundle.Moved) (err error) {
		t.Bundle, err = get(ctx, moved)
		return err
	})
}

// Show tells of some work as of a phase. What moves nothing has changed nothing. The work is nothing
// that a host has to be brought back from.
func Show(ctx context.Context, t *Target, name, short string, work func(context.Context, bundle.Moved) error) error {
	own := *t
	own.Journal = nil
	return Run(ctx, []Phase{{Name: name, Short: short, Run: func(ctx context.Context, own *Target) error {
		items := own.items()
		var moved atomic.Bool
		err := work(ctx, func(item string, done, total int64) {
			moved.Store(true)
			items(item, done, total)
		})
		if moved.Load() {
			own.changed(1)
		}
		return err
	}}}, &own, nil)
}

// items reports how many bytes of many things have been moved.
func (t *Target) items() bundle.Moved {
	var mu sync.Mutex
	all := map[string]func(done, total int64){}
	return func(item string, done, total int64) {
		mu.Lock()
		report, ok := all[item]
		if !ok {
			report = t.moving(item)
			all[item] = report
		}
		mu.Unlock()
		report(done, total)
	}
}

// Lacks tells that this host has no kubelet or no container runtime of its own, so that both
// have to come from somewhere.
func (t *Target) Lacks() bool {
	return t.Facts.Commands["kubelet"] == "" || t.Facts.Commands["containerd"] == "" && len(t.Facts.Sockets) == 0
}

// Installs tells whether a list of phases, but for those that are skipped, takes anything from a bundle.
func Installs(list []Phase, skip []string) bool {
	return slices.ContainsFunc(list, func(p Phase) bool {
		return slices.Contains([]string{"download", "install", "images"}, p.Name) && !skipped(skip, p.Name)
	})
}

// HostLock is the lock that this host was made from before; nil where it was from none.
func (t *Target) HostLock() *bundle.Lock {
	l, err := bundle.ParseLock([]byte(t.Journal.Lock()))
	if err != nil { // there is none, or of another kubewright
		return nil
	}
	return &l
}

// Fits tells that a lock has everything that a host of this role needs for a cluster, in its versions.
func (t *Target) Fits(l bundle.Lock, c *config.Cluster) bool {
	versions := map[string]string{"kubelet": c.Spec.KubernetesVersion}
	for name, v := range c.Spec.Artifacts.Versions {
		if name == "cni-plugins" {
			name = "cni/bridge"
		}
		versions[name] = v
	}
	for name, v := range versions {
		if a, ok := l.Find(name, t.Platform()); !ok || a.Version != v {
			return false
		}
	}
	for _, d := range Documents(c) {
		// A host that joins applies none; a file here is as good as its copy.
		if _, ok := l.Document(d, t.Platform()); !ok && t.Discover == nil && !d.Local() {
			return false
		}
	}
	for _, image := range requiredImages(c, t.Node) {
		if _, ok := l.Find(image, t.Platform()); !ok {
			return false
		}
	}
	return true
}

// noteLock writes down what this host is made from, for the next run.
func (t *Target) noteLock(ctx context.Context) error {
	if t.Bundle == nil {
		return nil
	}
	lock := t.Bundle.LockText()
	if t.Journal.Lock() == lock {
		return nil
	}
	return t.note(ctx, Step{Kind: aLock, Name: lockName, After: lock})
}

// fetch brings what a phase that is run alone finds missing: else download has.
func (t *Target) fetch(ctx context.Context, artifacts []bundle.Artifact) error {
	if t.Bundle == nil || !t.Bundle.Remote() || t.Bundle.Has(artifacts) {
		return nil
	}
	_, err := t.Bundle.Fetch(ctx, artifacts, t.items())
	return err
}

// Images are those of a cluster, on all its nodes.
func Images(c *config.Cluster) []string {
	images := append(requiredImages(c, config.Node{Roles: []config.Role{config.ControlPlaneRole}}), requiredImages(c, config.Node{})...)
	slices.Sort(images)
	return slices.Compact(images)
}

// Documents are the manifests that a cluster is made of beside what kubewright writes itself.
func Documents(c *config.Cluster) []bundle.Document {
	switch cni := c.Spec.Network.CNI; cni.Name {
	case "calico":
		return []bundle.Document{{Name: "calico", Version: cni.Calico.Version}}
	case "manifest":
		return []bundle.Document{{Name: "pod-network", Source: cni.Manifest.Source, Digest: "sha256:" + cni.Manifest.SHA256}}
	}
	return nil
}

// download brings what this host needs from the bundle and has not into the cache.
func download(ctx context.Context, t *Target) error {
	if t.Bundle == nil || !t.Bundle.Remote() {
		return nil
	}
	if _, ok := t.Host.(*host.Recorder); ok { // the cache is not what a plan is about
		return nil
	}
	wanted, _, _, err := t.installs(ctx)
	if err != nil {
		return err
	}
	n, err := t.Bundle.Fetch(ctx, append(wanted, t.imports(ctx)...), t.items())
	t.changed(n)
	return err
}
