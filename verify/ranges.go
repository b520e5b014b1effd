package verify

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/verify/probe"
)

// ranges looks from every node whether an address, a route or a resolver of its own is in the ranges.
func ranges(ctx context.Context, c *Cluster) (string, error) {
	pods, services, err := c.clusterRanges(ctx)
	if err != nil {
		return "", err
	}
	if len(pods) == 0 {
		return "", skip("neither nodes nor kubeadm's ConfigMap tell the range of pods")
	}
	errs := []error{judgeRanges(pods, services, c.nodes)}
	var mu sync.Mutex
	routes := 0
	errs = append(errs, c.onEveryNode(func(p *pair) error {
		host, err := p.host()
		if err != nil {
			return err
		}
		seen, err := ask[[]probe.Route](ctx, c, host, "routes", nil)
		if err != nil {
			return err
		}
		conf, err := ask[map[string]string](ctx, c, host, "files", []string{"/etc/resolv.conf"})
		if err != nil {
			return err
		}
		mu.Lock()
		routes += len(seen)
		mu.Unlock()
		return judgeHost(p.node.name, pods, services, c.leases(), c.nodeIPs(), seen, conf["/etc/resolv.conf"])
	}))
	return fmt.Sprintf("pods %s and services %s are apart, and meet no address, none of %d routes and no resolver of %s",
		join(pods), cmp.Or(join(services), "(not known)"), routes, c.nodeNames()), lines(errs...)
}

// clusterRanges are those of the API's objects, else of kubeadm's ConfigMap, else what the nodes were given.
func (c *Cluster) clusterRanges(ctx context.Context) (pods, services []netip.Prefix, err error) {
	var config struct {
		Networking struct{ PodSubnet, ServiceSubnet string }
	}
	cm, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kubeadm-config", metav1.GetOptions{})
	if err == nil {
		err = yaml.Unmarshal([]byte(cm.Data["ClusterConfiguration"]), &config)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("ConfigMap kubeadm-config: %w", err)
	}
	pods, services = prefixes(strings.Split(config.Networking.PodSubnet, ",")), prefixes(strings.Split(config.Networking.ServiceSubnet, ","))
	if len(pods) == 0 {
		for _, n := range c.nodes {
			pods = append(pods, prefixes(n.is.Spec.PodCIDRs)...)
		}
	}
	if list, err := c.client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{}); err == nil && len(list.Items) > 0 {
		services = nil
		for _, s := range list.Items {
			services = append(services, prefixes(s.Spec.CIDRs)...)
		}
	}
	return pods, services, nil
}

func prefixes(texts []string) (all []netip.Prefix) {
	for _, s := range texts {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

func join(all []netip.Prefix) string {
	var s []string
	for _, p := range all {
		s = append(s, p.String())
	}
	return strings.Join(s, " ")
}

// leases are the nodes' own parts of the pod range.
func (c *Cluster) leases() (all []netip.Prefix) {
	for _, n := range c.nodes {
		all = append(all, prefixes(n.is.Spec.PodCIDRs)...)
	}
	return all
}

// nodeIPs are the addresses that nodes have inside of the cluster.
func (c *Cluster) nodeIPs() (all []netip.Addr) {
	for _, n := range c.nodes {
		for _, a := range n.is.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				all = append(all, ip)
			}
		}
	}
	return all
}

// judgeRanges: pods and services apart from each other and from the nodes' addresses, nodes' parts in the whole.
func judgeRanges(pods, services []netip.Prefix, nodes []node) error {
	var errs []error
	for _, p := range pods {
		for _, s := range services {
			if p.Overlaps(s) {
				errs = append(errs, fmt.Errorf("the pod range %s overlaps the service range %s", p, s))
			}
		}
	}
	for _, n := range nodes {
		for _, a := range n.is.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil || a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
				continue
			}
			for _, r := range slices.Concat(pods, services) {
				if r.Contains(ip) {
					errs = append(errs, fmt.Errorf("node %s has address %s, which is in the range %s of the cluster's own", n.name, ip, r))
				}
			}
		}
		for _, part := range prefixes(n.is.Spec.PodCIDRs) {
			if !slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Overlaps(part) && p.Bits() <= part.Bits() }) {
				errs = append(errs, fmt.Errorf("node %s gives its pods addresses of %s, which is outside of %s", n.name, part, join(pods)))
			}
		}
	}
	return lines(errs...)
}

// ofPodNetwork begin the names of devices that pod networks make.
var ofPodNetwork = []string{"cni", "flannel", "cali", "vxlan.calico", "tunl0", "wireguard.cali", "weave", "kube-", "veth", "cilium", "lxc"}

// judgeHost: what a host itself has no cluster may take. Routes of pod networks are for parts of nodes, by way of other
// nodes (Calico's parts, without an overlay, are not the nodes' podCIDRs), or over devices of theirs.
func judgeHost(name string, pods, services, leases []netip.Prefix, nodeIPs []netip.Addr, routes []probe.Route, resolvConf string) error {
	var errs []error
	all := slices.Concat(pods, services)
	for _, r := range routes {
		if r.Via.IsValid() {
			for _, p := range all {
				if r.To.Bits() == 0 && p.Contains(r.Via) {
					errs = append(errs, fmt.Errorf("node %s: its gateway %s is in the range %s of the cluster's own", name, r.Via, p))
				}
			}
		}
		own := slices.ContainsFunc(ofPodNetwork, func(d string) bool { return strings.HasPrefix(r.Device, d) }) ||
			slices.Contains(nodeIPs, r.Via) ||
			slices.ContainsFunc(leases, func(l netip.Prefix) bool { return l.Overlaps(r.To) && l.Bits() <= r.To.Bits() })
		if r.To.Bits() == 0 || own {
			continue
		}
		for _, p := range all {
			if p.Overlaps(r.To) {
				errs = append(errs, fmt.Errorf("node %s: its route %s overlaps the range %s of the cluster's own", name, r, p))
			}
		}
	}
	for line := range strings.Lines(resolvConf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(f[1]); err == nil {
			for _, p := range all {
				if p.Contains(ip) {
					errs = append(errs, fmt.Errorf("node %s: its resolver %s is in the range %s of the cluster's own", name, ip, p))
				}
			}
		}
	}
	return lines(errs...)
}
