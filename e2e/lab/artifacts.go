package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// module is a nested Go module under artifacts/, whose go.mod pins what is built and whose go.sum proves it.
type module struct {
	name     string // the folder
	of       string // the module path of what is built
	version  string // as in go.mod; a test compares them
	cgo      bool   // built with cgo, and linked statically
	tags     string
	ldflags  string
	binaries []binary
}

// binary is one command of a module. The base of its name is its file's.
type binary struct{ name, pkg string }

// Versions that image tags and the bundle speak of.
const (
	KubernetesVersion = "v1.36.3"
	etcdVersion       = "v3.6.8"
	FlannelVersion    = "v0.28.10"
	CoreDNSVersion    = "v1.15.0" // kubeadm's 1.14.2 cannot be had as a module
)

// modules are those that a bundle is made of.
func modules() []module {
	stamp := func(pkg string) string {
		return fmt.Sprintf("-X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=36", pkg, KubernetesVersion)
	}
	return []module{{
		name: "kubernetes", of: "k8s.io/kubernetes", version: KubernetesVersion,
		ldflags: stamp("k8s.io/component-base/version") + " " + stamp("k8s.io/client-go/pkg/version"),
		binaries: []binary{
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
			{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
			{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
			{"kubeadm", "k8s.io/kubernetes/cmd/kubeadm"},
		},
	}, {
		name: "etcd", of: "go.etcd.io/etcd/server/v3", version: etcdVersion,
		binaries: []binary{
			{"etcd", "go.etcd.io/etcd/server/v3"},
			{"etcdctl", "go.etcd.io/etcd/etcdctl/v3"},
			{"etcdutl", "go.etcd.io/etcd/etcdutl/v3"},
		},
	}, {
		name: "containerd", of: "github.com/containerd/containerd/v2", version: "v2.4.2",
		tags:    "no_btrfs no_devmapper no_zfs",
		ldflags: "-X github.com/containerd/containerd/v2/version.Version=v2.4.2",
		binaries: []binary{
			{"containerd", "github.com/containerd/containerd/v2/cmd/containerd"},
			{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
			{"ctr", "github.com/containerd/containerd/v2/cmd/ctr"},
		},
	}, {
		name: "runc", of: "github.com/opencontainers/runc", version: "v1.4.3",
		cgo: true, tags: "seccomp",
		binaries: []binary{{"runc", "github.com/opencontainers/runc"}},
	}, {
		name: "cni-plugins", of: "github.com/containernetworking/plugins", version: "v1.9.1",
		ldflags: "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v1.9.1",
		binaries: []binary{
			{"cni/bandwidth", "github.com/containernetworking/plugins/plugins/meta/bandwidth"},
			{"cni/bridge", "github.com/containernetworking/plugins/plugins/main/bridge"},
			{"cni/host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"},
			{"cni/loopback", "github.com/containernetworking/plugins/plugins/main/loopback"},
			{"cni/portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"},
			{"cni/ptp", "github.com/containernetworking/plugins/plugins/main/ptp"},
			{"cni/tuning", "github.com/containernetworking/plugins/plugins/meta/tuning"},
		},
	}, {
		// The flannel plugin left containernetworking/plugins after this version, and the module of its new home cannot be
		// had. Its go.mod raises the CNI library, with which the same source speaks CNI 1.0.0, as flannel's manifest asks.
		name: "cni-flannel", of: "github.com/containernetworking/plugins", version: "v0.9.1",
		ldflags:  "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v0.9.1",
		binaries: []binary{{"cni/flannel", "github.com/containernetworking/plugins/plugins/meta/flannel"}},
	}, {
		name: "flannel", of: "github.com/flannel-io/flannel", version: FlannelVersion,
		cgo:     true,
		ldflags: "-X github.com/flannel-io/flannel/pkg/version.Version=" + FlannelVersion,
		binaries: []binary{
			{"flanneld", "github.com/flannel-io/flannel"},
			{"install-conf", "github.com/flannel-io/flannel/cmd/install_conf"},
		},
	}, {
		name: "coredns", of: "github.com/coredns/coredns", version: CoreDNSVersion,
		binaries: []binary{{"coredns", "github.com/coredns/coredns"}},
	}, {
		name: "cri-tools", of: "sigs.k8s.io/cri-tools", version: "v1.36.0",
		ldflags:  "-X sigs.k8s.io/cri-tools/pkg/version.Version=v1.36.0",
		binaries: []binary{{"crictl", "sigs.k8s.io/cri-tools/cmd/crictl"}},
	}, {
		name: "metrics-server", of: "sigs.k8s.io/metrics-server", version: "v0.9.0",
		ldflags:  "-X sigs.k8s.io/metrics-server/pkg/version.gitVersion=v0.9.0",
		binaries: []binary{{"metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"}},
	}, {
		name: "local-path", of: "github.com/rancher/local-path-provisioner", version: "v0.0.30",
		ldflags:  "-X main.VERSION=v0.0.30",
		binaries: []binary{{"local-path-provisioner", "github.com/rancher/local-path-provisioner"}},
	}}
}

// testServers are modules of which no bundle holds anything: what tests talk to, or compare with.
func testServers() []module {
	return []module{{
		name: "distribution", of: "github.com/distribution/distribution/v3", version: "v3.1.2",
		ldflags:  "-X github.com/distribution/distribution/v3/version.version=v3.1.2",
		binaries: []binary{{"registry", "github.com/distribution/distribution/v3/cmd/registry"}},
	}, {
		name: "kind", of: "sigs.k8s.io/kind", version: "v0.33.0",
		binaries: []binary{{"kind", "sigs.k8s.io/kind"}},
	}}
}

// Binary returns the path of a built binary in the cache, making it if need be. Names are those of the upstream
// commands (kubelet, kubeadm, etcdctl, runc, registry...); CNI plugins are cni/bridge and so on.
func (b *Builder) Binary(ctx context.Context, name string) (string, error) {
	m, err := moduleOf(name)
	if err != nil {
		return "", err
	}
	dir, err := b.module(ctx, m)
	return filepath.Join(dir, path.Base(name)), err
}

func moduleOf(binary string) (module, error) {
	for _, m := range slices.Concat(modules(), cloudModules(), testServers()) {
		for _, x := range m.binaries {
			if x.name == binary {
				return m, nil
			}
		}
	}
	return module{}, fmt.Errorf("no artifact builds a binary %q", binary)
}

// module builds all binaries of m and returns their folder.
func (b *Builder) module(ctx context.Context, m module) (string, error) {
	k, err := b.moduleKey(m)
	if err != nil {
		return "", err
	}
	return b.make(ctx, m.name, m.name+" "+m.version, k, func(ctx context.Context, dir string) error {
		return m.build(ctx, b.sourceOf(m), dir)
	})
}

func (b *Builder) sourceOf(m module) string {
	return filepath.Join(b.source, "e2e/lab/artifacts", m.name)
}

// moduleKey stands for all that the binaries depend on, but for gcc and the C libraries: they do not change what a
// binary does.
func (b *Builder) moduleKey(m module) (string, error) {
	src, err := treeKey(b.sourceOf(m), func(string) bool { return true })
	return key(src, runtime.Version(), runtime.GOARCH, fmt.Sprint(m.binaries), strings.Join(m.args("", nil), " ")), err
}

func (m module) args(out string, packages []string) []string {
	// Two of the flags are there so that Go's own build cache is shared with anybody who builds Kubernetes as upstream does.
	tags, ldflags := m.tags, "-s -w "+m.ldflags
	if m.cgo {
		// A pure Go resolver: glibc's cannot be linked statically.
		tags = strings.TrimSpace(tags + " netgo osusergo")
		ldflags += " -linkmode external -extldflags -static"
	}
	return append([]string{"build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", ldflags, "-o", out}, packages...)
}

func (m module) build(ctx context.Context, source, dir string) error {
	var packages []string
	for _, x := range m.binaries {
		packages = append(packages, x.pkg)
	}
	cmd := exec.CommandContext(ctx, "go", m.args(dir+"/", packages)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly", "GOOS=linux", "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0")
	if m.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	if err := run(cmd); err != nil {
		return err
	}
	for _, x := range m.binaries {
		built, want := filepath.Join(dir, goName(x.pkg)), filepath.Join(dir, path.Base(x.name))
		if built == want {
			continue
		}
		if err := os.Rename(built, want); err != nil {
			return err
		}
	}
	return nil
}

// goName is the file name that the go command gives to a package's binary: example.org/server/v3 makes "server".
func goName(pkg string) string {
	base := path.Base(pkg)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		return path.Base(path.Dir(pkg))
	}
	return base
}

// toolDir is the folder of our own binary, which hosts see even before it is built. Each checkout has its own: a lab of
// another one must not find this one's binary in its place.
func (b *Builder) toolDir() (string, error) {
	dir := filepath.Join(b.cache, "tool", key(b.source))
	return dir, os.MkdirAll(dir, 0o755)
}

// Kubewright builds this repository's own tool as it is now and returns the binary's path; hosts find it in [ToolDir].
func (b *Builder) Kubewright(ctx context.Context) (string, error) {
	return b.Tool(ctx, "cmd/kubewright")
}

// Tool is Kubewright for any command of the repository, named by its folder.
// Go's build cache knows better than a key of ours whether there is something to do.
func (b *Builder) Tool(ctx context.Context, folder string) (string, error) {
	dir, err := b.toolDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(b.cache, "tool.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	generate := exec.CommandContext(ctx, "go", "generate", "./reach") // what kubewright sends to hosts
	generate.Dir = b.source
	if err := run(generate); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, path.Base(folder))
	// Beside, then renamed: a host may run the one that is there.
	flags, err := os.ReadFile(filepath.Join(b.source, folder, "build.flags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	args := slices.Concat([]string{"build", "-trimpath", "-ldflags", "-s -w"}, strings.Fields(string(flags)), []string{"-o", binary + ".new", "./" + folder})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(cmd); err != nil {
		return "", err
	}
	return binary, os.Rename(binary+".new", binary)
}
