package phases

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

func TestFactsOfAHost(t *testing.T) {
	h := newFakeHost(t)
	for path, content := range map[string]string{
		"/usr/bin/kubelet": "", "/usr/local/bin/kubelet": "", "/run/containerd/containerd.sock": "",
		"/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.53", "/etc/kubernetes/kubelet.conf": "",
		"/etc/resolv.conf": "# of systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n",
		"/proc/swaps":      "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1 0 -2\n",
		"/proc/net/tcp":    "  sl  local_address rem_address   st tx_queue\n   0: 00000000:1538 00000000:0000 0A 0:0\n   1: 0B0200C0:C350 0C0200C0:192B 01 0:0\n",
		"/proc/net/tcp6":   "  sl  local_address rem_address   st\n   0: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A\n   1: 00000000000000000000000000000000:1538 00000000000000000000000000000000:0000 0A\n",
	} {
		h.files[path] = text(content)
	}
	got, err := Facts(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	for name := range got.Present { // those that are not there are of no interest here
		if !got.Present[name] {
			delete(got.Present, name)
		}
	}
	want := config.Facts{
		Hostname: "cp-1", Machine: "amd64", Kernel: "6.12.0-1-amd64", OS: "Debian GNU/Linux 13 (trixie)",
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}, Routes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		MTUs: map[netip.Addr]int{netip.MustParseAddr("192.0.2.11"): 1500}, DefaultIP: netip.MustParseAddr("192.0.2.11"), Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Resolvers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, CPUs: 2, MemoryBytes: 4015504 << 10, CgroupVersion: 2, SwapOn: true, Root: true, Systemd: true, Resolved: true,
		TrustDirs: []string{"/usr/share/ca-certificates"}, Listening: []uint16{5432, 10250}, Sockets: []string{"unix:///run/containerd/containerd.sock"},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "0", "net.bridge.bridge-nf-call-iptables": "1"},
		Commands: map[string]string{"kubelet": "/usr/local/bin/kubelet", "mount": "/usr/bin/mount", "umount": "/usr/bin/umount", "losetup": "/usr/bin/losetup", "cp": "/usr/bin/cp", "nproc": "/usr/bin/nproc",
			"ip": "/usr/bin/ip", "systemctl": "/usr/bin/systemctl", "modprobe": "/usr/bin/modprobe", "iptables": "/usr/bin/iptables", "ethtool": "/usr/bin/ethtool"},
		Present: map[string]bool{"/etc/kubernetes/kubelet.conf": true, "/proc/sys/net/bridge/bridge-nf-call-iptables": true, "/proc/sys/net/ipv4/ip_forward": true,
			"/run/systemd/system": true, "/sys/fs/cgroup/cgroup.controllers": true, "/run/systemd/resolve/resolv.conf": true, "/sys/module/vxlan": true},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if len(h.done) > 0 {
		t.Errorf("looking changed the host: %q", h.done)
	}
}

func TestFactsThatAreOtherwise(t *testing.T) {
	h := newFakeHost(t)
	delete(h.files, "/sys/fs/cgroup/cgroup.controllers")
	delete(h.files, "/run/systemd/system/x")
	h.files["/proc/self/status"] = text("Uid:\t1000\t1000\t0\t1000\n")
	h.answers["uname -m"] = "aarch64\n"
	f, err := Facts(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if f.CgroupVersion != 1 || f.Systemd || f.Root || f.SwapOn || f.Machine != "arm64" || f.Resolved {
		t.Errorf("%+v", f)
	}
	h.answers["uname -m"] = "riscv64\n"
	if _, err := Facts(t.Context(), h); err == nil || err.Error() != `look at the host: machine type "riscv64": kubewright installs on x86_64 and aarch64` {
		t.Error(err)
	}
	h.answers["uname -m"] = "x86_64\n"
	h.answers["ip -j addr"] = "Object \"addr\" is unknown"
	if _, err := Facts(t.Context(), h); err == nil || !strings.HasPrefix(err.Error(), "look at the host: ip -j addr: ") {
		t.Error(err)
	}
}

func TestListeningPorts(t *testing.T) {
	for s, want := range map[string][]uint16{
		"":                                       nil,
		"  sl  local_address rem_address   st\n": nil,
		"   0: 0100007F:0016 00000000:0000 0A 00000000:00000000\n": {22},
		"   0: 0100007F:0016 00000000:0000 06\n":                   nil, // TIME_WAIT is no listener
		"   0: x:y z 0A\n   1: 0100007F:FFFF 00000000:0000 0A\n":   {65535},
	} {
		if diff := cmp.Diff(want, listening(s)); diff != "" {
			t.Errorf("%q: %s", s, diff)
		}
	}
}

// What iproute2 6.15 prints on a host with two interfaces, docker's bridge and a VPN; then
// one of IPv6 alone, as routers advertise it.
const (
	addrTwo = `[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host","label":"lo"},{"family":"inet6","local":"::1","prefixlen":128,"scope":"host"}]},
{"ifindex":2,"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.3.7","prefixlen":24,"broadcast":"10.0.3.255","scope":"global","dynamic":true,"label":"eth0"},{"family":"inet","local":"10.0.3.8","prefixlen":24,"scope":"global","secondary":true},{"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]},
{"ifindex":3,"ifname":"docker0","addr_info":[{"family":"inet","local":"172.17.0.1","prefixlen":16,"scope":"global"}]},
{},{"ifindex":4,"ifname":"wg0","addr_info":[{"family":"inet","local":"10.96.0.4","prefixlen":32,"scope":"global"}]}]`
	routeTwo = `[{"dst":"default","gateway":"10.0.3.1","dev":"eth0","protocol":"dhcp","prefsrc":"10.0.3.8","metric":100,"flags":[]},
{"dst":"default","gateway":"172.17.0.9","dev":"docker0","metric":200},
{"dst":"10.0.3.0/24","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"10.0.3.7"},{"dst":"172.17.0.0/16","dev":"docker0","flags":["linkdown"]},{"dst":"10.96.0.1","dev":"wg0"}]`
	addrBoth = `[{"ifname":"eth0","link_type":"ether","addr_info":[{"family":"inet","local":"192.0.2.7","prefixlen":24,"scope":"global"},{"family":"inet6","local":"2001:db8::99","prefixlen":128,"scope":"global"},{"family":"inet6","local":"2001:db8::a","prefixlen":64,"scope":"global","temporary":true},{"family":"inet6","local":"2001:db8::b","prefixlen":64,"scope":"global","deprecated":true},{"family":"inet6","local":"2001:db8::7","prefixlen":64,"scope":"global","mngtmpaddr":true},{"family":"inet6","local":"fe80::7","prefixlen":64,"scope":"link"}]}]`
	addrSix  = `[{"ifname":"eth0","addr_info":[{"family":"inet6","local":"2001:db8::7","prefixlen":64,"scope":"global","dynamic":true},{"family":"inet6","local":"fe80::7","prefixlen":64,"scope":"link"}]}]`
	routeSix = `[{"dst":"2001:db8::/64","dev":"eth0","protocol":"kernel"},{"dst":"fe80::/64","dev":"eth0"},{"dst":"default","gateway":"fe80::1","dev":"eth0","protocol":"ra"}]`
)

func TestAddressesAndRoutes(t *testing.T) {
	for name, tt := range map[string]struct {
		addr, route4, route6 string
		own, routes, source  string
		six, beside          string // source of IPv6, and the other family beside these
		gateways             string
	}{
		"the route says its source":     {addrTwo, routeTwo, "", "[10.0.3.7/24 10.0.3.8/24 172.17.0.1/16 10.96.0.4/32]", "[10.0.3.0/24 172.17.0.0/16]", "10.0.3.8", "invalid IP", "map[]", "[10.0.3.1 172.17.0.9]"},
		"the first of the interface":    {addrTwo, strings.Replace(routeTwo, `"prefsrc":"10.0.3.8",`, "", 1), "[]", "[10.0.3.7/24 10.0.3.8/24 172.17.0.1/16 10.96.0.4/32]", "[10.0.3.0/24 172.17.0.0/16]", "10.0.3.7", "invalid IP", "map[]", "[10.0.3.1 172.17.0.9]"},
		"IPv6 alone":                    {addrSix, "[ ]\n", routeSix, "[2001:db8::7/64]", "[2001:db8::/64 fe80::/64]", "2001:db8::7", "2001:db8::7", "map[]", "[fe80::1]"},
		"both":                          {addrBoth, `[{"dst":"default","dev":"eth0"}]`, routeSix, "[192.0.2.7/24 2001:db8::99/128 2001:db8::a/64 2001:db8::b/64 2001:db8::7/64]", "[2001:db8::/64 fe80::/64]", "192.0.2.7", "2001:db8::7", "map[192.0.2.7:2001:db8::7 2001:db8::7:192.0.2.7 2001:db8::a:192.0.2.7 2001:db8::b:192.0.2.7 2001:db8::99:192.0.2.7]", "[fe80::1]"},
		"both, and a route of one":      {addrBoth, `[{"dst":"default","dev":"eth0"}]`, "[]", "[192.0.2.7/24 2001:db8::99/128 2001:db8::a/64 2001:db8::b/64 2001:db8::7/64]", "[]", "192.0.2.7", "invalid IP", "map[192.0.2.7:2001:db8::7 2001:db8::7:192.0.2.7 2001:db8::a:192.0.2.7 2001:db8::b:192.0.2.7 2001:db8::99:192.0.2.7]", "[]"},
		"no default route":              {addrTwo, "[]", "[]", "[10.0.3.7/24 10.0.3.8/24 172.17.0.1/16 10.96.0.4/32]", "[]", "invalid IP", "invalid IP", "map[]", "[]"},
		"no network but the host's own": {"[]", "", "", "[]", "[]", "invalid IP", "invalid IP", "map[]", "[]"},
	} {
		h := newFakeHost(t)
		h.answers["ip -j addr"], h.answers["ip -4 -j route"], h.answers["ip -6 -j route"] = tt.addr, tt.route4, tt.route6
		var f config.Facts
		if err := addresses(t.Context(), h, &f); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := []string{strs(f.Addresses), strs(f.Routes), f.DefaultIP.String(), f.DefaultIPv6.String(), fmt.Sprint(f.Beside), fmt.Sprint(f.Gateways)}
		if diff := cmp.Diff([]string{tt.own, tt.routes, tt.source, tt.six, tt.beside, tt.gateways}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// prompt reads no file for those who have gone.
type prompt struct{ *fakeHost }

func (h prompt) ReadFile(ctx context.Context, path string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.fakeHost.ReadFile(ctx, path)
}

func TestARouteThatEndsWhenTheHostForwards(t *testing.T) {
	static := strings.Replace(routeSix, `"protocol":"ra"`, `"protocol":"static"`, 1)
	for name, tt := range map[string]struct{ route, accept, want string }{
		"the kernel's":            {routeSix, "1\n", "eth0"},
		"that stays":              {routeSix, "2\n", ""},
		"of systemd-networkd":     {routeSix, "0\n", ""},
		"of a host without IPv6":  {"", "1\n", ""},
		"that nobody advertises":  {static, "1\n", ""},
		"of a link that has gone": {routeSix, "", ""},
	} {
		h := newFakeHost(t)
		h.answers["ip -j addr"], h.answers["ip -6 -j route"] = addrSix, tt.route
		if tt.accept != "" {
			h.files["/proc/sys/net/ipv6/conf/eth0/accept_ra"] = text(tt.accept)
		}
		var f config.Facts
		if err := addresses(t.Context(), prompt{h}, &f); err != nil || f.RouteEnds != tt.want {
			t.Errorf("a route %s: %q, %v", name, f.RouteEnds, err)
		}
	}
}

func strs(prefixes []netip.Prefix) string {
	var s []string
	for _, p := range prefixes {
		s = append(s, p.String())
	}
	return "[" + strings.Join(s, " ") + "]"
}

func TestMarkAddsWhatANodeLacks(t *testing.T) {
	taint := []corev1.Taint{{Key: controlPlaneLabel, Effect: corev1.TaintEffectNoSchedule}}
	labels := map[string]string{controlPlaneLabel: "", corev1.LabelNodeExcludeBalancers: ""}
	cp := []config.Role{config.ControlPlaneRole}
	for name, tt := range map[string]struct {
		live    string
		node    config.Node
		changed bool
		labels  map[string]string
		taints  []corev1.Taint
	}{
		"a new control plane":                {`{}`, config.Node{Roles: cp}, true, labels, taint},
		"one that is marked":                 {`{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":"","node.kubernetes.io/exclude-from-external-load-balancers":""}},"spec":{"taints":[{"key":"node-role.kubernetes.io/control-plane","effect":"NoSchedule"}]}}`, config.Node{Roles: cp}, false, labels, taint},
		"a worker as well":                   {`{}`, config.Node{Roles: append(cp, config.WorkerRole)}, true, labels, nil},
		"no taints, as asked":                {`{}`, config.Node{Roles: cp, Taints: []corev1.Taint{}}, true, labels, nil},
		"a worker":                           {`{}`, config.Node{Roles: []config.Role{config.WorkerRole}}, false, nil, nil},
		"labels that a kubelet has set once": {`{"metadata":{"labels":{"disk":"hdd"}}}`, config.Node{Labels: map[string]string{"disk": "ssd"}}, true, map[string]string{"disk": "ssd"}, nil},
		"what the document has no longer": {`{"metadata":{"labels":{"rack":"a","mine":"x"},"annotations":{"kubewright.dev/marked":"label rack,taint db:NoSchedule"}},"spec":{"taints":[{"key":"db","effect":"NoSchedule"},{"key":"db","effect":"NoExecute"}]}}`,
			config.Node{Roles: []config.Role{config.WorkerRole}}, true, map[string]string{"mine": "x"}, []corev1.Taint{{Key: "db", Effect: corev1.TaintEffectNoExecute}}},
		"a taint with another value": {`{"spec":{"taints":[{"key":"db","value":"old","effect":"NoSchedule"}]}}`, config.Node{Taints: []corev1.Taint{{Key: "db", Value: "new", Effect: corev1.TaintEffectNoSchedule}}}, true, nil, []corev1.Taint{{Key: "db", Value: "new", Effect: corev1.TaintEffectNoSchedule}}},
		"labels that it may not set": {`{"metadata":{"labels":{"a":"b"}}}`, config.Node{Labels: map[string]string{"node-role.kubernetes.io/x": "y"}}, true, map[string]string{"a": "b", "node-role.kubernetes.io/x": "y"}, nil},
		"a label with another value": {`{"metadata":{"labels":{"node-role.kubernetes.io/x":"z"}}}`, config.Node{Labels: map[string]string{"node-role.kubernetes.io/x": "y"}}, true, map[string]string{"node-role.kubernetes.io/x": "y"}, nil},
		"taints of others stay": {`{"spec":{"podCIDR":"10.244.0.0/24","taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}]}}`, config.Node{Roles: cp}, true, labels,
			append([]corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}}, taint...)},
	} {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{}
			if err := json.Unmarshal([]byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}`), &o.Object); err != nil {
				t.Fatal(err)
			}
			var more map[string]any
			if err := json.Unmarshal([]byte(tt.live), &more); err != nil {
				t.Fatal(err)
			}
			for k, v := range more {
				o.Object[k] = v
			}
			if got := mark(o, tt.node); got != tt.changed {
				t.Errorf("changed: %t", got)
			}
			if got := o.GetLabels(); len(got)+len(tt.labels) > 0 && !cmp.Equal(got, tt.labels) {
				t.Error(cmp.Diff(tt.labels, got))
			}
			if diff := cmp.Diff(tt.taints, taintsOf(t, o)); diff != "" {
				t.Error(diff)
			}
			if cidr, _, _ := unstructured.NestedString(o.Object, "spec", "podCIDR"); strings.Contains(tt.live, "podCIDR") && cidr == "" {
				t.Error("the node's pod range was lost")
			}
			if mark(o, tt.node) {
				t.Error("a second time something was lacking")
			}
		})
	}
}

func taintsOf(t *testing.T, o addons.Object) (taints []corev1.Taint) {
	t.Helper()
	b, err := json.Marshal(o.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	var spec corev1.NodeSpec
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	return spec.Taints
}

func TestWithoutOursNamesOurRulesAlone(t *testing.T) {
	save := `# Generated by iptables-save v1.8.11 (nf_tables)
*nat
:PREROUTING ACCEPT [1:60]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:CNI-1234 - [0:0]
:FLANNEL-POSTRTG - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.244.1.4/32 -m comment --comment "name: \"cbr0\"" -j CNI-1234
-A FORWARD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-POSTRTG -m comment --comment "flanneld masq" -j RETURN
-A KUBE-SERVICES -d 10.96.0.1/32 -j ACCEPT
-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
COMMIT
`
	want := `*nat
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-D POSTROUTING -s 10.244.1.4/32 -m comment --comment "name: \"cbr0\"" -j CNI-1234
-D FORWARD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-F KUBE-SERVICES
-F CNI-1234
-F FLANNEL-POSTRTG
-X KUBE-SERVICES
-X CNI-1234
-X FLANNEL-POSTRTG
COMMIT
`
	removed := map[string]int{}
	if diff := cmp.Diff(want, string(withoutOurs([]byte(save), "ip", removed, nil))); diff != "" {
		t.Error(diff)
	}
}

func TestResetRestoresTheRulesOfOthersAlone(t *testing.T) {
	h := newFakeHost(t)
	h.answers["iptables-save"] = "*filter\n:KUBE-FORWARD - [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n"
	h.answers["ip6tables-save"] = "*filter\nCOMMIT\n"
	if err := cleanNetwork(t.Context(), h.target(cluster(), config.WorkerRole)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"$ iptables-restore --noflush"}, h.done); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("*filter\n-F KUBE-FORWARD\n-X KUBE-FORWARD\nCOMMIT\n", h.stdin["iptables-restore --noflush"]); diff != "" {
		t.Error(diff)
	}
}

func TestMountsBelowGivesTheNewestFirst(t *testing.T) {
	mounts := `proc /proc proc rw 0 0
/dev/sda1 /var/lib/kubelet ext4 rw 0 0
tmpfs /var/lib/kubelet/pods/a/volumes/one tmpfs rw 0 0
/dev/sdb /var/lib/kubelet/pods/a/volumes/one/sub\040path\134x ext4 rw 0 0
tmpfs /var/lib/kubelet2/x tmpfs rw 0 0

`
	want := []string{`/var/lib/kubelet/pods/a/volumes/one/sub path\x`, "/var/lib/kubelet/pods/a/volumes/one"}
	if diff := cmp.Diff(want, mountsBelow(mounts, "/var/lib/kubelet/")); diff != "" {
		t.Error(diff)
	}
}
