package phases

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/blang/semver/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// engine is a kind of container runtime, by the name of its socket: it has to be known
// before anything listens there.
type engine string

const (
	containerd engine = "containerd.sock"
	crio       engine = "crio.sock"
	criDockerd engine = "cri-dockerd.sock"
)

func (t *Target) engine() engine { return engine(path.Base(t.socket())) }

// unit is the systemd unit of an engine, as its packages name it; empty of one that we don't know.
func (e engine) unit() string {
	return map[engine]string{containerd: "containerd", crio: "crio", criDockerd: "cri-docker"}[e]
}

// endpoint is where the runtime of this host listens, unix:///..., and socket the path alone.
func (t *Target) endpoint() string { return t.Cluster.Socket(t.Node) }

func (t *Target) socket() string { return strings.TrimPrefix(t.endpoint(), "unix://") }

// ownsContainerd tells whether containerd and its configuration are ours to write: we have
// written its unit, or there is none yet. What others have installed is theirs, wherever it is.
func (t *Target) ownsContainerd() bool {
	if t.Bundle == nil && !t.Acquires || t.endpoint() != config.ContainerdSocket {
		return false
	}
	return t.Facts.OwnContainerd || t.Facts.Commands["containerd"] == "" && !slices.Contains(t.Facts.Sockets, config.ContainerdSocket)
}

// configureCRIO gives an installed CRI-O the cluster's sandbox image. Its containers outlive the restart.
func (t *Target) configureCRIO(ctx context.Context) error {
	f := manifests.CRIO(t.Cluster.Spec.Runtime.SandboxImage)
	changes, err := t.write(ctx, f)
	if err != nil {
		return err
	}
	return t.startUnit(ctx, crio.unit(), len(changes) > 0, f.Path)
}

// checkRuntime asks a runtime that we did not install whether it will do.
func (t *Target) checkRuntime(ctx context.Context) (out []Finding) {
	if t.ownsContainerd() {
		return nil
	}
	add := func(warning bool, name, format string, args ...any) {
		out = append(out, Finding{Name: name, Message: fmt.Sprintf(format, args...), Warning: warning})
	}
	if t.Bundle != nil && t.engine() != containerd {
		add(true, "Bundle", "images are imported from a bundle into containerd alone: the runtime at %s pulls them from their registries, or from a mirror that you configure there; without either, use containerd", t.socket())
	}
	version, err := t.runtimeVersion(ctx)
	if err != nil {
		add(false, "CRI", "no container runtime answers at %s: %v; else start or install one, name another with --cri-socket, or have containerd installed with --bundle", t.socket(), err)
		return out
	}
	if old := t.tooOld(version); old != "" {
		add(true, "ContainerRuntimeVersion", "%s", old)
	}
	driver, err := t.runtimeCgroupDriver(ctx)
	switch {
	case err != nil:
		add(false, "CRI", "%v", err)
	case driver == "":
		add(true, "ContainerRuntimeVersion", "%s %s cannot say which cgroup driver it uses, and the kubelet stops guessing with 1.37: see to it that it is the one of the cluster, systemd unless spec.kubelet says otherwise, and update it", version.RuntimeName, version.RuntimeVersion)
	}
	switch t.engine() {
	case containerd:
		out = append(out, t.checkContainerd(ctx)...)
	case crio:
		const sample = "/etc/cni/net.d/10-crio-bridge.conflist"
		if infos, err := t.Host.Stat(ctx, sample); err != nil || len(infos) > 0 {
			add(true, "CNI", "%s, which comes with CRI-O, goes before the configuration of the pod network: remove it, and restart crio", sample)
		}
	case criDockerd:
		if image := t.Cluster.Spec.Runtime.SandboxImage; !t.unitHas(ctx, criDockerd.unit(), image) {
			add(true, "SandboxImage", "cri-dockerd may use another sandbox image than the cluster: give it --pod-infra-container-image=%s, with `systemctl edit cri-docker`", image)
		}
	}
	return out
}

// tooOld says what is wrong with a runtime's version; empty where nothing is.
func (t *Target) tooOld(v *cri.VersionResponse) string {
	m := regexp.MustCompile(`^v?(\d+)\.(\d+)`).FindStringSubmatch(v.RuntimeVersion)
	if m == nil {
		return ""
	}
	major, _ := strconv.ParseUint(m[1], 10, 64)
	minor, _ := strconv.ParseUint(m[2], 10, 64)
	switch v.RuntimeName {
	case "containerd":
		if major < 2 {
			return fmt.Sprintf("containerd %s is older than 2.0, which Kubernetes 1.36 asks for: update it", v.RuntimeVersion)
		}
	case "cri-o": // one for each minor version of Kubernetes
		if wish, err := semver.ParseTolerant(t.Cluster.Spec.KubernetesVersion); err == nil && (major < wish.Major || major == wish.Major && minor < wish.Minor) {
			return fmt.Sprintf("CRI-O %s is older than Kubernetes %d.%d, which it is made to go with: update it", v.RuntimeVersion, wish.Major, wish.Minor)
		}
	}
	return ""
}

// checkContainerd looks at the configuration of somebody else's containerd, as far as it shows it.
func (t *Target) checkContainerd(ctx context.Context) (out []Finding) {
	var shown string
	err := t.callRuntime(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		c := cri.NewRuntimeServiceClient(conn)
		r, err := c.Status(ctx, &cri.StatusRequest{Verbose: true})
		shown = r.GetInfo()["config"]
		return err
	})
	if err != nil {
		return []Finding{{Name: "CRI", Message: fmt.Sprintf("ask containerd for its status: %s", status.Convert(err).Message())}}
	}
	var have struct {
		CNI struct {
			BinDir  string   `json:"binDir"`
			BinDirs []string `json:"binDirs"` // since 2.1
			ConfDir string   `json:"confDir"`
		} `json:"cni"`
		SandboxImage string `json:"sandboxImage"` // before 2.0; later ones do not show it
	}
	if shown == "" || json.Unmarshal([]byte(shown), &have) != nil {
		return nil // of a version that shows it otherwise
	}
	mend := "set %s in the cni section of /etc/containerd/config.toml and restart containerd"
	if dirs := append(have.CNI.BinDirs, have.CNI.BinDir); !slices.Contains(dirs, "/opt/cni/bin") && strings.Join(dirs, "") != "" {
		out = append(out, Finding{Name: "CNI", Message: fmt.Sprintf("containerd looks for CNI plugins in %s, and they come to /opt/cni/bin: "+mend, strings.TrimSuffix(strings.Join(dirs, ", "), ", "), `bin_dir = "/opt/cni/bin"`)})
	}
	if dir := have.CNI.ConfDir; dir != "" && dir != "/etc/cni/net.d" {
		out = append(out, Finding{Name: "CNI", Message: fmt.Sprintf("containerd looks for the pod network's configuration in %s, and it comes to /etc/cni/net.d: "+mend, dir, `conf_dir = "/etc/cni/net.d"`)})
	}
	if image := t.Cluster.Spec.Runtime.SandboxImage; have.SandboxImage != "" && have.SandboxImage != image {
		out = append(out, Finding{Name: "SandboxImage", Warning: true, Message: fmt.Sprintf("containerd uses the sandbox image %s, and the cluster %s: set sandbox_image in /etc/containerd/config.toml and restart containerd, or it has to be pulled", have.SandboxImage, image)})
	}
	return out
}

// unitHas tells whether the command line of a unit holds a text.
func (t *Target) unitHas(ctx context.Context, unit, text string) bool {
	out, err := t.Host.Run(ctx, host.Query("systemctl", "show", "--property", "ExecStart", unit))
	return err == nil && strings.Contains(string(out.Stdout), text)
}
