package phases

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Found is what a host was like before its first change, as far as what runs on a node may
// change it without asking us.
type Found struct {
	// Node: it was a node already (kubeadm's, say), so that nothing of Kubernetes there is
	// worth keeping.
	Node    bool                `json:"node,omitempty"`
	Paths   map[string][]string `json:"paths,omitempty"`   // of ownDirs and sharedDirs that were there: all below them
	Files   []string            `json:"files,omitempty"`   // of ownFiles that were there
	Sysctls map[string]string   `json:"sysctls,omitempty"` // of manifests.NodeSysctls
	Links   []string            `json:"links,omitempty"`   // network interfaces
	Mounts  []string            `json:"mounts,omitempty"`  // mount points, as kubeletMounts has them
	Tables  []string            `json:"tables,omitempty"`  // of nftables, and their chains: "ip nat", "ip nat OUTPUT"
}

// ownDirs belong to Kubernetes and its programs: what appears in them is theirs. The
// container runtime's only where it came from us.
func ownDirs(containerd bool) []string {
	// The manifests go last: etcd's alone may know where its data are.
	dirs := []string{pki.Dir, manifests.KubeletDir, "/var/lib/cni", "/run/flannel", manifests.ManifestDir}
	if containerd {
		dirs = append(dirs, "/var/lib/containerd", "/run/containerd", "/opt/containerd", "/run/nri")
	}
	return dirs
}

// laterDirs are theirs where they were not there before: others put things there, too.
var laterDirs = []string{"/etc/kubernetes/tmp", "/usr/libexec/kubernetes"}

// ownFiles are theirs in folders where others have files, too.
var ownFiles = []string{
	pki.AdminConf, pki.SuperAdminConf, pki.KubeletConf, pki.BootstrapKubeletConf, pki.ControllerManagerConf, pki.SchedulerConf,
	manifests.LoadBalancerConfig,
	"/etc/cni/net.d/10-flannel.conflist", "/opt/cni/bin/flannel", "/run/xtables.lock",
}

// sharedDirs go when they are empty and were not there before, the deepest first.
var sharedDirs = []string{"/etc/cni/net.d", "/etc/cni", "/opt/cni/bin", "/opt/cni", "/etc/kubernetes", "/run/netns", "/usr/libexec"}

// ledger notes what is here, once in a host's life as a node.
func ledger(ctx context.Context, t *Target) error {
	if t.Journal == nil || t.found() != nil {
		return nil
	}
	f := &Found{Paths: map[string][]string{}}
	if t.Journal.Empty() { // else what makes it a node may be ours
		f.Node = t.Facts.Present[pki.KubeletConf] || t.Facts.Present[manifests.Path(manifests.APIServer)]
	}
	g, gctx := errgroup.WithContext(ctx) // all at once: over SSH a question is a round trip
	var mu sync.Mutex
	for _, dir := range slices.Concat(ownDirs(t.ownsContainerd()), laterDirs, sharedDirs) {
		g.Go(func() error {
			names, err := t.below(gctx, dir)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			f.Paths[dir] = names
			return err
		})
	}
	g.Go(func() error {
		infos, err := t.Host.Stat(gctx, ownFiles...)
		for _, p := range ownFiles {
			if _, ok := infos[p]; ok {
				f.Files = append(f.Files, p)
			}
		}
		return err
	})
	g.Go(func() (err error) {
		f.Sysctls, err = t.sysctls(gctx, manifests.NodeSysctls())
		return err
	})
	g.Go(func() (err error) {
		if f.Links, err = t.Host.List(gctx, "/sys/class/net"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	g.Go(func() (err error) {
		f.Mounts, err = t.kubeletMounts(gctx)
		return err
	})
	g.Go(func() error {
		tables, err := t.nftables(gctx)
		for _, n := range tables {
			f.Tables = append(f.Tables, n.name)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	t.changed(1)
	return t.note(ctx, Step{Kind: before, Found: f})
}

// note writes steps into the journal, before they are taken.
func (t *Target) note(ctx context.Context, steps ...Step) error {
	return t.Journal.add(ctx, t.phase, steps...)
}

// below are all paths below a folder, relative to it; of a missing one an fs.ErrNotExist.
func (t *Target) below(ctx context.Context, dir string) ([]string, error) {
	infos, err := t.Host.Stat(ctx, dir)
	if err != nil {
		return nil, err
	}
	if _, ok := infos[dir]; !ok {
		return nil, fs.ErrNotExist
	}
	out, err := t.Host.Run(ctx, host.Query("find", "-H", dir, "-xdev", "-mindepth", "1", "-printf", `%P\0`))
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(out.Stdout), func(r rune) bool { return r == 0 }), nil
}

func (t *Target) sysctl(ctx context.Context, name string) (string, error) {
	b, err := t.Host.ReadFile(ctx, sysctlPath(name))
	return string(bytes.TrimSpace(b)), err
}

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// sysctls are the values of those that this kernel has, by name.
func (t *Target) sysctls(ctx context.Context, wanted []manifests.Sysctl) (map[string]string, error) {
	var paths []string
	for _, s := range wanted {
		paths = append(paths, sysctlPath(s.Name))
	}
	contents, err := readAll(ctx, t.Host, paths...)
	values := map[string]string{}
	for _, s := range wanted {
		if b, ok := contents[sysctlPath(s.Name)]; ok {
			values[s.Name] = string(bytes.TrimSpace(b))
		}
	}
	return values, err
}

// unknownTo are the topmost of the paths below a folder that were not there before.
func unknownTo(known, now []string) (news []string) {
	slices.Sort(now)
	for _, p := range now {
		if slices.Contains(known, p) || slices.ContainsFunc(news, func(n string) bool { return strings.HasPrefix(p, n+"/") }) {
			continue
		}
		news = append(news, p)
	}
	return news
}

// counts tells that what was here is known, and worth keeping.
func (f *Found) counts() bool { return f != nil && !f.Node }

// hadPath tells whether a path was there before the first change.
func (f *Found) hadPath(p string) bool {
	if !f.counts() {
		return false
	}
	if slices.Contains(f.Files, p) {
		return true
	}
	_, ok := f.Paths[p]
	return ok || slices.Contains(f.Paths[path.Dir(p)], path.Base(p))
}
