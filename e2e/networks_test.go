package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// networkDocument is a document with this under spec.network, and kube-proxy in this mode.
func networkDocument(network, mode string) string {
	return strings.Replace(cluster.Document("network: {"+network+"}"), "  kubeProxy:\n", "  kubeProxy:\n    mode: "+mode+"\n", 1)
}

const (
	bothRanges = `podCIDR: "10.244.0.0/16,fd00:10:244::/56", serviceCIDR: "10.96.0.0/12,fd00:10:96::/112"`
	ipv6Ranges = `podCIDR: "fd00:10:244::/56"` // the services' follows from it
)

// network is a cluster of one control plane and one worker that verify has nothing against.
type network struct {
	families lab.Families
	document string
}

// made makes the cluster by hand: init here, join there.
func (n network) made(ctx context.Context, t *testing.T, name string) *cluster.Cluster {
	t.Helper()
	hosts := n.hosts(ctx, t, name)
	begin := time.Now()
	c, err := cluster.Kubewright(ctx, hosts[0], hosts[1:], cluster.Options{Document: n.document, Args: cluster.Bundle, Log: newEventLog(t).add})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("a cluster after %.1f s", time.Since(begin).Seconds())
	return c
}

func (n network) hosts(ctx context.Context, t *testing.T, name string) []*lab.Host {
	t.Helper()
	o, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	o.Families = n.families
	all := hosts(ctx, t, o, name+"-1", name+"-2")
	explainFailure(t, all...)
	return all
}

func TestHostGatewayAndNFTables(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 5*time.Minute)
	n := network{document: networkDocument("cni: {flannel: {backend: host-gw, nftables: true}}", "nftables")}
	c := n.made(ctx, t, "gw")
	verified(ctx, t, c)
	for _, h := range append(c.Workers, c.ControlPlane) {
		tables := run(ctx, t, h, "nft", "list", "tables")
		for _, table := range []string{"ip kube-proxy", "ip flannel-ipv4"} {
			if !strings.Contains(tables, "table "+table+"\n") {
				t.Errorf("%s has no table %s of nftables, but\n%s", h.Name, table, tables)
			}
		}
	}
}

func TestDualStack(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 5*time.Minute)
	n := network{lab.DualStack, networkDocument(bothRanges, "iptables")}
	c := n.made(ctx, t, "dual")
	verified(ctx, t, c)
	for _, link := range []string{"flannel.1", "flannel-v6.1"} { // of 1500
		if mtu := run(ctx, t, c.ControlPlane, "cat", "/sys/class/net/"+link+"/mtu"); strings.TrimSpace(mtu) != "1430" {
			t.Errorf("%s has an MTU of %s", link, mtu)
		}
	}
	bothFamilies(ctx, t, c)
}

// bothFamilies wants nodes, pods and services to have two addresses each, and all of them to answer.
func bothFamilies(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Items {
		var internal []string
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				internal = append(internal, a.Address)
			}
		}
		if !areBoth(internal) || !areBoth(n.Spec.PodCIDRs) {
			t.Errorf("node %s has the addresses %v, and the ranges %v for pods", n.Name, internal, n.Spec.PodCIDRs)
		}
	}
	labels := map[string]string{"app": "both"}
	from, to := "both-0", "both-1"
	for i, name := range c.NodeNames() {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("both-", i), Labels: labels}, Spec: corev1.PodSpec{
			NodeName: name, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{Name: "web", Image: lab.ProbeImage, ImagePullPolicy: corev1.PullNever,
				// More than fits any packet: what is too large for the path shows.
				Command: []string{"sh", "-c", "mkdir /www; head -c 3000000 /dev/zero > /www/zeros; exec httpd -f -p 8080 -h /www"}}},
		}}
		if _, err := c.Client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	policy := corev1.IPFamilyPolicyRequireDualStack
	service, err := c.Client.CoreV1().Services("default").Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "both"}, Spec: corev1.ServiceSpec{
		Selector: labels, IPFamilyPolicy: &policy, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !areBoth(service.Spec.ClusterIPs) {
		t.Errorf("the service has the addresses %v", service.Spec.ClusterIPs)
	}
	if _, stderr, err := c.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "pod", from, to); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	receiver, err := c.Client.CoreV1().Pods("default").Get(ctx, to, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	var ips []string
	for _, ip := range receiver.Status.PodIPs {
		ips = append(ips, ip.IP)
		urls = append(urls, "http://"+net.JoinHostPort(ip.IP, "8080")+"/zeros")
	}
	if !areBoth(ips) {
		t.Errorf("pod %s has the addresses %v", to, ips)
	}
	for _, ip := range service.Spec.ClusterIPs {
		urls = append(urls, "http://"+net.JoinHostPort(ip, "80")+"/zeros")
	}
	for _, url := range urls {
		// The rules of a new service take a moment.
		script := `for i in $(seq 50); do n=$(timeout 5 wget -qO- "$0" | wc -c); [ $n = 3000000 ] && exit 0; sleep 0.2; done; echo "$n bytes"; exit 1`
		if out, stderr, err := c.Kubectl(ctx, "exec", from, "--", "sh", "-c", script, url); err != nil {
			t.Errorf("%s from the other node: %v: %s%s", url, err, out, stderr)
		}
	}
}

// areBoth tells of addresses, or ranges, whether they are one of each family.
func areBoth(all []string) bool {
	return len(all) == 2 && strings.Contains(all[0], ":") != strings.Contains(all[1], ":")
}

// Without any IPv4 address, and by people who reach the hosts at IPv6 addresses.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 5*time.Minute)
	n := network{families: lab.IPv6}
	hosts := n.hosts(ctx, t, "six")
	s := newSite(ctx, t, l, "six", "network: {"+ipv6Ranges+"}", hosts...)
	s.events = newEventLog(t)
	s.do(0, "up", "--bundle", s.Bundle)
	c, err := s.Connect(hosts[0], hosts[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	s.well()
	s.nothing()
	verified(ctx, t, c)
	onlyIPv6(ctx, t, c)
}

// onlyIPv6 wants no pod, node, service or endpoint to have an IPv4 address.
func onlyIPv6(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	var all []string
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		for _, ip := range append([]corev1.PodIP{{IP: p.Status.HostIP}}, p.Status.PodIPs...) {
			all = append(all, p.Name+" "+ip.IP)
		}
	}
	services, err := c.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services.Items {
		all = append(all, s.Name+" "+s.Spec.ClusterIP)
	}
	slices, err := c.Client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			all = append(all, s.Name+" "+strings.Join(e.Addresses, " "))
		}
	}
	for _, one := range all {
		name, address, _ := strings.Cut(one, " ")
		if ip, err := netip.ParseAddr(address); address != "" && (err != nil || !ip.Is6()) {
			t.Errorf("%s has the address %q", name, address)
		}
	}
	if len(all) < 10 {
		t.Errorf("only these were found: %v", all)
	}
}

// What this kernel has not is named, and the field with it, before anything is touched.
func TestKernelsFeaturesAreLookedFor(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 3*time.Minute)
	h := preparedHosts(ctx, t, "plain")[0]
	for _, tt := range []struct {
		module, document, field string
	}{
		{"wireguard", networkDocument("cni: {flannel: {backend: wireguard}}", "iptables"), "spec.network.cni.flannel.backend"},
		{"ip_vs", networkDocument("cni: {flannel: {backend: host-gw}}", "ipvs"), "spec.kubeProxy.mode"},
	} {
		if _, _, err := h.Exec(ctx, nil, "sh", "-c", "test -e /sys/module/$0 || modprobe -n -q $0", tt.module); err == nil {
			t.Logf("this kernel has %s: it cannot be missed here", tt.module)
			continue
		}
		if err := h.Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(tt.document)); err != nil {
			t.Fatal(err)
		}
		refused(ctx, t, h, slices.Concat([]string{tool, "init", "--config", "/root/cluster.yaml"}, cluster.Bundle),
			"[Kernel-"+tt.module+"]", "has no "+tt.module, "or write something else for "+tt.field)
	}
	// A host of one family in a cluster of two.
	if err := h.Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(networkDocument(bothRanges, "iptables"))); err != nil {
		t.Fatal(err)
	}
	refused(ctx, t, h, slices.Concat([]string{tool, "init", "--config", "/root/cluster.yaml"}, cluster.Bundle),
		"[IPv6] IPv6 is off on this host", "[Address] the cluster is dual-stack", "has no IPv6 address beside "+h.IP, "[DefaultRoute] flannel takes the interface of the default route of IPv6")
}
