package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// prepare are the phases that every host needs, whatever its role. They wait for no
// other host.
func prepare() []Phase {
	return []Phase{
		{Name: "preflight", Short: "look for everything that would stand in the way", Run: preflight},
		{Name: "download", Short: "download what this host needs, where no bundle holds it", After: []string{"preflight"}, Run: download},
		{Name: "ledger", Short: "note what is here, for reset to bring back", After: []string{"preflight"}, Run: ledger},
		{Name: "kernel", Short: "load modules and set sysctls", After: []string{"ledger"}, Run: kernel},
		{Name: "install", Short: "install the runtime, the kubelet and the CNI plugins from the bundle", After: []string{"ledger", "download"}, Run: install},
		{Name: "runtime", Short: "configure and start the container runtime", After: []string{"install"}, Run: startRuntime},
		{Name: "wait-runtime", Short: "wait until the container runtime answers", After: []string{"runtime"}, Waits: true, Run: waitRuntime},
		{Name: "images", Short: "import the images that this host will run", After: []string{"wait-runtime"}, Run: images},
	}
}

// modulesDir is mounted into pods of kube-proxy. Where there is none (in a small virtual machine, say) their runtime would make
// it, and reset would not know.
const modulesDir = "/lib/modules"

// kernel makes modules and sysctls true now and after a reboot.
func kernel(ctx context.Context, t *Target) error {
	ipv6 := t.Cluster.Spec.Network.UsesIPv6()
	if _, err := t.write(ctx, manifests.Prerequisites(ipv6)...); err != nil {
		return err
	}
	var signs []string
	for _, m := range manifests.Modules() {
		signs = append(signs, m.Sign)
	}
	infos, err := t.Host.Stat(ctx, append(signs, modulesDir)...)
	if err != nil {
		return err
	}
	if _, ok := infos[modulesDir]; !ok {
		if _, err := t.write(ctx, host.File{Path: modulesDir, Dir: true}); err != nil {
			return err
		}
	}
	for _, m := range manifests.Modules() {
		if _, ok := infos[m.Sign]; ok {
			continue // loaded, or built in
		}
		if err := t.do(ctx, "modprobe", m.Name); err != nil {
			return fmt.Errorf("kernel module %s, for %s: %w: install a kernel that has it", m.Name, m.Why, err)
		}
	}
	values, err := t.sysctls(ctx, manifests.Sysctls(ipv6))
	if err != nil {
		return err
	}
	var steps []Step
	set := []string{"sysctl", "-q", "-w"}
	for _, s := range manifests.Sysctls(ipv6) {
		have, ok := values[s.Name]
		if !ok {
			return fmt.Errorf("sysctl %s, for %s: this kernel does not have it: install one that does", s.Name, s.Why)
		}
		if !s.Holds(have) {
			steps = append(steps, Step{Kind: aSysctl, Name: s.Name, Before: have, After: s.Value})
			set = append(set, s.Name+"="+s.Value)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	if err := t.note(ctx, steps...); err != nil {
		return err
	}
	return t.do(ctx, set...)
}

// place is where an artifact goes on a host.
type place struct {
	artifact, path string
	command        string // leave an existing one of this name alone: the host has its own
}

const binDir = "/usr/local/bin"

// places lists the files of the bundle that every node needs. What the host has already
// (from a package, say) is the host's.
var places = []place{
	{"containerd", binDir + "/containerd", "containerd"},
	{"containerd-shim-runc-v2", binDir + "/containerd-shim-runc-v2", "containerd"},
	{"ctr", binDir + "/ctr", "containerd"},
	{"runc", "/usr/local/sbin/runc", "runc"},
	{"crictl", binDir + "/crictl", "crictl"},
	{"kubelet", binDir + "/kubelet", "kubelet"},
	{"kubectl", binDir + "/kubectl", "kubectl"},
}

// wantedFiles are the files of the bundle that this host needs.
func (t *Target) wantedFiles() []bundle.Artifact {
	if t.Bundle == nil {
		return nil
	}
	var wanted []bundle.Artifact
	for _, a := range t.Bundle.Lock().Artifacts {
		if a.Type == bundle.File && a.Platform == t.Platform() && t.destination(a.Name) != "" {
			wanted = append(wanted, a)
		}
	}
	return wanted
}

// installs are the files that a host needs and has not, and of those that it has, which
// had to be read to know.
func (t *Target) installs(ctx context.Context) (artifacts []bundle.Artifact, files, read []host.File, err error) {
	wanted := t.wantedFiles()
	paths := make([]string, len(wanted))
	for i, a := range wanted {
		paths[i] = t.destination(a.Name)
	}
	infos, err := t.Host.Stat(ctx, paths...)
	if err != nil {
		return nil, nil, nil, err
	}
	var unsure []bundle.Artifact
	var compare []host.File
	for i, a := range wanted {
		f := host.File{Path: paths[i], Mode: 0o755, Content: t.progress(a.Name, t.Bundle.File(a))}
		if info, ok := infos[f.Path]; ok && t.Journal != nil && t.Journal.wrote(f, info) {
			continue
		}
		unsure, compare = append(unsure, a), append(compare, f)
	}
	actions, err := host.Compare(ctx, t.Host, compare...)
	if err != nil {
		return nil, nil, nil, err
	}
	for i, f := range compare {
		if actions[i] == "" {
			read = append(read, f)
			continue
		}
		artifacts, files = append(artifacts, unsure[i]), append(files, f)
	}
	return artifacts, files, read, nil
}

// destination of an artifact on this host; empty where the host does not need it.
func (t *Target) destination(artifact string) string {
	if plugin, ok := strings.CutPrefix(artifact, "cni/"); ok {
		return "/opt/cni/bin/" + plugin
	}
	for _, p := range places {
		if p.artifact != artifact {
			continue
		}
		have := t.Facts.Commands[p.command]
		switch {
		case p.command == "containerd": // it brings its shim: both are the host's, or both are ours
			if !t.ownsContainerd() {
				return ""
			}
		case p.command == "runc" && t.engine() != containerd, have != "" && !isOurs(have):
			return ""
		}
		return p.path
	}
	return ""
}

func isOurs(path string) bool {
	return slices.ContainsFunc(places, func(p place) bool { return p.path == path })
}

// Platform of this host, linux/amd64.
func (t *Target) Platform() string { return "linux/" + t.Facts.Machine }

var errNoKubelet = errors.New("the host has no kubelet, and no bundle was given: install one, pass --bundle, or run the whole of the command, which downloads it")

// install writes binaries and units. The kubelet's unit waits for its configuration, so
// nothing starts and fails before its time.
func install(ctx context.Context, t *Target) error {
	if t.ownsContainerd() { // first: it is the sign that what comes next is ours, should we be cut short
		if err := t.writeUnits(ctx, []host.File{manifests.ContainerdUnit()}); err != nil {
			return err
		}
	}
	if len(t.wantedFiles()) == 0 && t.Facts.Commands["kubelet"] == "" {
		return errNoKubelet
	}
	artifacts, files, read, err := t.installs(ctx)
	if err != nil {
		return err
	}
	if err := t.noteLock(ctx); err != nil {
		return err
	}
	if err := t.fetch(ctx, artifacts); err != nil {
		return err
	}
	if h, ok := t.Host.(journaled); ok {
		if err := h.stamp(ctx, read); err != nil { // the next run need not read them
			return err
		}
	}
	if err := t.send(ctx, files); err != nil {
		return err
	}
	if err := t.writeUnits(ctx, manifests.KubeletUnit(t.kubelet())); err != nil {
		return err
	}
	return t.enableUnit(ctx, "kubelet")
}

// send writes artifacts, when it is this host's turn.
func (t *Target) send(ctx context.Context, files []host.File) error {
	if len(files) == 0 {
		return nil
	}
	done, err := t.upload(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = t.write(ctx, files...)
	return err
}

// upload waits until this host may be sent its artifacts, and for a place.
func (t *Target) upload(ctx context.Context) (done func(), err error) {
	if _, planning := t.Host.(*host.Recorder); t.Move != nil && !planning {
		if err := t.Move(ctx); err != nil {
			return nil, err
		}
	}
	if t.Uploads == nil {
		return func() {}, nil
	}
	select {
	case t.Uploads <- struct{}{}:
		return func() { <-t.Uploads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kubelet is the path of the kubelet that this host runs.
func (t *Target) kubelet() string {
	if have := t.Facts.Commands["kubelet"]; have != "" {
		return have
	}
	return binDir + "/kubelet"
}

// writeUnits writes units and what belongs to them, and has systemd read them.
func (t *Target) writeUnits(ctx context.Context, files []host.File) error {
	changes, err := t.write(ctx, files...)
	if err != nil || len(changes) == 0 {
		return err
	}
	return t.do(ctx, "systemctl", "daemon-reload")
}

// startRuntime brings a containerd of ours, or CRI-O, to its configuration and starts it.
func startRuntime(ctx context.Context, t *Target) error {
	if t.ownsContainerd() {
		changes, err := t.write(ctx, manifests.Containerd(t.Cluster.Spec.Runtime.SandboxImage))
		if err != nil {
			return err
		}
		if err := t.enableUnit(ctx, containerd.unit()); err != nil {
			return err
		}
		if err := t.startUnit(ctx, containerd.unit(), len(changes) > 0, manifests.ContainerdUnit().Path, manifests.Containerd("").Path); err != nil {
			return err
		}
	}
	if t.engine() == crio {
		if err := t.configureCRIO(ctx); err != nil {
			return err
		}
	}
	_, err := t.write(ctx, manifests.Crictl(t.endpoint()))
	return err
}

func waitRuntime(ctx context.Context, t *Target) error {
	if t.hasAnswered() {
		return nil
	}
	// Not the socket but an answer: containerd listens even where its CRI plugin did not load.
	err := untilFinal(ctx, 30*time.Second, "container runtime at "+t.socket(), func(ctx context.Context) error {
		_, err := t.runtimeVersion(ctx)
		var forbidden *host.ForbiddenError
		if err == nil {
			return nil
		}
		if conn, e := t.Host.Dial(ctx, "unix", t.socket()); e == nil { // of an error gRPC keeps the words alone
			conn.Close()
		} else if errors.As(e, &forbidden) {
			return finalError{e}
		}
		return err
	})
	if unit := t.engine().unit(); err != nil && unit != "" {
		return t.withJournal(ctx, unit, err)
	}
	return err
}

// enableUnit has systemd start a unit at every boot.
func (t *Target) enableUnit(ctx context.Context, unit string) error {
	if _, err := t.Host.Run(ctx, host.Query("systemctl", "is-enabled", "--quiet", unit)); err == nil {
		return nil
	}
	if err := t.noteUnit(ctx, unit); err != nil {
		return err
	}
	return t.do(ctx, "systemctl", "enable", "--quiet", unit)
}

// startUnit has a unit running, restarted where the files that it reads have changed: now, or
// in a run that was cut short before it came to that.
func (t *Target) startUnit(ctx context.Context, unit string, changed bool, files ...string) error {
	_, err := t.Host.Run(ctx, host.Query("systemctl", "is-active", "--quiet", unit))
	verb := "restart"
	switch {
	case err != nil:
		verb = "start"
	case !changed && !t.Journal.stale(unit, files):
		return nil
	}
	if verb == "restart" && t.Turns != nil {
		if _, err := t.Turns.take(ctx, t.Node.Name, t.Turns.kubelets); err != nil {
			return err
		}
	}
	if err := t.noteUnit(ctx, unit); err != nil {
		return err
	}
	out, err := t.Host.Run(ctx, host.Query("systemctl", "show", "--property", "NeedDaemonReload", unit))
	if err != nil {
		return err
	}
	if strings.Contains(string(out.Stdout), "=yes") { // a run was cut short between writing the unit and this
		if err := t.do(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	if err := t.do(ctx, "systemctl", verb, unit); err != nil {
		return t.withJournal(ctx, unit, err)
	}
	return t.note(ctx, Step{Kind: aStart, Name: unit})
}

// withJournal adds the last words of a unit to an error about it.
func (t *Target) withJournal(ctx context.Context, unit string, err error) error {
	out, e := t.Host.Run(context.WithoutCancel(ctx), host.Query("journalctl", "--no-pager", "-o", "cat", "-n", "5", "-u", unit))
	if e != nil || len(out.Stdout) == 0 {
		return err
	}
	return fmt.Errorf("%w\nthe last lines of `journalctl -u %s`:\n%s", err, unit, strings.TrimSpace(string(out.Stdout)))
}
