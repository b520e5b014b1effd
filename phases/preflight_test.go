package phases

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/pki"
)

// ready is a host, and a node of it, that nothing is wrong with.
func ready(roles ...config.Role) (config.Node, config.Facts) {
	f := config.Facts{Root: true, Systemd: true, CgroupVersion: 2, CPUs: 2, MemoryBytes: 2 << 30, Commands: map[string]string{}, Present: map[string]bool{},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}, Routes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for _, c := range commands {
		f.Commands[c] = "/usr/bin/" + c
	}
	return config.Node{Name: "n", Roles: roles, Address: "192.0.2.11"}, f
}

func TestPreflightFindings(t *testing.T) {
	cp, worker := config.ControlPlaneRole, config.WorkerRole
	lacks := func(cmd string) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(_ *config.Cluster, _ *config.Node, f *config.Facts) { delete(f.Commands, cmd) }
	}
	has := func(paths ...string) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(_ *config.Cluster, _ *config.Node, f *config.Facts) {
			for _, p := range paths {
				f.Present[p] = true
			}
		}
	}
	listens := func(ports ...uint16) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(_ *config.Cluster, _ *config.Node, f *config.Facts) { f.Listening = ports }
	}
	all := func(changes ...func(*config.Cluster, *config.Node, *config.Facts)) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(c *config.Cluster, n *config.Node, f *config.Facts) {
			for _, change := range changes {
				change(c, n, f)
			}
		}
	}
	fact := func(change func(f *config.Facts)) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(_ *config.Cluster, _ *config.Node, f *config.Facts) { change(f) }
	}
	kubelet := func(field string, value any) func(*config.Cluster, *config.Node, *config.Facts) {
		return func(c *config.Cluster, _ *config.Node, _ *config.Facts) {
			c.Spec.Kubelet = map[string]any{field: value}
		}
	}
	const manifests = "/etc/kubernetes/manifests/"
	for name, tt := range map[string]struct {
		role   config.Role
		change func(*config.Cluster, *config.Node, *config.Facts)
		want   []string // of each, its beginning; a warning begins with "warning "
	}{
		"a ready control plane": {cp, all(), nil},
		"a ready worker":        {worker, all(), nil},
		"a small worker":        {worker, fact(func(f *config.Facts) { f.CPUs, f.MemoryBytes = 1, 512<<20 }), nil},

		"not root":         {worker, fact(func(f *config.Facts) { f.Root = false }), []string{"[IsPrivilegedUser] this is not root: run it with sudo"}},
		"no systemd":       {worker, fact(func(f *config.Facts) { f.Systemd = false }), []string{"[Systemd] systemd is not running on this host"}},
		"name of the node": {worker, func(_ *config.Cluster, n *config.Node, _ *config.Facts) { n.Name = "a_b" }, []string{`[Hostname] node name "a_b": a lowercase RFC 1123 subdomain`}},
		"no address":       {worker, func(_ *config.Cluster, n *config.Node, _ *config.Facts) { n.Address = "" }, []string{"[Address] no address was found for node n, as there is no default route: name one with --apiserver-advertise-address, or with address under spec.hosts"}},

		"no mount":     {worker, lacks("mount"), []string{"[FileExisting-mount] mount is not in PATH: install it with your distribution's packages"}},
		"no umount":    {worker, lacks("umount"), []string{"[FileExisting-umount] umount is not in PATH"}},
		"no nproc":     {worker, lacks("nproc"), []string{"[FileExisting-nproc] nproc is not in PATH"}},
		"no losetup":   {worker, lacks("losetup"), []string{"[FileExisting-losetup] losetup is not in PATH"}},
		"no cp":        {worker, lacks("cp"), []string{"[FileExisting-cp] cp is not in PATH"}},
		"no ip":        {worker, lacks("ip"), []string{"[FileExisting-ip] ip is not in PATH"}},
		"no systemctl": {worker, lacks("systemctl"), []string{"[FileExisting-systemctl] systemctl is not in PATH"}},
		"no conntrack": {worker, lacks("conntrack"), []string{"warning [FileExisting-conntrack] conntrack is not in PATH"}},
		"no iptables":  {worker, lacks("iptables"), []string{"warning [FileExisting-iptables] iptables is not in PATH"}},
		"no ethtool":   {worker, lacks("ethtool"), []string{"warning [FileExisting-ethtool] ethtool is not in PATH"}},

		"cgroup v1":               {cp, fact(func(f *config.Facts) { f.CgroupVersion = 1 }), []string{"[SystemVerification] this host runs cgroup v1, which the kubelet refuses since 1.35: boot with systemd.unified_cgroup_hierarchy=1, or accept it with spec.kubelet.failCgroupV1: false"}},
		"cgroup v1, accepted":     {cp, all(fact(func(f *config.Facts) { f.CgroupVersion = 1 }), kubelet("failCgroupV1", false)), nil},
		"cgroup v1, refused":      {cp, all(fact(func(f *config.Facts) { f.CgroupVersion = 1 }), kubelet("failCgroupV1", true)), []string{"[SystemVerification]"}},
		"cgroup v1, cluster says": {worker, fact(func(f *config.Facts) { f.CgroupVersion = 1 }), nil},
		"swap":                    {cp, fact(func(f *config.Facts) { f.SwapOn = true }), []string{"[Swap] swap is on, which the kubelet refuses: turn it off with `swapoff -a` and in /etc/fstab, or accept it with spec.kubelet.failSwapOn: false"}},
		"swap, accepted":          {cp, all(fact(func(f *config.Facts) { f.SwapOn = true }), kubelet("failSwapOn", false)), nil},
		"several runtimes":        {worker, fact(func(f *config.Facts) { f.Sockets = []string{"unix:///a", "unix:///b"} }), []string{"[CRI] several container runtimes are here (unix:///a, unix:///b): name one with --cri-socket"}},
		"several runtimes, one named in the document": {worker, func(c *config.Cluster, _ *config.Node, f *config.Facts) {
			f.Sockets, c.Spec.Runtime.Socket = []string{"unix:///a", "unix:///b"}, "unix:///b"
		}, nil},
		"several runtimes, one named for the host": {worker, func(_ *config.Cluster, n *config.Node, f *config.Facts) {
			f.Sockets, n.RuntimeSocket = []string{"unix:///a", "unix:///b"}, "unix:///b"
		}, nil},

		"one processor": {cp, fact(func(f *config.Facts) { f.CPUs = 1 }), []string{"[NumCPU] 1 processor, and a control plane needs 2"}},
		"little memory": {cp, fact(func(f *config.Facts) { f.MemoryBytes = 1699 << 20 }), []string{"[Mem] 1699 MiB of memory, and a control plane needs 1700"}},

		"ports of a control plane": {cp, listens(22, 2379, 2380, 6443, 10250, 10257, 10259), []string{
			"[Port-10250] port 10250 is in use, and the kubelet needs it: see who listens with `ss -ltnp sport = :10250`",
			"[Port-6443] port 6443 is in use, and the API server needs it", "[Port-10257] port 10257 is in use, and the controller manager",
			"[Port-10259] port 10259 is in use, and the scheduler", "[Port-2379] port 2379 is in use, and etcd", "[Port-2380] port 2380 is in use, and etcd"}},
		"ports of a cloud's controllers": {cp, all(listens(10258, 9808), func(c *config.Cluster, _ *config.Node, _ *config.Facts) {
			c.Spec.Addons.CloudController.Name, c.Spec.Addons.EBSCSI = "aws", true
		}), []string{"[Port-10258] port 10258 is in use, and the cloud controller", "[Port-9808] port 9808 is in use, and the controller of volumes"}},
		"no cloud's controllers":         {cp, listens(10258, 9808), nil},
		"another port of the API server": {cp, all(listens(443, 6443), func(c *config.Cluster, _ *config.Node, _ *config.Facts) { c.Spec.ControlPlane.BindPort = 443 }), []string{"[Port-443]"}},
		"ports of a worker":              {worker, listens(2379, 6443, 10250), []string{"[Port-10250]"}},
		"ports that are ours already": {cp, all(listens(2379, 2380, 6443, 10250, 10257, 10259), has(pki.KubeletConf, "/var/lib/etcd/member",
			manifests+"etcd.yaml", manifests+"kube-apiserver.yaml", manifests+"kube-controller-manager.yaml", manifests+"kube-scheduler.yaml")), nil},

		"data of another etcd":     {cp, has("/var/lib/etcd/member"), []string{"[DirAvailable--var-lib-etcd] /var/lib/etcd holds the data of another cluster: if nobody needs them, remove them with `kubewright reset`"}},
		"a node that became one":   {cp, has(pki.KubeletConf, "/var/lib/kubelet/config.yaml"), []string{"[FileAvailable--etc-kubernetes-kubelet.conf] this host is a node already, of this cluster or of another: take it out with `kubewright reset` first"}},
		"an init that was cut off": {cp, has(pki.KubeletConf), nil},
		"a control plane joins":    {worker, has(manifests + "kube-apiserver.yaml"), []string{"[DirAvailable--etc-kubernetes-manifests] this host is a control plane already: take it out with `kubewright reset` before it joins as a worker"}},

		"a gateway in a range":     {cp, fact(func(f *config.Facts) { f.Gateways = append(f.Gateways, netip.MustParseAddr("10.244.0.1")) }), []string{"[NetworkOverlap] the pod range 10.244.0.0/16 overlaps the host's gateway 10.244.0.1: choose another with --pod-network-cidr, or spec.network.podCIDR in the document"}},
		"a resolver in a range":    {cp, fact(func(f *config.Facts) { f.Resolvers = append(f.Resolvers, netip.MustParseAddr("10.96.0.53")) }), []string{"[NetworkOverlap] the service range 10.96.0.0/12 overlaps the host's name server 10.96.0.53, of /etc/resolv.conf: choose another with --service-cidr, or spec.network.serviceCIDR in the document"}},
		"networks that overlap":    {cp, fact(func(f *config.Facts) { f.Routes = append(f.Routes, netip.MustParsePrefix("10.96.8.0/24")) }), []string{"[NetworkOverlap] the service range 10.96.0.0/12 overlaps the host's route to 10.96.8.0/24: choose another with --service-cidr, or spec.network.serviceCIDR in the document"}},
		"networks of its own pods": {cp, all(has(pki.KubeletConf), fact(func(f *config.Facts) { f.Routes = append(f.Routes, netip.MustParsePrefix("10.244.0.0/24")) })), nil},
		// The ranges of a cluster that is not known yet are nobody's.
		"networks of a joining worker": {worker, fact(func(f *config.Facts) { f.Routes = append(f.Routes, netip.MustParsePrefix("10.96.8.0/24")) }), nil},

		"all at once": {cp, all(listens(6443), lacks("ip"), fact(func(f *config.Facts) { f.Root, f.CPUs, f.SwapOn = false, 1, true })),
			[]string{"[IsPrivilegedUser]", "[FileExisting-ip]", "[NumCPU]", "[Port-6443]", "[Swap]"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster()
			n, f := ready(tt.role)
			tt.change(c, &n, &f)
			got := Check(c, n, f)
			if tt.role == cp { // of an init, which has its document
				got = append(got, checkDocument(c, f)...)
			}
			for i, finding := range got {
				s := finding.Error()
				if finding.Warning {
					s = "warning " + s
				}
				if i >= len(tt.want) || !strings.HasPrefix(s, tt.want[i]) {
					t.Errorf("found %s", s)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("%d findings, not %d", len(got), len(tt.want))
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for name, tt := range map[string]struct {
		addresses, routes []netip.Prefix
		want              []string
	}{
		"none":                       {prefixes("192.0.2.11/24"), prefixes("192.0.2.0/24"), nil},
		"an address":                 {prefixes("10.244.7.7/24"), nil, []string{"the pod range 10.244.0.0/16 overlaps the host's address 10.244.7.7/24: choose another with --pod-network-cidr, or spec.network.podCIDR in the document"}},
		"a network around the range": {prefixes("10.0.0.4/8"), nil, []string{"the pod range 10.244.0.0/16 overlaps the host's address 10.0.0.4/8: choose another with --pod-network-cidr, or spec.network.podCIDR in the document", "the service range 10.96.0.0/12 overlaps the host's address 10.0.0.4/8: choose another with --service-cidr, or spec.network.serviceCIDR in the document"}},
		"an address, and its route":  {prefixes("10.244.7.7/24"), prefixes("10.244.7.0/24"), []string{"the pod range 10.244.0.0/16 overlaps the host's address 10.244.7.7/24: choose another with --pod-network-cidr, or spec.network.podCIDR in the document"}},
		"another family":             {prefixes("fd00::1/64"), prefixes("::/0"), nil},
	} {
		var got []string
		for _, f := range overlaps(cluster(), config.Facts{Addresses: tt.addresses, Routes: tt.routes}) {
			got = append(got, f.Message)
			if f.Name != "NetworkOverlap" {
				t.Errorf("%s: named %s", name, f.Name)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestJudgeLetsPassWhatIsIgnored(t *testing.T) {
	findings := []Finding{{Name: "Mem", Message: "little"}, {Name: "Port-6443", Message: "used"}, {Name: "X", Message: "odd", Warning: true}}
	for name, tt := range map[string]struct {
		ignore  []string
		notices []string
		err     string
	}{
		"nothing": {nil, []string{"[X] odd"}, "the host n is not ready: 2 problems:\n  - [Mem] little\n  - [Port-6443] used\nmend these, or let one pass with --ignore-preflight-errors=NAME"},
		"one":     {[]string{"port-6443"}, []string{"[Port-6443] used", "[X] odd"}, "the host n is not ready: [Mem] little\nmend these, or let one pass with --ignore-preflight-errors=NAME"},
		"both":    {[]string{"mem", "port-6443"}, []string{"[Mem] little", "[Port-6443] used", "[X] odd"}, "<nil>"},
		"all":     {[]string{"all"}, []string{"[Mem] little", "[Port-6443] used", "[X] odd"}, "<nil>"},
	} {
		var said events
		target := &Target{Ignore: tt.ignore, Report: said.report, Node: config.Node{Name: "n"}}
		if got := fmt.Sprint(target.judge(findings)); got != tt.err {
			t.Errorf("%s: %s", name, got)
		}
		if got := said.messages(); !slices.Equal(got, tt.notices) {
			t.Errorf("%s: shows %q", name, got)
		}
	}
}

func TestPreflightStopsBeforeAnythingIsTouched(t *testing.T) {
	h := newFakeHost(t)
	h.files["/proc/net/tcp"] = text("0: 00000000:192B 0:0 0A\n")
	delete(h.files, "/usr/bin/ip")
	target := initTarget(h, cluster(), nil)
	var said events
	target.Report = said.report
	err := Run(t.Context(), Init(), target, nil)
	if err == nil || !strings.Contains(err.Error(), "[Port-6443]") || !strings.Contains(err.Error(), "[FileExisting-ip]") || !strings.Contains(err.Error(), "[FileExisting-kubelet]") || !strings.HasPrefix(err.Error(), "phase preflight: the host cp-1 is not ready: 3 problems:") {
		t.Error(err)
	}
	if len(h.done) > 0 {
		t.Errorf("it did %q", h.done)
	}
	for name, state := range said.last() {
		if name != "preflight" && state != Blocked {
			t.Errorf("%s is %s", name, state)
		}
	}
}

func TestPreflightSaysWhatABundleLacks(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	b := testBundle(t, c)
	c.Spec.Etcd.ImageTag = "3.5.0-0"
	err := Run(t.Context(), Select(Init(), "preflight"), initTarget(h, c, b), nil)
	if want := "[Bundle] the bundle has no image registry.k8s.io/etcd:3.5.0-0 for linux/amd64: it is one of Kubernetes v1.36.3; name the versions that it has, or make it anew"; err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	// A worker runs no etcd.
	if err := Run(t.Context(), Select(Join(), "preflight"), joinTarget(h, c, b), nil); err != nil {
		t.Error(err)
	}
}

func TestAFlippedByteReachesNoHost(t *testing.T) {
	h, c, dir := newFakeHost(t), cluster(), t.TempDir()
	b := testBundleIn(t, c, dir)
	runc, _ := b.Find("runc", "linux/amd64")
	blob := filepath.Join(dir, "bundle/blobs/sha256", strings.TrimPrefix(runc.Digest, "sha256:"))
	if err := os.WriteFile(blob, []byte("rung"), 0o644); err != nil {
		t.Fatal(err)
	}
	target := initTarget(h, c, b)
	err := Run(t.Context(), Init(), target, nil)
	if err == nil || !strings.Contains(err.Error(), "[Artifacts] artifact runc v1.4.0: ") || !strings.Contains(err.Error(), "the bundle is damaged or was tampered with; make or fetch it again") {
		t.Error(err)
	}
	if len(h.done) > 0 {
		t.Errorf("it did %q", h.done)
	}
	// Even where preflight is told to let it pass.
	target.Ignore = []string{"artifacts"}
	if err := Run(t.Context(), Select(Init(), "install"), target, nil); err == nil || !strings.Contains(err.Error(), "the bundle is damaged") {
		t.Error(err)
	}
	if _, ok := h.files["/usr/local/sbin/runc"]; ok {
		t.Error("it is on the host")
	}
}
