package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// BinDirs is where commands are looked for, in the order of systemd's and root's PATH.
var BinDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// Commands that the kubelet, kube-proxy, the runtime or we need on a host, or that may be there already.
var commands = []string{"kubelet", "kubectl", "crictl", "containerd", "runc", "ctr", "systemctl", "modprobe", "mount", "umount", "losetup", "cp", "ip", "nproc", "iptables", "conntrack", "socat", "ethtool", "nft", "tar", "flock", "sha256sum"}

// Directories with further CA certificates, which the API server and the controller
// manager may need (kubeadm: phases/controlplane/volumes.go).
var trustDirs = []string{"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}

// Sockets at which runtimes listen (kubeadm: constants_unix.go).
var sockets = []string{"/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock"}

// Kernel settings that preflight looks at.
var sysctls = []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.bridge.bridge-nf-call-iptables", disableIPv6, disableIPv6OfNew, disableIPv6OfLoopback}

const (
	disableIPv6           = "net.ipv6.conf.all.disable_ipv6"
	disableIPv6OfNew      = "net.ipv6.conf.default.disable_ipv6" // of interfaces that are made later
	disableIPv6OfLoopback = "net.ipv6.conf.lo.disable_ipv6"
)

// Paths whose presence preflight asks for.
var presentPaths = []string{
	"/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/manifests/kube-apiserver.yaml",
	"/etc/kubernetes/manifests/kube-controller-manager.yaml", "/etc/kubernetes/manifests/kube-scheduler.yaml",
	"/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf", "/etc/kubernetes/pki/ca.crt",
	"/var/lib/kubelet/config.yaml", "/var/lib/kubelet/pki/kubelet-client-current.pem",
	"/var/lib/etcd/member", "/proc/sys/net/bridge/bridge-nf-call-iptables", "/sys/module/overlay", "/proc/sys/net/ipv4/ip_forward",
	"/run/systemd/system", "/sys/fs/cgroup/cgroup.controllers", "/run/systemd/resolve/resolv.conf",
}

// Facts looks at a host: several reads at once, none of which changes anything.
func Facts(ctx context.Context, h host.Host) (config.Facts, error) {
	f := config.Facts{Sysctls: map[string]string{}, Commands: map[string]string{}, Present: map[string]bool{}}
	g, ctx := errgroup.WithContext(ctx)
	read := func(path string, use func(string)) {
		g.Go(func() error {
			b, err := h.ReadFile(ctx, path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				use(strings.TrimSpace(string(b)))
			}
			return err
		})
	}
	read("/proc/sys/kernel/hostname", func(s string) { f.Hostname = s })
	read("/proc/sys/kernel/osrelease", func(s string) { f.Kernel = s })
	read("/etc/os-release", func(s string) { f.OS = osName(s) })
	read("/etc/machine-id", func(s string) { f.MachineID = s })
	read("/proc/meminfo", func(s string) { f.MemoryBytes = memTotal(s) })
	read("/proc/swaps", func(s string) { f.SwapOn = strings.Count(s, "\n") > 0 })
	read(manifests.ContainerdUnitPath, func(s string) { f.OwnContainerd = manifests.IsContainerdUnit(s) })
	read("/proc/self/status", func(s string) { f.Root = regexp.MustCompile(`(?m)^Uid:\s+\d+\s+0\s`).MatchString(s) })
	var tcp4, tcp6 []uint16
	read("/proc/net/tcp", func(s string) { tcp4 = listening(s) })
	read("/proc/net/tcp6", func(s string) { tcp6 = listening(s) })
	var resolvers [2][]netip.Addr // the second are those that systemd-resolved asks
	read("/etc/resolv.conf", func(s string) { resolvers[0] = nameServers(s) })
	read("/run/systemd/resolve/resolv.conf", func(s string) { resolvers[1] = nameServers(s) })
	values := make([]string, len(sysctls))
	for i, name := range sysctls {
		read("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), func(v string) { values[i] = v })
	}
	g.Go(func() (err error) { return present(ctx, h, &f) })
	g.Go(func() error { return addresses(ctx, h, &f) })
	g.Go(func() error { f.Clock = clock(ctx, h); return nil })
	g.Go(func() error {
		if b, err := h.ReadFile(ctx, "/sys/class/dmi/id/product_uuid"); err == nil { // not every machine has one, nor may everybody read it
			f.ProductUUID = strings.ToLower(strings.TrimSpace(string(b)))
		}
		return nil
	})
	g.Go(func() error {
		out, err := h.Run(ctx, host.Query("df", "--output=avail", "--block-size=1", "/var/lib"))
		if lines := strings.Fields(string(out.Stdout)); err == nil && len(lines) == 2 {
			f.DiskFree, _ = strconv.ParseInt(lines[1], 10, 64)
		}
		return nil
	})
	g.Go(func() error {
		out, err := h.Run(ctx, host.Query("uname", "-m"))
		machine := strings.TrimSpace(string(out.Stdout))
		f.Machine = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[machine]
		if err == nil && f.Machine == "" {
			return fmt.Errorf("machine type %q: kubewright installs on x86_64 and aarch64", machine)
		}
		return err
	})
	g.Go(func() error {
		out, err := h.Run(ctx, host.Query("nproc"))
		f.CPUs, _ = strconv.Atoi(strings.TrimSpace(string(out.Stdout)))
		return installed(err)
	})
	if err := g.Wait(); err != nil {
		return f, fmt.Errorf("look at the host: %w", err)
	}
	for _, ip := range slices.Concat(resolvers[0], resolvers[1]) {
		if !slices.Contains(f.Resolvers, ip) {
			f.Resolvers = append(f.Resolvers, ip)
		}
	}
	f.Listening = append(tcp4, tcp6...)
	slices.Sort(f.Listening)
	f.Listening = slices.Compact(f.Listening)
	for i, name := range sysctls {
		if values[i] != "" {
			f.Sysctls[name] = values[i]
		}
	}
	f.Systemd = f.Present["/run/systemd/system"]
	f.Resolved = f.Present["/run/systemd/resolve/resolv.conf"]
	f.CgroupVersion = 1
	if f.Present["/sys/fs/cgroup/cgroup.controllers"] {
		f.CgroupVersion = 2
	}
	return f, nil
}

// installed forgives a command that is not there: preflight names it, with all else that is missing.
func installed(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	return err
}

// present asks for all paths at once: over SSH a question is a round trip.
func present(ctx context.Context, h host.Host, f *config.Facts) error {
	seen := append(kernelSigns(), presentPaths...)
	paths := slices.Concat(seen, trustDirs, sockets)
	for _, c := range commands {
		for _, dir := range BinDirs {
			paths = append(paths, path.Join(dir, c))
		}
	}
	infos, err := h.Stat(ctx, paths...)
	if err != nil {
		return err
	}
	for _, p := range seen {
		_, f.Present[p] = infos[p]
	}
	for _, d := range trustDirs {
		if i, ok := infos[d]; ok && i.Mode.IsDir() {
			f.TrustDirs = append(f.TrustDirs, d)
		}
	}
	for _, s := range sockets {
		if _, ok := infos[s]; ok {
			f.Sockets = append(f.Sockets, "unix://"+s)
		}
	}
	for _, c := range commands {
		for _, dir := range slices.Backward(BinDirs) {
			if _, ok := infos[path.Join(dir, c)]; ok {
				f.Commands[c] = path.Join(dir, c)
			}
		}
	}
	return nil
}

func osName(s string) string {
	for line := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

// nameServers are those of a resolv.conf that are not the host itself.
func nameServers(s string) (all []netip.Addr) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(f[1]); err == nil && !ip.IsLoopback() {
			all = append(all, ip.WithZone(""))
		}
	}
	return all
}

func memTotal(s string) int64 {
	var kib int64
	fmt.Sscanf(s, "MemTotal: %d kB", &kib)
	return kib << 10
}

// listening takes the local ports in state 0A (LISTEN) from /proc/net/tcp or tcp6.
func listening(s string) (ports []uint16) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports = append(ports, uint16(p))
		}
	}
	return ports
}

// clock is how far the host's is ahead of ours, as far as the way there and back lets one tell.
func clock(ctx context.Context, h host.Host) time.Duration {
	asked := time.Now()
	out, err := h.Run(ctx, host.Query("date", "+%s.%N"))
	s, ns, ok := strings.Cut(strings.TrimSpace(string(out.Stdout)), ".")
	if err != nil || !ok {
		return 0
	}
	seconds, _ := strconv.ParseInt(s, 10, 64)
	nanos, _ := strconv.ParseInt(ns, 10, 64)
	return time.Unix(seconds, nanos).Sub(asked.Add(time.Since(asked)/2 - out.Earlier))
}
