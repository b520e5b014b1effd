package manifests

import (
	"strings"

	"github.com/kubewright/kubewright/host"
)

// Module is a kernel module that containers or their network need.
type Module struct {
	Name string
	Sign string // path that exists where it is loaded or built in
	Why  string
}

// Modules are the modules that every node needs.
func Modules() []Module {
	return []Module{
		{"overlay", "/sys/module/overlay", "layers of images"},
		{"br_netfilter", "/proc/sys/net/bridge", "services for pods that share a bridge"},
	}
}

// Sysctl is a setting of the kernel, by its dotted name.
type Sysctl struct{ Name, Value, Why string }

// Sysctls are the settings that every node needs, sorted by name. IPv6 adds that of clusters with IPv6 pods.
func Sysctls(ipv6 bool) []Sysctl {
	settings := []Sysctl{
		{"net.bridge.bridge-nf-call-ip6tables", "1", "services for IPv6 pods that share a bridge"},
		{"net.bridge.bridge-nf-call-iptables", "1", "services for pods that share a bridge"},
		{"net.ipv4.ip_forward", "1", "packets between pods of different nodes"},
	}
	if ipv6 {
		// Nowhere else: a host that forwards IPv6 takes no more routes from routers (accept_ra).
		settings = append(settings, Sysctl{"net.ipv6.conf.all.forwarding", "1", "IPv6 packets between pods of different nodes"})
	}
	return settings
}

// Prerequisites keep [Modules] and [Sysctls] over a reboot.
func Prerequisites(ipv6 bool) []host.File {
	var modules, settings strings.Builder
	for _, m := range Modules() {
		modules.WriteString(m.Name + "\n")
	}
	for _, s := range Sysctls(ipv6) {
		settings.WriteString(s.Name + " = " + s.Value + "\n")
	}
	return []host.File{
		{Path: "/etc/modules-load.d/kubewright.conf", Content: host.Text(modules.String())},
		{Path: "/etc/sysctl.d/99-kubewright.conf", Content: host.Text(settings.String())},
	}
}
