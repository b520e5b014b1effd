package lab

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Hosts are this Debian. It is what the machine's runc and kernel were tried with, whatever the machine itself runs.
const debianSuite = "bookworm"

// hostPackages of a bare host: what a server has before anybody thinks of Kubernetes, and what the kubelet,
// kube-proxy and kubeadm expect of it. The last line is for packing images only (see images.go).
func hostPackages() []string {
	return strings.Fields(`
		systemd systemd-sysv dbus kmod mount util-linux procps
		iproute2 iptables nftables conntrack socat ethtool iputils-ping netbase
		openssh-server sudo ca-certificates
		ipset busybox-static haproxy`)
}

//go:embed hostfiles/entry
var hostEntry string

//go:embed hostfiles/containerd.toml
var hostContainerd string

// Units that a container must not run: they act on the machine whose kernel it shares, or on hardware, consoles and
// timers that it does not have. haproxy is there to be packed.
func maskedUnits() []string {
	return strings.Fields(`
		systemd-udevd.service systemd-udev-trigger.service systemd-remount-fs.service
		sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount
		getty.target console-getty.service haproxy.service
		apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer`)
}

func rootfsKey() string {
	return key(debianSuite, strings.Join(hostPackages(), " "), hostEntry, hostContainerd, strings.Join(maskedUnits(), " "), SSHUser, "2")
}

// Rootfs returns the folder with the root filesystem of a bare host.
func (b *Builder) Rootfs(ctx context.Context) (string, error) {
	return b.make(ctx, "rootfs", "root filesystem of hosts (debootstrap "+debianSuite+")", rootfsKey(), func(ctx context.Context, dir string) error {
		from, err := mirror()
		if err != nil {
			return err
		}
		env := append(append(os.Environ(), proxyEnv(ctx)...), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
		for _, argv := range [][]string{
			{"debootstrap", "--variant=minbase", "--include=" + strings.Join(hostPackages(), ","), debianSuite, dir, from},
			{"chroot", dir, "useradd", "--create-home", "--shell", "/bin/bash", SSHUser},
		} {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Env = env
			if err := run(cmd); err != nil {
				return err
			}
		}
		return finishRootfs(dir)
	})
}

// finishRootfs makes a host of a fresh Debian: the lab's files in, identity and what nobody reads out.
func finishRootfs(dir string) error {
	for _, pattern := range []string{
		"etc/ssh/ssh_host_*", "var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*.log",
		"usr/share/doc/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "var/lib/dbus/machine-id", "etc/resolv.conf", "etc/hostname",
	} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	for _, unit := range maskedUnits() {
		p := filepath.Join(dir, "etc/systemd/system", unit)
		os.Remove(p)
		if err := os.Symlink("/dev/null", p); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{"entry", hostEntry, 0o755},
		{"etc/containerd/conf.d/lab.toml", hostContainerd, 0o644},
		{"etc/sudoers.d/" + SSHUser, SSHUser + " ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440},
		{"etc/machine-id", "", 0o444},
	} {
		p := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	return nil
}
