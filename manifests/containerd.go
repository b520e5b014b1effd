package manifests

import (
	"fmt"
	"strings"

	"github.com/kubewright/kubewright/host"
)

// Containerd is the configuration of containerd 2.x. Administrators add to it in
// /etc/containerd/conf.d, which is merged field by field. Mirrors are in [CertsDir].
func Containerd(sandboxImage string) host.File {
	return host.File{Path: "/etc/containerd/config.toml", Content: host.Text(fmt.Sprintf(containerdConfig, sandboxImage))}
}

// ContainerdUnitPath is where the unit of a containerd of ours is.
const ContainerdUnitPath = "/etc/systemd/system/containerd.service"

// ContainerdUnit runs containerd as installed in /usr/local.
func ContainerdUnit() host.File {
	return host.File{Path: ContainerdUnitPath, Content: host.Text(containerdUnit)}
}

// IsContainerdUnit tells whether a unit is one of ours, of this version or another.
func IsContainerdUnit(content string) bool { return strings.HasPrefix(content, unitMark) }

const unitMark = "# Written by kubewright, which replaces it and the containerd that it runs."

// CRIO is a part of CRI-O's configuration; parts of a higher number have the last word.
func CRIO(sandboxImage string) host.File {
	return host.File{Path: "/etc/crio/crio.conf.d/50-kubewright.conf", Content: host.Text(fmt.Sprintf(crioConfig, sandboxImage))}
}

const crioConfig = `# Written by kubewright: the cluster's sandbox image, and systemd's cgroups, which are CRI-O's default too.
[crio.image]
pause_image = "%s"

[crio.runtime]
cgroup_manager = "systemd"
`

// Crictl tells crictl where the runtime is, whichever it is. Socket is a URL, unix:///...
func Crictl(socket string) host.File {
	return host.File{Path: "/etc/crictl.yaml", Content: host.Text(fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\n", socket, socket))}
}

// Version 3 is read by containerd 2.0 and up; version 4 only by 2.3 and up.
// No plugin is disabled: those that lack their tools skip themselves at once.
const containerdConfig = `version = 3
imports = ['/etc/containerd/conf.d/*.toml']

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '%s'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '/etc/containerd/certs.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = true
`

// As containerd's own unit, whose KillMode lets containers outlive a restart of containerd.
const containerdUnit = unitMark + `
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service local-fs.target

[Service]
# No OOMScoreAdjust=-999, as upstream has: without CAP_SYS_RESOURCE (in containers, say)
# systemd could not start it.
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=1
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`
