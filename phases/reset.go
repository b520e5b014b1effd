package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// Reset takes a host out of its cluster and brings it back to what it was before, in the
// order in which nothing that was removed comes back. What it was, the journal knows;
// without one (on a node that kubeadm made) folders, binaries, images and the container
// runtime stay.
func Reset() []Phase {
	return []Phase{
		{Name: "kubelet-stop", Short: "stop the kubelet", Run: stopKubelet},
		// The API server and etcd go on without the kubelet, which cannot register the node again.
		{Name: "delete-node", Short: "delete the Node object, where this host has the right to", After: []string{"kubelet-stop"}, Run: deleteNode},
		{Name: "leave-etcd", Short: "take this host's member out of etcd", After: []string{"delete-node"}, Run: leaveEtcd},
		{Name: "remove-pods", Short: "remove all pods with their containers and cgroups", After: []string{"leave-etcd"}, Run: removePods},
		{Name: "unmount", Short: "unmount the pods' volumes", After: []string{"remove-pods"}, Run: unmount},
		{Name: "clean-network", Short: "remove the links, rules and tables of the pod network and of kube-proxy", After: []string{"remove-pods"}, Run: cleanNetwork},
		{Name: "runtime-stop", Short: "stop a container runtime that init or join installed, or remove the images that they imported", After: []string{"unmount", "clean-network"}, Run: stopRuntime},
		{Name: "remove-files", Short: "remove configuration, certificates and data", After: []string{"runtime-stop"}, Run: removeFiles},
		{Name: "restore", Short: "bring back files, units and sysctls as they were before", After: []string{"remove-files"}, Run: restore},
	}
}

func stopKubelet(ctx context.Context, t *Target) error {
	if !t.Facts.Systemd {
		return nil
	}
	return t.stopUnit(ctx, "kubelet")
}

// stopUnit has a unit neither run now nor after a reboot.
func (t *Target) stopUnit(ctx context.Context, unit string) error {
	// Not is-active: a unit that crashes and is restarted is not active, and would come back.
	state, err := t.unitState(ctx, unit)
	if err != nil || state == "disabled inactive" || state == " inactive" {
		return err
	}
	return t.do(ctx, "systemctl", "disable", "--quiet", "--now", unit)
}

// crictl is the beginning of a command. Its own limit of two seconds is less than a busy
// runtime takes to stop a pod.
func (t *Target) crictl() []string {
	return []string{"crictl", "--runtime-endpoint", t.endpoint(), "--timeout", "2m"}
}

func removePods(ctx context.Context, t *Target) error {
	crictl := t.crictl()
	out, err := t.Host.Run(ctx, host.Query(append(crictl, "pods", "--quiet")...))
	if err != nil {
		infos, e := t.Host.Stat(ctx, t.socket())
		if _, ok := infos[t.socket()]; ok || e != nil {
			return fmt.Errorf("list the pods: %w: see to it that the container runtime answers, or leave them with --skip-phases remove-pods", err)
		}
		t.notice("there is no container runtime at %s to remove pods: their processes are killed", t.socket())
		return t.removeCgroups(ctx)
	}
	if ids := strings.Fields(string(out.Stdout)); len(ids) > 0 {
		if err := t.do(ctx, append(append(crictl, "rmp", "--force"), ids...)...); err != nil {
			return fmt.Errorf("remove pods: %w: run reset again", err)
		}
	}
	return t.removeCgroups(ctx)
}

// removeCgroups removes those that the kubelet has made for pods, below every controller, and whatever runs in them yet.
func (t *Target) removeCgroups(ctx context.Context) error {
	find := []string{"find", "/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "(", "-name", "kubepods", "-o", "-name", "kubepods.slice", ")"}
	out, err := t.Host.Run(ctx, host.Query(find...))
	if err != nil {
		return nil // no cgroups where find looks
	}
	groups := strings.Fields(string(out.Stdout))
	if len(groups) == 0 {
		return nil
	}
	if err := t.killIn(ctx, append(groups, "-name", "cgroup.procs")...); err != nil {
		return err
	}
	if t.Facts.Systemd { // its slices are its own
		var exit *host.ExitError
		if err := t.do(ctx, "systemctl", "stop", "kubepods.slice"); err != nil && (!errors.As(err, &exit) || exit.Code != notLoaded) {
			return err
		}
		if out, err = t.Host.Run(ctx, host.Query(find...)); err != nil {
			return err
		}
		if groups = strings.Fields(string(out.Stdout)); len(groups) == 0 {
			return nil
		}
	}
	return t.do(ctx, append(append([]string{"find"}, groups...), "-depth", "-type", "d", "-delete")...)
}

// notLoaded is systemctl's exit code for a unit that it does not know: the slice of a reset that was cut short.
const notLoaded = 5

// killIn kills the processes that are in cgroups: those whose cgroup.procs find finds there.
func (t *Target) killIn(ctx context.Context, where ...string) error {
	out, err := t.Host.Run(ctx, host.Query(append(append([]string{"find"}, where...), "-exec", "cat", "{}", "+")...))
	if err != nil {
		return nil // cgroups go while they are looked at; the next step says if they did not
	}
	pids := strings.Fields(string(out.Stdout))
	slices.Sort(pids)
	if pids = slices.Compact(pids); len(pids) == 0 {
		return nil
	}
	var exit *host.ExitError
	if err := t.do(ctx, append([]string{"kill", "-KILL"}, pids...)...); err != nil && !errors.As(err, &exit) { // else some have ended by themselves
		return err
	}
	return nil
}

// unmount takes the newest mounts first.
func unmount(ctx context.Context, t *Target) error {
	mounts, err := t.kubeletMounts(ctx)
	if err != nil {
		return err
	}
	return t.unmountAll(ctx, mounts)
}

func (t *Target) unmountAll(ctx context.Context, mounts []string) error {
	var all *multierror.Error
	for _, m := range mounts {
		if err := t.do(ctx, "umount", m); err != nil {
			all = multierror.Append(all, err)
		}
	}
	return config.Errors(all)
}

// kubeletMounts are the mount points in the kubelet's folder, wherever that really is: the
// kernel names them by their resolved paths. And the network namespaces of pods.
func (t *Target) kubeletMounts(ctx context.Context) ([]string, error) {
	var out host.Output
	var b []byte
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		out, err = t.Host.Run(ctx, host.Query("readlink", "-m", manifests.KubeletDir))
		return err
	})
	g.Go(func() (err error) {
		b, err = t.Host.ReadFile(ctx, "/proc/mounts")
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	mounts := append(mountsBelow(string(b), strings.TrimSpace(string(out.Stdout))+"/"), mountsBelow(string(b), "/run/netns/cni-")...)
	if found := t.found(); found.counts() {
		mounts = slices.DeleteFunc(mounts, func(m string) bool { return slices.Contains(found.Mounts, m) })
	}
	return mounts, nil
}

// mountsBelow lists mount points that begin so, the newest first.
func mountsBelow(mounts, prefix string) (points []string) {
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.HasPrefix(f[1], prefix) {
			// The kernel writes blanks as octal escapes.
			point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[1])
			points = append([]string{point}, points...)
		}
	}
	return points
}

// stopRuntime stops containerd where its unit is ours; the host's own loses our images.
func stopRuntime(ctx context.Context, t *Target) error {
	if t.ourRuntime() {
		if err := t.stopUnit(ctx, "containerd"); err != nil {
			return err
		}
		return t.endShims(ctx)
	}
	if t.Journal == nil {
		return nil
	}
	var all *multierror.Error
	for _, s := range t.Journal.things(anImage) {
		image := t.crictl()
		if _, err := t.Host.Run(ctx, host.Query(append(image, "inspecti", "--quiet", s.Name)...)); err != nil {
			continue
		}
		if err := t.do(ctx, append(image, "rmi", s.Name)...); err != nil {
			all = multierror.Append(all, err)
		}
	}
	return config.Errors(all)
}

// endShims ends what containerd left running when it was stopped under its pods, and their mounts.
func (t *Target) endShims(ctx context.Context) error {
	if err := t.killIn(ctx, "/sys/fs/cgroup", "-maxdepth", "5", "-path", "*/containerd.service/cgroup.procs"); err != nil {
		return err
	}
	b, err := t.Host.ReadFile(ctx, "/proc/mounts")
	if err != nil {
		return err
	}
	return t.unmountAll(ctx, append(mountsBelow(string(b), "/run/containerd/"), mountsBelow(string(b), "/var/lib/containerd/")...))
}

// ourRuntime tells whether containerd was not there before us.
func (t *Target) ourRuntime() bool {
	if t.Journal == nil {
		return false
	}
	for _, s := range t.Journal.things(aFile) {
		if s.Name == manifests.ContainerdUnit().Path {
			return s.Before == ""
		}
	}
	return false
}

func (t *Target) found() *Found {
	if t.Journal == nil {
		return nil
	}
	t.Journal.mu.Lock()
	defer t.Journal.mu.Unlock()
	return t.Journal.found
}

func removeFiles(ctx context.Context, t *Target) error {
	mounts, err := t.kubeletMounts(ctx)
	if err != nil {
		return err
	}
	if len(mounts) > 0 { // what is mounted may be a person's data
		return fmt.Errorf("%s is still mounted: nothing is removed while it is; unmount it and run reset again", strings.Join(mounts, ", "))
	}
	found := t.found()
	if err := t.removeEtcdData(ctx); err != nil {
		return err
	}
	dirs := ownDirs(t.ourRuntime())
	if found.counts() {
		dirs = append(dirs, laterDirs...)
	}
	// With a journal that does not say what was here, what it names goes, and no more.
	blind := found == nil && t.Journal != nil && !t.Journal.Empty()
	for _, dir := range dirs {
		if blind && dir != manifests.KubeletDir {
			continue
		}
		if err := t.empty(ctx, dir, found); err != nil {
			return err
		}
	}
	infos, err := t.Host.Stat(ctx, ownFiles...)
	if err != nil {
		return err
	}
	var remove []string
	for _, f := range ownFiles {
		// One that was there is ours only by what was written to it, which restore knows.
		if _, ok := infos[f]; ok && !found.hadPath(f) && !blind {
			remove = append(remove, f)
		}
	}
	if len(remove) == 0 {
		return nil
	}
	return t.do(ctx, append([]string{"rm", "-f", "--"}, remove...)...)
}

// empty removes what was not in a folder before, and the folder if it was not there.
func (t *Target) empty(ctx context.Context, dir string, found *Found) error {
	names, err := t.below(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var known []string
	if found.counts() {
		if !found.hadPath(dir) {
			return t.remove(ctx, dir)
		}
		known = found.Paths[dir]
	}
	var paths []string
	for _, n := range unknownTo(known, names) {
		paths = append(paths, path.Join(dir, n))
	}
	return t.remove(ctx, paths...)
}

// remove removes all of these, on one file system: a disk that is mounted there keeps its content.
func (t *Target) remove(ctx context.Context, paths ...string) error {
	if len(paths) == 0 {
		return nil
	}
	return t.do(ctx, append([]string{"rm", "-rf", "--one-file-system", "--"}, paths...)...)
}

// removeEtcdData removes what the etcd of this host has put into its folder, where there was
// one: an etcd that runs beside Kubernetes is somebody else's.
func (t *Target) removeEtcdData(ctx context.Context) error {
	infos, err := t.Host.Stat(ctx, manifests.Path(manifests.Etcd))
	if err != nil {
		return err
	}
	var dirs []string
	if _, ok := infos[manifests.Path(manifests.Etcd)]; ok {
		dir, err := t.etcdData(ctx)
		if err != nil {
			return err
		}
		dirs = append(dirs, dir)
	}
	if t.Journal != nil {
		for _, s := range t.Journal.things(aData) {
			dirs = append(dirs, s.Name)
		}
	}
	var remove []string
	for _, dir := range dirs {
		names, err := t.Host.List(ctx, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, n := range names { // of now, and of before it was moved aside
			if p := path.Join(dir, n); (n == "member" || strings.HasPrefix(n, "member-")) && !slices.Contains(remove, p) {
				remove = append(remove, p)
			}
		}
	}
	return t.remove(ctx, remove...)
}

// etcdData is where etcd of this host keeps its data, by its manifest.
func (t *Target) etcdData(ctx context.Context) (string, error) {
	b, err := t.Host.ReadFile(ctx, manifests.Path(manifests.Etcd))
	if errors.Is(err, fs.ErrNotExist) {
		return t.Cluster.Spec.Etcd.DataDir, nil
	}
	if err != nil {
		return "", err
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(b, &pod); err != nil {
		return "", fmt.Errorf("%s: %w", manifests.Path(manifests.Etcd), err)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == "etcd-data" && v.HostPath != nil {
			return v.HostPath.Path, nil
		}
	}
	return t.Cluster.Spec.Etcd.DataDir, nil
}
