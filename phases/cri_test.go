package phases

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

// standIn answers in the place of a container runtime that cannot be built here, CRI-O say,
// or of one in a state in which ours is not: its words are those of the CRI, its gRPC is real.
type standIn struct {
	cri.UnimplementedRuntimeServiceServer // an old runtime says just that to RuntimeConfig
	name, version, driver                 string
	config                                string // of the status
}

func (s standIn) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: s.name, RuntimeVersion: s.version, RuntimeApiVersion: "v1"}, nil
}

func (s standIn) RuntimeConfig(ctx context.Context, r *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	if s.driver == "" {
		return s.UnimplementedRuntimeServiceServer.RuntimeConfig(ctx, r)
	}
	driver := cri.CgroupDriver(cri.CgroupDriver_value[strings.ToUpper(s.driver)])
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

func (s standIn) Status(_ context.Context, r *cri.StatusRequest) (*cri.StatusResponse, error) {
	if !r.Verbose {
		return &cri.StatusResponse{}, nil
	}
	return &cri.StatusResponse{Info: map[string]string{"config": s.config}}, nil
}

// listen has the stand-in answer at a socket of a fake host.
func (s standIn) listen(h *fakeHost, socket string) {
	l := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, s)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	h.t.Cleanup(func() { server.Stop(); <-done })
	h.dial["unix "+socket] = func(ctx context.Context) (net.Conn, error) { return l.DialContext(ctx) }
}

const (
	criSocket    = "/var/run/crio/crio.sock"
	dockerSocket = "/var/run/cri-dockerd.sock"
	containerdAt = "/run/containerd/containerd.sock"
)

// A host on which somebody else has installed a runtime, and what preflight says of it.
func TestPreflightOfARuntimeThatIsFound(t *testing.T) {
	for name, tt := range map[string]struct {
		socket  string
		runtime *standIn
		change  func(h *fakeHost)
		bundle  bool
		want    []string // of each finding, what it must say; a warning begins with "warning "
	}{
		"containerd":                {socket: containerdAt, runtime: &standIn{name: "containerd", version: "v2.3.7", driver: "systemd", config: `{"cni":{"binDirs":["/opt/cni/bin"],"confDir":"/etc/cni/net.d"}}`}},
		"containerd, with a bundle": {socket: containerdAt, bundle: true, runtime: &standIn{name: "containerd", version: "v2.3.7", driver: "systemd"}},
		"containerd 1.7 of Debian's": {socket: containerdAt, runtime: &standIn{name: "containerd", version: "1.7.24~ds1", config: `{"sandboxImage":"registry.k8s.io/pause:3.8","cni":{"binDir":"/usr/lib/cni","confDir":"/etc/cni/net.d"}}`}, want: []string{
			"warning [ContainerRuntimeVersion] containerd 1.7.24~ds1 is older than 2.0",
			"warning [ContainerRuntimeVersion] containerd 1.7.24~ds1 cannot say which cgroup driver it uses",
			`[CNI] containerd looks for CNI plugins in /usr/lib/cni, and they come to /opt/cni/bin: set bin_dir = "/opt/cni/bin" in the cni section of /etc/containerd/config.toml and restart containerd`,
			"warning [SandboxImage] containerd uses the sandbox image registry.k8s.io/pause:3.8, and the cluster registry.k8s.io/pause:3.10.2",
		}},
		"containerd, conf_dir": {socket: containerdAt, runtime: &standIn{name: "containerd", version: "v2.3.7", driver: "systemd", config: `{"cni":{"confDir":"/etc/x"}}`}, want: []string{"[CNI] containerd looks for the pod network's configuration in /etc/x"}},
		"nobody":               {socket: containerdAt, want: []string{"[CRI] no container runtime answers at /run/containerd/containerd.sock: "}},
		"CRI-O":                {socket: criSocket, runtime: &standIn{name: "cri-o", version: "1.36.1", driver: "systemd"}},
		"an older CRI-O, with a bundle and its sample": {socket: criSocket, bundle: true, runtime: &standIn{name: "cri-o", version: "1.35.0", driver: "systemd"},
			change: func(h *fakeHost) { h.files["/etc/cni/net.d/10-crio-bridge.conflist"] = text("") }, want: []string{
				"warning [Bundle] images are imported from a bundle into containerd alone: the runtime at /var/run/crio/crio.sock pulls them",
				"warning [ContainerRuntimeVersion] CRI-O 1.35.0 is older than Kubernetes 1.36",
				"warning [CNI] /etc/cni/net.d/10-crio-bridge.conflist, which comes with CRI-O, goes before",
			}},
		"cri-dockerd": {socket: dockerSocket, runtime: &standIn{name: "docker", version: "28.5.0", driver: "systemd"}, want: []string{
			"warning [SandboxImage] cri-dockerd may use another sandbox image than the cluster: give it --pod-infra-container-image=registry.k8s.io/pause:3.10.2",
		}},
		"cri-dockerd, told": {socket: dockerSocket, runtime: &standIn{name: "docker", version: "28.5.0", driver: "systemd"}, change: func(h *fakeHost) {
			h.answers["systemctl show --property ExecStart cri-docker"] = "ExecStart={ path=/usr/bin/cri-dockerd ; argv[]=/usr/bin/cri-dockerd --pod-infra-container-image=registry.k8s.io/pause:3.10.2 ; }"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newFakeHost(t), cluster()
			clear(h.dial)
			h.files[tt.socket] = text("")
			if tt.runtime != nil {
				tt.runtime.listen(h, tt.socket)
			}
			if tt.change != nil {
				tt.change(h)
			}
			target := h.target(c, config.ControlPlaneRole)
			if tt.bundle {
				target.Bundle = testBundle(t, c)
			}
			var got []string
			for _, f := range target.checkRuntime(t.Context()) {
				s := f.Error()
				if f.Warning {
					s = "warning " + s
				}
				got = append(got, s)
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("got\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// The kubelet follows its runtime where that says something, and else the cluster.
func TestTheKubeletOfANodeFollowsItsRuntime(t *testing.T) {
	for name, tt := range map[string]struct {
		driver, cluster, want string
		notices               int
	}{
		"both systemd":    {"systemd", "systemd", "systemd", 0},
		"cgroupfs":        {"cgroupfs", "systemd", "cgroupfs", 1},
		"does not say":    {"", "systemd", "systemd", 0},
		"does not say, 2": {"", "cgroupfs", "cgroupfs", 0},
		"systemd":         {"systemd", "cgroupfs", "systemd", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newFakeHost(t), cluster()
			c.Spec.Kubelet = map[string]any{"cgroupDriver": tt.cluster}
			standIn{name: "x", version: "1", driver: tt.driver}.listen(h, containerdAt)
			var said events
			target := h.target(c, config.ControlPlaneRole)
			target.Report = said.report
			configuration, err := manifests.KubeletConfiguration(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := target.startKubelet(t.Context(), configuration); err != nil {
				t.Fatal(err)
			}
			if got := mustRead(h, manifests.KubeletConfig); !strings.Contains(got, "cgroupDriver: "+tt.want+"\n") {
				t.Errorf("not %s in\n%s", tt.want, got)
			}
			instance := mustRead(h, manifests.KubeletInstance) // which kubeadm upgrade puts over the cluster's
			if has := strings.Contains(instance, fmt.Sprintf("cgroupDriver: %q\n", tt.want)); has != (tt.want != tt.cluster) {
				t.Errorf("the node's own are\n%s", instance)
			}
			if n := len(said.messages()); n != tt.notices {
				t.Errorf("said %q", said.messages())
			}
		})
	}
}

// The real one, as the lab builds it.
func TestContainerdIsAsked(t *testing.T) {
	for driver, systemd := range map[string]bool{"systemd": true, "cgroupfs": false} {
		t.Run(driver, func(t *testing.T) {
			socket := startContainerd(t, "", fmt.Sprintf(`
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni', '/usr/libexec/cni']
  conf_dir = '/etc/cni/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = %t
`, systemd))
			target := onContainerd(t, socket)
			if err := until(t.Context(), 30*time.Second, "containerd", func(ctx context.Context) error {
				_, err := target.runtimeVersion(ctx)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			v, err := target.runtimeVersion(t.Context())
			if err != nil || v.RuntimeName != "containerd" || target.tooOld(v) != "" {
				t.Errorf("got %v, %v", v, err)
			}
			if got, err := target.runtimeCgroupDriver(t.Context()); got != driver || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			findings := target.checkContainerd(t.Context())
			if len(findings) != 1 || !strings.HasPrefix(findings[0].Message, "containerd looks for CNI plugins in /usr/lib/cni, /usr/libexec/cni, and") {
				t.Errorf("got %v", findings)
			}
		})
	}
}

func TestContainerdWithoutCRIIsNoRuntime(t *testing.T) {
	target := onContainerd(t, startContainerd(t, `, 'io.containerd.grpc.v1.cri'`, ""))
	var last []Finding
	if err := until(t.Context(), 30*time.Second, "containerd", func(ctx context.Context) error {
		if last = target.checkRuntime(ctx); len(last) == 1 && strings.Contains(last[0].Message, "take cri out of disabled_plugins") {
			return nil
		}
		return fmt.Errorf("found %v", last)
	}); err != nil {
		t.Error(err)
	}
}

// onContainerd is a fake host with a real containerd.
func onContainerd(t *testing.T, socket string) *Target {
	h, c := newFakeHost(t), cluster()
	c.Spec.Runtime.Socket = "unix://" + socket
	h.dial["unix "+socket] = to(&net.UnixAddr{Name: socket, Net: "unix"})
	return h.target(c, config.ControlPlaneRole)
}

// startContainerd runs a containerd of the test's own, with its CRI plugin, and returns its socket.
func startContainerd(t *testing.T, disabled, more string) string {
	t.Helper()
	path := os.Getenv("KUBEWRIGHT_TEST_CONTAINERD")
	if path == "" {
		t.Skip("KUBEWRIGHT_TEST_CONTAINERD leads to no containerd, as it does in `make test`")
	}
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	dir, err := os.MkdirTemp("", "kubewright") // t.TempDir() is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "containerd.sock")
	conf := fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri'%s]
[grpc]
  address = %q
[ttrpc]
  address = %q
%s`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), disabled, socket, socket+".ttrpc", more)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(path, "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return socket
}
