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

// Installs tells whether a list of phases takes anything from a bundle.
func Installs(list []Phase) bool {
	return slices.ContainsFunc(list, func(p Phase) bool { return p.Name == "download" || p.Name == "install" || p.Name == "images" })
}

// Platform of this host, linux/amd64.
func (t *Target) Platform() string { return t.platform() }

// Images are those of a cluster, on all its nodes.
func Images(c *config.Cluster) []string {
	images := requiredImages(c, config.Node{Roles: []config.Role{config.ControlPlaneRole}})
	slices.Sort(images)
	return slices.Compact(images)
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
