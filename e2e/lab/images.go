package lab

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ProbeImage is for tests: a shell, nslookup, wget, nc, httpd, ip and the rest of busybox. It is none of those that verify runs.
const ProbeImage = "kubewright.test/probe:v1"

// image says what a container image is packed from. Names and tags are upstream's.
type image struct {
	name       string
	debian     []string          // over these packages of Debian, and what they need
	busybox    []string          // with busybox under these names
	binaries   map[string]string // path in the image -> binary, see [Builder.Binary]
	entrypoint string
	user       string
	stop       string // the signal that ends it; empty: SIGTERM
}

func images() []image {
	kube := func(name string) image {
		return image{name: "registry.k8s.io/" + name + ":" + KubernetesVersion,
			binaries: map[string]string{"usr/local/bin/" + name: name}, entrypoint: "/usr/local/bin/" + name}
	}
	proxy := kube("kube-proxy")
	proxy.debian = networkPackages()
	return []image{
		kube("kube-apiserver"), kube("kube-controller-manager"), kube("kube-scheduler"), proxy,
		{name: "registry.k8s.io/etcd:3.6.8-0", binaries: map[string]string{
			"usr/local/bin/etcd": "etcd", "usr/local/bin/etcdctl": "etcdctl", "usr/local/bin/etcdutl": "etcdutl"}},
		{name: "registry.k8s.io/pause:3.10.2", binaries: map[string]string{"pause": pauseBinary}, entrypoint: "/pause", user: "65535:65535"},
		// Upstream's runs as a user whose file has the capability to bind port 53. As root, the pod's own NET_BIND_SERVICE is enough.
		{name: "registry.k8s.io/coredns/coredns:" + CoreDNSVersion, binaries: map[string]string{"coredns": "coredns"}, entrypoint: "/coredns"},
		{name: "ghcr.io/flannel-io/flannel:" + FlannelVersion, debian: networkPackages(), entrypoint: "/opt/bin/flanneld",
			binaries: map[string]string{"opt/bin/flanneld": "flanneld", "opt/bin/install-conf": "install-conf"}},
		{name: "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3", busybox: []string{"cp", "sh"}, binaries: map[string]string{"flannel": "cni/flannel"}},
		{name: "docker.io/library/haproxy:" + HAProxyVersion, debian: []string{"haproxy"}, user: "99:99", stop: "SIGUSR1"},
		{name: "registry.k8s.io/metrics-server/metrics-server:v0.9.0", binaries: map[string]string{"metrics-server": "metrics-server"}, entrypoint: "/metrics-server", user: "65534"},
		{name: "docker.io/rancher/local-path-provisioner:v0.0.30", binaries: map[string]string{"usr/bin/local-path-provisioner": "local-path-provisioner"}},
		{name: "docker.io/library/busybox:" + BusyboxVersion, busybox: probeCommands(), entrypoint: "/bin/sh"},
		{name: ProbeImage, busybox: probeCommands(), entrypoint: "/bin/sh"},
	}
}

func probeCommands() []string {
	return strings.Fields(`sh cat chmod cp cut date dd df dirname echo env expr false find grep head hostname httpd id ip
		kill ln ls mkdir mv nc netstat nproc nslookup ping ping6 printf ps pwd readlink rm route sed seq sleep sort stat tail
		tar tee test timeout touch tr traceroute true umount uname uniq vi wc wget which xargs yes awk basename`)
}

// BusyboxVersion is that of Debian's package, and so of the image whose name ours has.
const BusyboxVersion = "1.35.0"

// HAProxyVersion is that of Debian's package, and so of the image whose name ours has.
const HAProxyVersion = "2.6.12"

// networkPackages are iptables in both variants and nftables, and what else kube-proxy and flannel run.
func networkPackages() []string {
	return strings.Fields("iptables nftables conntrack ipset kmod iproute2 dash coreutils")
}

// unpacked are what maintainer scripts run, and no container does.
func unpacked() []string {
	return strings.Fields("debconf dpkg perl-base init-system-helpers adduser lsb-base")
}

//go:embed hostfiles/pause.c
var pauseSource string

// Not a module's: made from hostfiles/pause.c.
const pauseBinary = "pause"

// packer makes images; what they share it makes once.
type packer struct {
	*Builder
	dir    string // for layers, until the images are in the bundle
	rootfs string
	debian map[string]v1.Layer // by what is wanted in it
}

func (b *Builder) newPacker(ctx context.Context, dir string) (*packer, error) {
	rootfs, err := b.Rootfs(ctx)
	if err != nil {
		return nil, err
	}
	return &packer{Builder: b, dir: dir, rootfs: rootfs, debian: map[string]v1.Layer{}}, nil
}

// debianLayer holds packages with what they need; images that want the same share it.
func (p *packer) debianLayer(want []string) (v1.Layer, error) {
	name := "debian-" + want[0]
	if l, ok := p.debian[name]; ok {
		return l, nil
	}
	status, err := os.ReadFile(filepath.Join(p.rootfs, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	packages, err := closure(parseStatus(string(status)), unpacked(), want...)
	if err != nil {
		return nil, err
	}
	files, err := packageFiles(p.rootfs, packages)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, f := range files {
		entries = append(entries, entry{path: f, from: filepath.Join(p.rootfs, f)})
	}
	p.debian[name], err = writeLayer(filepath.Join(p.dir, name+".tar"), entries)
	return p.debian[name], err
}

// image packs one image. Its layers stay in p.dir.
func (p *packer) image(ctx context.Context, i image) (v1.Image, error) {
	entries := []entry{{path: "tmp", from: filepath.Join(p.rootfs, "tmp")}}
	for at, name := range i.binaries {
		from, err := p.binary(ctx, name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{path: at, from: from})
	}
	if len(i.busybox) > 0 {
		entries = append(entries, entry{path: "bin/busybox", from: filepath.Join(p.rootfs, "bin/busybox")})
	}
	for _, name := range i.busybox {
		entries = append(entries, entry{path: "bin/" + name, link: "busybox"})
	}
	own, err := writeLayer(filepath.Join(p.dir, path.Base(strings.ReplaceAll(i.name, ":", "-"))+".tar"), entries)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.name, err)
	}
	layers := []v1.Layer{own}
	if i.debian != nil {
		debian, err := p.debianLayer(i.debian)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.name, err)
		}
		layers = []v1.Layer{debian, own}
	}

	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{User: i.user, StopSignal: i.stop, WorkingDir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if i.entrypoint != "" {
		config.Config.Entrypoint = []string{i.entrypoint}
	}
	return mutate.ConfigFile(img, config)
}

func (p *packer) binary(ctx context.Context, name string) (string, error) {
	if name != pauseBinary {
		return p.Binary(ctx, name)
	}
	out := filepath.Join(p.dir, "pause")
	cmd := exec.CommandContext(ctx, "gcc", "-Os", "-static", "-s", "-x", "c", "-o", out, "-")
	cmd.Stdin = strings.NewReader(pauseSource)
	return out, run(cmd)
}
