package manifests

import (
	"strconv"
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
type Sysctl struct {
	Name, Value, Why string
	AtLeast          bool // a greater number is as good
}

// Holds tells whether a kernel with the setting have needs no change.
func (s Sysctl) Holds(have string) bool {
	have = strings.TrimSpace(have)
	if !s.AtLeast {
		return have == s.Value
	}
	h, err1 := strconv.ParseInt(have, 10, 64)
	w, err2 := strconv.ParseInt(s.Value, 10, 64)
	return err1 == nil && err2 == nil && h >= w
}

// Sysctls are the settings that every node needs, sorted by name. IPv6 adds those of clusters with IPv6 pods or services.
func Sysctls(ipv6 bool) []Sysctl {
	settings := []Sysctl{
		// The kernel gives a user 128 watchers: a kubelet, a containerd and a few pods that follow their
		// certificates use them up, and then containerd's CRI plugin does not even load.
		{Name: "fs.inotify.max_user_instances", Value: "8192", Why: "kubelet, containerd and pods that watch files", AtLeast: true},
		{Name: "fs.inotify.max_user_watches", Value: "524288", Why: "kubelet, containerd and pods that watch files", AtLeast: true},
		{Name: "net.bridge.bridge-nf-call-ip6tables", Value: "1", Why: "services for IPv6 pods that share a bridge"},
		{Name: "net.bridge.bridge-nf-call-iptables", Value: "1", Why: "services for pods that share a bridge"},
		{Name: "net.ipv4.ip_forward", Value: "1", Why: "packets between pods of different nodes"},
	}
	if ipv6 {
		settings = append(settings, ipv6Sysctls...)
	}
	return settings
}

// Nowhere else: a host that forwards IPv6 takes no more routes from routers (accept_ra).
var ipv6Sysctls = []Sysctl{{Name: "net.ipv6.conf.all.forwarding", Value: "1", Why: "IPv6 packets between pods of different nodes"}}

// NodeSysctls are the settings that programs of a node change by themselves, and to what; an
// empty value stands for one that depends on the machine.
func NodeSysctls() []Sysctl {
	return []Sysctl{
		{Name: "vm.overcommit_memory", Value: "1", Why: "kubelet"},
		{Name: "vm.panic_on_oom", Value: "0", Why: "kubelet"},
		{Name: "kernel.panic", Value: "10", Why: "kubelet"},
		{Name: "kernel.panic_on_oops", Value: "1", Why: "kubelet"},
		{Name: "kernel.keys.root_maxkeys", Value: "1000000", Why: "kubelet"},
		{Name: "kernel.keys.root_maxbytes", Value: "25000000", Why: "kubelet"},
		{Name: "net.ipv4.ip_forward", Value: "1", Why: "CNI plugins"},
		{Name: "net.ipv6.conf.all.forwarding", Value: "1", Why: "CNI plugins"},
		{Name: "net.ipv4.conf.all.route_localnet", Value: "1", Why: "kube-proxy"},
		{Name: "net.ipv4.conf.all.arp_ignore", Value: "1", Why: "kube-proxy"},
		{Name: "net.ipv4.conf.all.arp_announce", Value: "2", Why: "kube-proxy"},
		{Name: "net.netfilter.nf_conntrack_max", Why: "kube-proxy"},
		{Name: "net.netfilter.nf_conntrack_tcp_timeout_established", Value: "86400", Why: "kube-proxy"},
		{Name: "net.netfilter.nf_conntrack_tcp_timeout_close_wait", Value: "3600", Why: "kube-proxy"},
	}
}

// Prerequisites keep [Modules] and [Sysctls] over a reboot. What is of IPv6 has a file of its own: a host that
// joins writes it later than the others, once it knows what cluster it is in.
func Prerequisites(ipv6 bool) []host.File {
	var modules strings.Builder
	for _, m := range Modules() {
		modules.WriteString(m.Name + "\n")
	}
	files := []host.File{
		{Path: "/etc/modules-load.d/kubewright.conf", Content: host.Text(modules.String())},
		{Path: "/etc/sysctl.d/99-kubewright.conf", Content: sysctlFile(Sysctls(false))},
	}
	if ipv6 {
		files = append(files, host.File{Path: "/etc/sysctl.d/99-kubewright-ipv6.conf", Content: sysctlFile(ipv6Sysctls)})
	}
	return files
}

func sysctlFile(settings []Sysctl) host.Source {
	var text strings.Builder
	for _, s := range settings {
		text.WriteString(s.Name + " = " + s.Value + "\n")
	}
	return host.Text(text.String())
}
