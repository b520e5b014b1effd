package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/verify/probe"
)

// agents are the pods of a pod network, by their nodes; skip where there is none.
func (c *Cluster) agents(ctx context.Context, network, selector string) (map[string]corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods of %s: %w", network, err)
	}
	if len(list.Items) == 0 {
		return nil, skip("the pod network is not " + network)
	}
	all := map[string]corev1.Pod{}
	for _, p := range list.Items {
		all[p.Spec.NodeName] = p
	}
	return all, nil
}

// flannel reads the lease that flannel itself has written on each node.
func flannel(ctx context.Context, c *Cluster) (string, error) {
	agents, err := c.agents(ctx, "flannel", "app=flannel")
	if err != nil {
		return "", err
	}
	leases := make([][]netip.Prefix, len(c.nodes))
	err = onEach(slices.Collect(indices(c.nodes)), func(i int) error {
		n := c.nodes[i]
		agent, ok := agents[n.name]
		if !ok {
			return fmt.Errorf("node %s has no pod of flannel", n.name)
		}
		if !ready(&agent) { // the lease of before may still lie there; a node that has just joined is Ready before its flannel is
			if _, err := c.awaitPod(ctx, agent.Namespace, agent.Name); err != nil {
				return fmt.Errorf("node %s: flannel is not ready: %w: see `kubectl -n %s logs %s`", n.name, err, agent.Namespace, agent.Name)
			}
		}
		// Its image has a shell's commands, as its own scripts need them.
		out, errOut, err := c.exec(ctx, &agent, "", "cat", "/run/flannel/subnet.env")
		if err != nil {
			return fmt.Errorf("node %s: read flannel's lease: %w: %s; %s", n.name, err, strings.TrimSpace(errOut), podState(&agent))
		}
		if leases[i], err = parseLease(out); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
		return nil
	})
	var said []string
	for i, n := range c.nodes {
		said = append(said, n.name+" "+join(leases[i]))
	}
	return "leases are the nodes' own, and apart: " + strings.Join(said, ", "), lines(err, judgeLeases(c.nodes, leases))
}

func indices[T any](all []T) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range all {
			if !yield(i) {
				return
			}
		}
	}
}

// parseLease reads flannel's subnet.env.
func parseLease(text string) (all []netip.Prefix, err error) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name == "FLANNEL_SUBNET" || name == "FLANNEL_IPV6_SUBNET" {
			all = append(all, prefixes([]string{value})...)
		}
	}
	if all == nil {
		err = fmt.Errorf("flannel's /run/flannel/subnet.env names no subnet: %q", text)
	}
	return all, err
}

// judgeLeases: a node without a lease was complained of already.
func judgeLeases(nodes []node, leases [][]netip.Prefix) error {
	var errs []error
	for i, n := range nodes {
		given := prefixes(n.is.Spec.PodCIDRs)
		for _, l := range leases[i] {
			if !slices.Contains(given, l) {
				errs = append(errs, fmt.Errorf("node %s: flannel's lease is %s, the node's podCIDR %s", n.name, l, join(given)))
			}
			for j := range i {
				for _, other := range leases[j] {
					if l.Overlaps(other) {
						errs = append(errs, fmt.Errorf("the lease %s of node %s overlaps %s of node %s: their pods get the same addresses", l, n.name, other, nodes[j].name))
					}
				}
			}
		}
	}
	return lines(errs...)
}

// weave asks every node's router for its peers.
func weave(ctx context.Context, c *Cluster) (string, error) {
	if _, err := c.agents(ctx, "Weave", "name=weave-net"); err != nil {
		return "", err
	}
	err := c.onEveryNode(func(p *pair) error {
		host, err := p.host()
		if err != nil {
			return err
		}
		got, err := ask[[]probe.Got](ctx, c, host, "get", probe.Get{URLs: []string{"http://127.0.0.1:6784/status/connections"}, Within: rulesLimit})
		if err != nil {
			return err
		}
		if err := judgeGot(got); err != nil {
			return fmt.Errorf("node %s: weave: %w", p.node.name, err)
		}
		if have, want := established(got[0].Body), len(c.nodes)-1; have < want {
			return fmt.Errorf("node %s: weave has %d of %d connections established: %s", p.node.name, have, want, strings.TrimSpace(got[0].Body))
		}
		return nil
	})
	return fmt.Sprintf("each of %d nodes is connected to all others", len(c.nodes)), err
}

// established counts connections: a line each, "-> 192.0.2.1:6783 established fastdp ...".
func established(text string) (n int) {
	for line := range strings.Lines(text) {
		if slices.Contains(strings.Fields(line), "established") {
			n++
		}
	}
	return n
}

// calico has a policy deny and allow, and every node know a way to the pods of all others.
func calico(ctx context.Context, c *Cluster) (string, error) {
	agents, err := c.agents(ctx, "Calico", "k8s-app=calico-node")
	if err != nil {
		return "", err
	}
	var errs []error
	for _, n := range c.nodes {
		if agent, ok := agents[n.name]; !ok {
			errs = append(errs, fmt.Errorf("node %s has no pod of Calico", n.name))
		} else if !ready(&agent) {
			errs = append(errs, fmt.Errorf("node %s: Felix or BIRD is not ready: %s%s", n.name, podState(&agent), c.why(ctx, &agent)))
		}
	}
	errs = append(errs, c.knownWays(ctx), c.policy(ctx))
	return "Felix is ready on every node, which knows a way to the pods of all others; a policy denies, and another allows", lines(errs...)
}

// knownWays wants a route of its own, not the default one, to the pods of every node.
func (c *Cluster) knownWays(ctx context.Context) error {
	probes, err := c.probes()
	if err != nil {
		return err
	}
	var pods []*corev1.Pod
	for _, p := range probes {
		if pod, err := p.pod(); err == nil {
			pods = append(pods, pod)
		}
	}
	return c.onEveryNode(func(p *pair) error {
		host, err := p.host()
		if err != nil {
			return err
		}
		routes, err := ask[[]probe.Route](ctx, c, host, "routes", nil)
		if err != nil {
			return err
		}
		var errs []error
		for _, pod := range pods {
			if ip, err := netip.ParseAddr(pod.Status.PodIP); err == nil && !knows(routes, ip) {
				errs = append(errs, fmt.Errorf("node %s has no route to %s, a pod on %s", p.node.name, ip, pod.Spec.NodeName))
			}
		}
		return lines(errs...)
	})
}

func knows(routes []probe.Route, to netip.Addr) bool {
	return slices.ContainsFunc(routes, func(r probe.Route) bool { return r.To.Bits() > 0 && r.To.Contains(to) })
}

// policy closes a pod to everybody, and opens it to one.
func (c *Cluster) policy(ctx context.Context) error {
	from, err := c.lastProbe()
	if err != nil {
		return err
	}
	ns := from.Namespace
	guarded := c.pod("guarded", c.nodes[0].name, "serve")
	if err := c.createPod(ctx, ns, guarded); err != nil {
		return err
	}
	if guarded, err = c.awaitPod(ctx, ns, guarded.Name); err != nil {
		return err
	}
	allow := func(name string, rules ...networkingv1.NetworkPolicyIngressRule) error {
		_, err := c.client.NetworkingV1().NetworkPolicies(ns).Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: guarded.Labels}, Ingress: rules, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create NetworkPolicy %s: %w", name, err)
		}
		return nil
	}
	url := who(guarded.Status.PodIP, probe.Port)
	if err := allow("nobody"); err != nil {
		return err
	}
	got, err := ask[[]probe.Got](ctx, c, from, "get", probe.Get{URLs: []string{url}, Silent: true, Within: rulesLimit})
	if err != nil {
		return err
	}
	if got[0].Error == "" {
		return errors.New("a policy that lets nobody in does not keep a pod out: nothing enforces policies")
	}
	if err := allow("the-probe", networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: from.Labels}}}}); err != nil {
		return err
	}
	if err := c.call(ctx, from, []*corev1.Pod{guarded}, url); err != nil {
		return fmt.Errorf("a policy that lets one pod in: %w", err)
	}
	return nil
}
