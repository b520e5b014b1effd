package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
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
		{Name: "remove-pods", Short: "remove all pods with their containers and cgroups", After: []string{"kubelet-stop"}, Run: removePods},
		{Name: "unmount", Short: "unmount the pods' volumes", After: []string{"remove-pods"}, Run: unmount},
		{Name: "clean-network", Short: "remove the links, rules and tables of the pod network and of kube-proxy", After: []string{"remove-pods"}, Run: cleanNetwork},
		{Name: "runtime-stop", Short: "stop a container runtime that init or join installed, or remove the images that they imported", After: []string{"unmount", "clean-network"}, Run: stopRuntime},
		{Name: "remove-files", Short: "remove configuration, certificates and data", After: []string{"runtime-stop"}, Run: removeFiles},
		{Name: "restore", Short: "bring back files, units and sysctls as they were before", After: []string{"remove-files"}, Run: restore},
	}
}

func stopKubelet(ctx context.Context, t *Target) error {
	if !t.Facts.Present["/run/systemd/system"] {
		return nil
	}
	// Not is-active: a kubelet that crashes and is restarted is not active, and would come back.
	state, err := t.unitState(ctx, "kubelet")
	if err != nil || state == "disabled inactive" || state == " inactive" {
		return err
	}
	if err := t.noteUnit(ctx, "kubelet"); err != nil {
		return err
	}
	return t.do(ctx, "systemctl", "disable", "--quiet", "--now", "kubelet")
}

func removePods(ctx context.Context, t *Target) error {
	crictl := []string{"crictl", "--runtime-endpoint", t.Cluster.Spec.Runtime.Socket}
	out, err := t.Host.Run(ctx, host.Query(append(crictl, "pods", "--quiet")...))
	if err != nil {
		infos, e := t.Host.Stat(ctx, t.socket())
		if _, ok := infos[t.socket()]; ok || e != nil {
			return fmt.Errorf("list the pods: %w: see to it that the container runtime answers, or leave them with --skip-phases remove-pods", err)
		}
		t.notice("no pods were removed, as there is no container runtime at %s", t.socket())
		return nil
	}
	if ids := strings.Fields(string(out.Stdout)); len(ids) > 0 {
		if err := t.do(ctx, append(append(crictl, "rmp", "--force"), ids...)...); err != nil {
			return fmt.Errorf("remove pods: %w: run reset again", err)
		}
	}
	return t.removeCgroups(ctx)
}

// removeCgroups removes those that the kubelet has made for pods, below every controller.
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
	if t.Facts.Systemd { // its slices are its own
		if err := t.do(ctx, "systemctl", "stop", "kubepods.slice"); err != nil {
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

// unmount takes the newest mounts first.
func unmount(ctx context.Context, t *Target) error {
	mounts, err := t.kubeletMounts(ctx)
	if err != nil {
		return err
	}
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
	out, err := t.Host.Run(ctx, host.Query("readlink", "-m", manifests.KubeletDir))
	if err != nil {
		return nil, err
	}
	b, err := t.Host.ReadFile(ctx, "/proc/mounts")
	if err != nil {
		return nil, err
	}
	return append(mountsBelow(string(b), strings.TrimSpace(string(out.Stdout))+"/"), mountsBelow(string(b), "/run/netns/cni-")...), nil
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
		state, err := t.unitState(ctx, "containerd")
		if err != nil || state == "disabled inactive" || state == " inactive" {
			return err
		}
		return t.do(ctx, "systemctl", "disable", "--quiet", "--now", "containerd")
	}
	if t.Journal == nil {
		return nil
	}
	var all *multierror.Error
	for _, s := range t.Journal.things(anImage) {
		image := []string{"crictl", "--runtime-endpoint", t.Cluster.Spec.Runtime.Socket}
		if _, err := t.Host.Run(ctx, host.Query(append(image, "inspecti", "--quiet", s.Name)...)); err != nil {
			continue
		}
		if err := t.do(ctx, append(image, "rmi", s.Name)...); err != nil {
			all = multierror.Append(all, err)
		}
	}
	return config.Errors(all)
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
	etcd, err := t.etcdData(ctx)
	if err != nil {
		return err
	}
	found := t.found()
	for _, dir := range ownDirs(etcd, t.ourRuntime()) {
		if err := t.empty(ctx, dir, found); err != nil {
			return err
		}
	}
	var absent []host.File
	for _, f := range ownFiles {
		if found.hadPath(f) {
			continue // ours only by what was written to it, which restore knows
		}
		absent = append(absent, host.File{Path: f, Absent: true})
	}
	_, err = t.write(ctx, absent...)
	return err
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
	paths := []string{dir}
	if found == nil || found.Node || found.hadPath(dir) {
		var known []string
		if found != nil && !found.Node {
			known = found.Paths[dir]
		}
		paths = nil
		for _, n := range unknownTo(known, names) {
			paths = append(paths, path.Join(dir, n))
		}
	}
	if len(paths) == 0 {
		return nil
	}
	// One file system: a disk that is mounted there keeps its content.
	return t.do(ctx, append([]string{"rm", "-rf", "--one-file-system", "--"}, paths...)...)
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

// links of the pod network.
var links = []string{"cni0", "flannel.1"}

// marks are in every rule of kube-proxy, the kubelet, the CNI plugins and flannel.
var marks = []string{"KUBE-", "CNI-", "FLANNEL-", "flanneld"}

func cleanNetwork(ctx context.Context, t *Target) error {
	found := t.found()
	for _, link := range links {
		infos, err := t.Host.Stat(ctx, "/sys/class/net/"+link)
		if err != nil {
			return err
		}
		if len(infos) > 0 && !(found != nil && !found.Node && slices.Contains(found.Links, link)) {
			if err := t.do(ctx, "ip", "link", "delete", link); err != nil {
				return err
			}
		}
	}
	for _, command := range []string{"iptables", "ip6tables"} {
		if t.Facts.Commands["iptables"] == "" {
			break
		}
		out, err := t.Host.Run(ctx, host.Query(command+"-save"))
		if err != nil {
			return err
		}
		rest := withoutOurs(out.Stdout)
		if bytes.Equal(rest, out.Stdout) {
			continue
		}
		t.changed(1)
		if _, err := t.Host.Run(ctx, host.Command{Argv: []string{command + "-restore"}, Stdin: bytes.NewReader(rest)}); err != nil {
			return err
		}
	}
	return t.removeTables(ctx, found)
}

// withoutOurs drops our chains and rules from the output of iptables-save.
func withoutOurs(save []byte) []byte {
	var rest []byte
	for line := range bytes.Lines(save) {
		ours := false
		for _, m := range marks {
			ours = ours || bytes.Contains(line, []byte(m))
		}
		if !ours {
			rest = append(rest, line...)
		}
	}
	return rest
}

// ownTables are those of kube-proxy in its nftables mode.
var ownTables = []string{"ip kube-proxy", "ip6 kube-proxy"}

// removeTables removes the tables of nftables that are ours, and those that were not there
// before and that iptables has made, where nobody has a rule in them.
func (t *Target) removeTables(ctx context.Context, found *Found) error {
	tables, err := t.nftTables(ctx)
	if err != nil {
		return err
	}
	for _, table := range tables {
		remove := slices.Contains(ownTables, table)
		if !remove && found != nil && !slices.Contains(found.Tables, table) {
			out, err := t.Host.Run(ctx, host.Query(append([]string{"nft", "list", "table"}, strings.Fields(table)...)...))
			if err != nil {
				return err
			}
			if remove = onlyChains(string(out.Stdout)); !remove {
				t.notice("kept: the table %s of nftables, which was not there before, as it holds rules of others: see `nft list table %s`", table, table)
			}
		}
		if remove {
			if err := t.do(ctx, append([]string{"nft", "delete", "table"}, strings.Fields(table)...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// onlyChains tells whether a table, as nft lists it, has no rule and drops nothing.
func onlyChains(table string) bool {
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line == "}", strings.HasPrefix(line, "#"), strings.HasPrefix(line, "table "), strings.HasPrefix(line, "chain "):
		case strings.HasPrefix(line, "type ") && strings.HasSuffix(line, "policy accept;"):
		default:
			return false
		}
	}
	return true
}
