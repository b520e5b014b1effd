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
	if t.Facts.Present["/run/systemd/system"] {
		if _, err := t.Host.Run(ctx, host.Query("systemctl", "is-active", "--quiet", "kubelet")); err == nil {
			return t.do(ctx, "systemctl", "disable", "--quiet", "--now", "kubelet")
		}
	}
	return nil
}

func removePods(ctx context.Context, t *Target) error {
	crictl := []string{"crictl", "--runtime-endpoint", t.Cluster.Spec.Runtime.Socket}
	out, err := t.Host.Run(ctx, host.Query(append(crictl, "pods", "--quiet")...))
	if err != nil {
		t.notice("no pods were removed, as the container runtime does not answer: %v", err)
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
	b, err := t.Host.ReadFile(ctx, "/proc/mounts")
	if err != nil {
		return err
	}
	var all *multierror.Error
	for _, m := range mountsBelow(string(b), "/var/lib/kubelet/") {
		if err := t.do(ctx, "umount", m); err != nil {
			all = multierror.Append(all, err)
		}
	}
	return config.Errors(all)
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

// resetDirs lose what is in them and stay; resetFiles go.
func (t *Target) resetPaths() (dirs, files []string) {
	dirs = []string{manifests.ManifestDir, pki.Dir, "/var/lib/kubelet", t.Cluster.Spec.Etcd.DataDir, "/var/lib/cni", "/run/flannel"}
	files = []string{pki.AdminConf, pki.SuperAdminConf, pki.KubeletConf, pki.BootstrapKubeletConf, pki.ControllerManagerConf, pki.SchedulerConf, "/etc/cni/net.d/10-flannel.conflist"}
	return dirs, files
}

func removeFiles(ctx context.Context, t *Target) error {
	dirs, files := t.resetPaths()
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
		// One file system: a mount that is still there keeps its content.
		if err := t.do(ctx, append([]string{"rm", "-rf", "--one-file-system", "--"}, paths...)...); err != nil {
			return err
		}
	}
	var absent []host.File
	for _, f := range files {
		absent = append(absent, host.File{Path: f, Absent: true})
	}
	_, err := t.write(ctx, absent...)
	return err
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
