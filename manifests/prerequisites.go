package manifests

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Modules are the kernel modules that containers and their network need: overlay for
// images, br_netfilter so that packets between pods of a bridge meet the service rules.
func Modules() []string { return []string{"overlay", "br_netfilter"} }

// Sysctls are the kernel settings that pods and services need, by name.
func Sysctls(c *config.Cluster) map[string]string {
	settings := map[string]string{
		"net.ipv4.ip_forward":                 "1",
		"net.bridge.bridge-nf-call-iptables":  "1",
		"net.bridge.bridge-nf-call-ip6tables": "1",
	}
	// Only with IPv6 pods: a host that forwards IPv6 no longer takes routes from routers (accept_ra).
	for cidr := range strings.SplitSeq(c.Spec.Network.PodCIDR, ",") {
		if pods, err := netip.ParsePrefix(cidr); err == nil && pods.Addr().Is6() {
			settings["net.ipv6.conf.all.forwarding"] = "1"
		}
	}
	return settings
}

// Prerequisites keep modules and settings over a reboot.
func Prerequisites(c *config.Cluster) []host.File {
	settings := Sysctls(c)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, name+" = "+settings[name]+"\n")
	}
	return []host.File{
		{Path: "/etc/modules-load.d/kubewright.conf", Content: host.Text(strings.Join(Modules(), "\n") + "\n")},
		{Path: "/etc/sysctl.d/99-kubewright.conf", Content: host.Text(strings.Join(lines, ""))},
	}
}
