package phases

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-multierror"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Finding is something in the way, under the name by which --ignore-preflight-errors
// knows it: kubeadm's, where kubeadm has such a check.
type Finding struct {
	Name, Message string
	Warning       bool // shown, and no more
}

// NotReadyError tells that preflight ended a run before it changed anything.
type NotReadyError struct{ Err error }

func (e *NotReadyError) Error() string { return e.Err.Error() }
func (e *NotReadyError) Unwrap() error { return e.Err }

func (f Finding) Error() string { return fmt.Sprintf("[%s] %s", f.Name, f.Message) }

// preflight reports everything that is in the way, at once, before anything is touched.
func preflight(ctx context.Context, t *Target) error {
	verified := make(chan error, 1)
	go func() {
		var wg sync.WaitGroup
		wg.Go(func() { t.glanceAt(ctx) })
		err := t.verifyBundle(ctx)
		wg.Wait()
		verified <- err
	}()
	findings := Check(t.Cluster, t.Node, t.Facts)
	if t.Discover == nil { // a host that joins learns the cluster's document only after this
		findings = append(findings, checkDocument(t.Cluster, t.Facts)...)
	}
	if t.Discover == nil || t.Known {
		findings = append(findings, t.checkNetwork(ctx, t.Cluster)...)
	}
	findings = append(findings, t.checkBundle()...)
	findings = append(findings, t.checkRuntime(ctx)...)
	findings = append(findings, t.checkMirrors()...)
	findings = append(findings, t.checkWritable(ctx)...)
	if t.Facts.Commands["kubelet"] == "" && len(t.wantedFiles()) == 0 && !t.Acquires {
		findings = append(findings, Finding{Name: "FileExisting-kubelet", Message: errNoKubelet.Error()})
	}
	if t.controlPlane() && t.Discover == nil {
		findings = append(findings, t.checkExternalEtcd(ctx)...)
	}
	if dir := t.Cluster.Spec.Etcd.DataDir; t.controlPlane() && t.Discover == nil && dir != "" && dir != "/var/lib/etcd" {
		infos, err := t.Host.Stat(ctx, dir+"/member")
		if err != nil {
			return err
		}
		if len(infos) > 0 && !t.Facts.Present["/etc/kubernetes/manifests/etcd.yaml"] {
			findings = append(findings, Finding{Name: "DirAvailable-" + strings.ReplaceAll(dir, "/", "-"), Message: dir + " holds the data of another cluster: move them away"})
		}
	}
	for _, name := range t.Patches.Ignored {
		findings = append(findings, Finding{Name: "Patches", Message: fmt.Sprintf("%s is no patch, by its name: write %s", name, manifests.PatchFileForm), Warning: true})
	}
	if t.Secrets != nil {
		if err := t.Secrets.Problems(); err != nil {
			findings = append(findings, Finding{Name: "Certificates", Message: err.Error()})
		}
	}
	if err := <-verified; err != nil {
		findings = append(findings, Finding{Name: "Artifacts", Message: err.Error()})
	}
	if err := t.judge(findings); err != nil {
		return &NotReadyError{err}
	}
	return nil
}

// judge makes one error of all findings that are not ignored.
func (t *Target) judge(findings []Finding) error {
	if err := t.judged(findings); err != nil {
		return fmt.Errorf("the host %s is not ready: %w\nmend these, or let one pass with --ignore-preflight-errors=NAME", t.Node.Name, err)
	}
	return nil
}

// judged is an error of all findings that are not ignored; whoever hears them has them all.
func (t *Target) judged(findings []Finding) error {
	var all *multierror.Error
	for _, f := range findings {
		f.Warning = f.Warning || slices.Contains(t.Ignore, "all") || slices.Contains(t.Ignore, strings.ToLower(f.Name))
		if t.finds != nil {
			t.finds(f)
		}
		if f.Warning {
			t.notice("%s", f.Error())
			continue
		}
		all = multierror.Append(all, f)
	}
	return config.Errors(all)
}

// checkWritable looks for file systems that are mounted read-only: nothing can be written
// there, and some of what a node needs comes to lie there.
func (t *Target) checkWritable(ctx context.Context) (out []Finding) {
	dirs := []string{"/etc", "/usr/local", "/opt", "/var/lib", "/run"}
	failed := make([]bool, len(dirs))
	var wg sync.WaitGroup
	for i, dir := range dirs {
		wg.Go(func() {
			_, err := t.Host.Run(ctx, host.Query("test", "-w", dir))
			failed[i] = err != nil
		})
	}
	infos, err := t.Host.Stat(ctx, dirs...)
	wg.Wait()
	if err != nil {
		return nil
	}
	for i, dir := range dirs {
		if _, there := infos[dir]; there && failed[i] { // one that is not there will be made
			out = append(out, Finding{Name: "Writable-" + strings.ReplaceAll(dir, "/", "-"), Message: fmt.Sprintf("%s cannot be written to: see how it is mounted with `findmnt --target %s`, and mount it read-write", dir, dir)})
		}
	}
	return out
}

// verifyBundle reads what this host will take from the bundle, and no more. What is downloaded
// is verified on the way.
func (t *Target) verifyBundle(ctx context.Context) error {
	if t.Bundle == nil || t.Bundle.Remote() {
		return nil
	}
	wanted, _, _, err := t.installs(ctx)
	if err != nil {
		return err
	}
	if wanted = append(wanted, t.imports(ctx)...); len(wanted) == 0 {
		return nil
	}
	return t.Bundle.Verify(ctx, wanted, t.moving("verify the bundle"))
}

// checkBundle looks for what the document names and the bundle lacks: without the
// internet, nobody would bring it later.
func (t *Target) checkBundle() (out []Finding) {
	if t.Bundle == nil || t.engine() != containerd {
		return nil
	}
	var wanted []string
	for _, image := range requiredImages(t.Cluster, t.Node) {
		if t.controlPlane() || image == t.Cluster.Spec.Runtime.SandboxImage {
			wanted = append(wanted, image)
		}
	}
	return t.missingImages(wanted)
}

// missingImages are those that the bundle lacks.
func (t *Target) missingImages(wanted []string) (out []Finding) {
	if t.Bundle == nil {
		return nil
	}
	for _, image := range wanted {
		if _, ok := t.Bundle.Find(image, t.Platform()); !ok {
			out = append(out, Finding{Name: "Bundle", Message: fmt.Sprintf("the bundle has no image %s for %s: it is one of Kubernetes %s; name the versions that it has, or make it anew with `kubewright bundle create --config` and the cluster's document (for a control plane without --role worker)", image, t.Platform(), t.Bundle.Lock().Versions(t.Platform()).Kubernetes)})
		}
	}
	return out
}

func (t *Target) controlPlane() bool { return t.Node.Has(config.ControlPlaneRole) }

// Check judges a host by its facts alone.
func Check(c *config.Cluster, n config.Node, f config.Facts) []Finding {
	var out []Finding
	add := func(name, format string, args ...any) {
		out = append(out, Finding{Name: name, Message: fmt.Sprintf(format, args...)})
	}
	warn := func(name, format string, args ...any) {
		out = append(out, Finding{Name: name, Message: fmt.Sprintf(format, args...), Warning: true})
	}
	if !f.Root {
		add("IsPrivilegedUser", "this is not root: run it with sudo")
	}
	if !f.Systemd {
		add("Systemd", "systemd is not running on this host: kubelet and containerd are systemd units")
	}
	for _, m := range validation.IsDNS1123Subdomain(n.Name) {
		add("Hostname", "node name %q: %s: give another with --node-name", n.Name, m)
	}
	if !n.IP().IsValid() {
		add("Address", "no address was found for node %s, as there is no default route: name one with --apiserver-advertise-address, or with address under spec.hosts", n.Name)
	}
	if local := func(p netip.Prefix) bool { return p.Addr() == n.IP() }; n.Has(config.ControlPlaneRole) && n.IP().IsValid() && len(f.Addresses) > 0 && !slices.ContainsFunc(f.Addresses, local) {
		add("Address", "%s is not an address of this host, and etcd and the API server have to listen there: see `ip addr`, and name one with --apiserver-advertise-address, or with address under spec.hosts", n.Address)
	}
	for _, cmd := range []string{"mount", "umount", "losetup", "cp", "ip", "nproc", "systemctl"} {
		if f.Commands[cmd] == "" {
			add("FileExisting-"+cmd, "%s is not in PATH: install it with your distribution's packages", cmd)
		}
	}
	for _, cmd := range []string{"conntrack", "iptables", "ethtool"} {
		if f.Commands[cmd] == "" {
			warn("FileExisting-"+cmd, "%s is not in PATH: services or port forwarding may lack it", cmd)
		}
	}
	if len(f.Sockets) > 1 && n.RuntimeSocket == "" && c.Spec.Runtime.Socket == "" {
		add("CRI", "several container runtimes are here (%s): name one with --cri-socket", strings.Join(f.Sockets, ", "))
	}
	used := func(port uint16, by string, ours bool) {
		if !ours {
			out = append(out, inUse(f, by, port)...)
		}
	}
	used(10250, "the kubelet", f.Present[pki.KubeletConf])
	if n.Has(config.ControlPlaneRole) {
		if f.CPUs < 2 && f.Commands["nproc"] != "" {
			add("NumCPU", "%d processor, and a control plane needs 2", f.CPUs)
		}
		if f.MemoryBytes < 1700<<20 {
			add("Mem", "%d MiB of memory, and a control plane needs 1700", f.MemoryBytes>>20)
		}
		used(uint16(c.Spec.ControlPlane.BindPort), "the API server", f.Present["/etc/kubernetes/manifests/kube-apiserver.yaml"])
		used(10257, "the controller manager", f.Present["/etc/kubernetes/manifests/kube-controller-manager.yaml"])
		used(10259, "the scheduler", f.Present["/etc/kubernetes/manifests/kube-scheduler.yaml"])
		node := f.Present[pki.KubeletConf]
		used(10258, "the cloud controller", node || !c.ExternalCloud())
		used(9808, "the controller of volumes", node || !c.Spec.Addons.EBSCSI)
		// With an admin.conf it is an init that was cut short, which goes on.
		if f.Present[pki.KubeletConf] && !f.Present[pki.AdminConf] && !f.Present["/etc/kubernetes/manifests/kube-apiserver.yaml"] && !f.Present["/etc/kubernetes/manifests/etcd.yaml"] && f.Present["/var/lib/kubelet/config.yaml"] {
			add("FileAvailable--etc-kubernetes-kubelet.conf", "this host is a node already, of this cluster or of another: take it out with `kubewright reset` first")
		}
	} else if f.Present["/etc/kubernetes/manifests/kube-apiserver.yaml"] {
		add("DirAvailable--etc-kubernetes-manifests", "this host is a control plane already: take it out with `kubewright reset` before it joins as a worker")
	}
	return out
}

// checkDocument judges what depends on the cluster's document.
func checkDocument(c *config.Cluster, f config.Facts) []Finding {
	out := checkKubelet(c.Spec.Kubelet, f)
	if !f.Present[pki.KubeletConf] { // a node that runs has routes of its own pods
		out = append(out, overlaps(c, f)...)
	}
	out = append(out, etcdPorts(c, f)...)
	// A host that joins looks whose data they are: they may be its own, of before.
	if c.Spec.Etcd.External == nil && f.Present["/var/lib/etcd/member"] && !f.Present["/etc/kubernetes/manifests/etcd.yaml"] {
		out = append(out, Finding{Name: "DirAvailable--var-lib-etcd", Message: "/var/lib/etcd holds the data of another cluster: if nobody needs them, remove them with `kubewright reset`"})
	}
	return out
}

// etcdPorts must be free, where this host will run etcd and does not yet.
func etcdPorts(c *config.Cluster, f config.Facts) []Finding {
	// Its data mean that an earlier run of ours may still be stopping it.
	if c.Spec.Etcd.External != nil || f.Present["/etc/kubernetes/manifests/etcd.yaml"] || f.Present["/var/lib/etcd/member"] {
		return nil
	}
	return inUse(f, "etcd", 2379, 2380)
}

func inUse(f config.Facts, by string, ports ...uint16) (out []Finding) {
	for _, port := range ports {
		if slices.Contains(f.Listening, port) {
			out = append(out, Finding{Name: fmt.Sprintf("Port-%d", port), Message: fmt.Sprintf("port %d is in use, and %s needs it: see who listens with `ss -ltnp sport = :%d`", port, by, port)})
		}
	}
	return out
}

// checkKubelet looks for what the kubelet refuses to start on.
func checkKubelet(kubelet map[string]any, f config.Facts) (out []Finding) {
	if f.CgroupVersion == 1 && kubelet["failCgroupV1"] != false {
		out = append(out, Finding{Name: "SystemVerification", Message: "this host runs cgroup v1, which the kubelet refuses since 1.35: boot with systemd.unified_cgroup_hierarchy=1, or accept it with spec.kubelet.failCgroupV1: false in the cluster document"})
	}
	if f.SwapOn && kubelet["failSwapOn"] != false {
		out = append(out, Finding{Name: "Swap", Message: "swap is on, which the kubelet refuses: turn it off with `swapoff -a` and in /etc/fstab, or accept it with spec.kubelet.failSwapOn: false in the cluster document"})
	}
	return out
}
