package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/hashicorp/go-multierror"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Reset takes a host out of its cluster: processes, state and configuration of
// Kubernetes go, in the order in which nothing brings them back. Binaries, images and
// the container runtime stay.
func Reset() []Phase {
	return []Phase{
		{Name: "kubelet-stop", Short: "stop the kubelet", Run: stopKubelet},
		{Name: "remove-pods", Short: "remove all pods with their containers", After: []string{"kubelet-stop"}, Run: removePods},
		{Name: "unmount", Short: "unmount the pods' volumes", After: []string{"remove-pods"}, Run: unmount},
		{Name: "remove-files", Short: "remove configuration, certificates and data", After: []string{"unmount"}, Run: removeFiles},
		{Name: "clean-network", Short: "remove the links, rules and state of the pod network and of kube-proxy", After: []string{"remove-pods"}, Run: cleanNetwork},
	}
}

func stopKubelet(ctx context.Context, t *Target) error {
	if !t.Facts.Present["/run/systemd/system"] {
		return nil
	}
	// Not is-active: a kubelet that crashes and is restarted is not active, and would come back.
	out, err := t.Host.Run(ctx, host.Query("systemctl", "show", "--property", "ActiveState,UnitFileState", "kubelet"))
	if err != nil {
		return err
	}
	state := string(out.Stdout)
	atRest := strings.Contains(state, "ActiveState=inactive") || strings.Contains(state, "ActiveState=failed")
	if atRest && !strings.Contains(state, "UnitFileState=enabled") {
		return nil
	}
	return t.do(ctx, "systemctl", "disable", "--quiet", "--now", "kubelet")
}

func removePods(ctx context.Context, t *Target) error {
	crictl := []string{"crictl", "--runtime-endpoint", t.endpoint()}
	out, err := t.Host.Run(ctx, host.Query(append(crictl, "pods", "--quiet")...))
	if err != nil {
		infos, e := t.Host.Stat(ctx, t.socket())
		if _, ok := infos[t.socket()]; ok || e != nil {
			return fmt.Errorf("list the pods: %w: see to it that the container runtime answers, or leave them with --skip-phases remove-pods", err)
		}
		t.notice("no pods were removed, as there is no container runtime at %s", t.socket())
		return nil
	}
	ids := strings.Fields(string(out.Stdout))
	if len(ids) == 0 {
		return nil
	}
	if err := t.do(ctx, append(append(crictl, "rmp", "--force"), ids...)...); err != nil {
		return fmt.Errorf("remove pods: %w: run reset again", err)
	}
	return nil
}

// unmount takes the deepest mounts first.
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
// kernel names them by their resolved paths.
func (t *Target) kubeletMounts(ctx context.Context) ([]string, error) {
	out, err := t.Host.Run(ctx, host.Query("readlink", "-m", manifests.KubeletDir))
	if err != nil {
		return nil, err
	}
	b, err := t.Host.ReadFile(ctx, "/proc/mounts")
	if err != nil {
		return nil, err
	}
	return mountsBelow(string(b), strings.TrimSpace(string(out.Stdout))+"/"), nil
}

// mountsBelow lists mount points under a folder, the newest first.
func mountsBelow(mounts, dir string) (points []string) {
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.HasPrefix(f[1], dir) {
			// The kernel writes blanks as octal escapes.
			point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[1])
			points = append([]string{point}, points...)
		}
	}
	return points
}

// resetPaths: dirs lose what is in them and stay, files go.
func (t *Target) resetPaths(etcd string) (dirs, files []string) {
	// The manifest of etcd goes last: it alone knows where the data are.
	dirs = []string{pki.Dir, manifests.KubeletDir, etcd, "/var/lib/cni", "/run/flannel", manifests.ManifestDir}
	files = []string{pki.AdminConf, pki.SuperAdminConf, pki.KubeletConf, pki.BootstrapKubeletConf, pki.ControllerManagerConf, pki.SchedulerConf, "/etc/cni/net.d/10-flannel.conflist"}
	return dirs, files
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
	dirs, files := t.resetPaths(etcd)
	for _, dir := range dirs {
		names, err := t.Host.List(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
			continue
		}
		if err != nil {
			return err
		}
		paths := make([]string, len(names))
		for i, n := range names {
			paths[i] = path.Join(dir, n)
		}
		// One file system: a disk that is mounted there keeps its content.
		if err := t.do(ctx, append([]string{"rm", "-rf", "--one-file-system", "--"}, paths...)...); err != nil {
			return err
		}
	}
	var absent []host.File
	for _, f := range files {
		absent = append(absent, host.File{Path: f, Absent: true})
	}
	_, err = t.write(ctx, absent...)
	return err
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
	for _, link := range links {
		infos, err := t.Host.Stat(ctx, "/sys/class/net/"+link)
		if err != nil {
			return err
		}
		if len(infos) > 0 {
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
	if t.Facts.Commands["nft"] == "" {
		return nil
	}
	for _, family := range []string{"ip", "ip6"} {
		if _, err := t.Host.Run(ctx, host.Query("nft", "list", "table", family, "kube-proxy")); err == nil {
			if err := t.do(ctx, "nft", "delete", "table", family, "kube-proxy"); err != nil {
				return err
			}
		}
	}
	return nil
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
