package verify

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/kubewright/kubewright/verify/probe"
)

// The range of node ports that the notes name, which is the API server's default.
const firstNodePort, lastNodePort = 30000, 32767

// serviceTypes makes a service of each type, calls it from where it is meant to answer, and
// tries those that must be refused.
func serviceTypes(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	if err := c.refusals(ctx, ns); err != nil {
		return "", err
	}
	pods, err := c.backends()
	if err != nil {
		return "", err
	}
	// One endpoint each, so that every call takes the same way, run after run.
	first := map[string]string{"backend": pods[0].Name}
	inside, err := c.service(ctx, ns, "inside", corev1.ServiceSpec{Selector: first})
	if err != nil {
		return "", err
	}
	outside, err := c.service(ctx, ns, "outside", corev1.ServiceSpec{Selector: first, Type: corev1.ServiceTypeNodePort})
	if err != nil {
		return "", err
	}
	// A class that nobody serves: no cloud shall sell a balancer for this.
	balanced, err := c.service(ctx, ns, "balanced", corev1.ServiceSpec{Selector: first, Type: corev1.ServiceTypeLoadBalancer,
		LoadBalancerClass: ptr.To("kubewright.dev/verify")})
	if err != nil {
		return "", err
	}
	headless, err := c.service(ctx, ns, "headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone})
	if err != nil {
		return "", err
	}
	if inside.Spec.Ports[0].NodePort != 0 {
		return "", fmt.Errorf("a ClusterIP service has node port %d", inside.Spec.Ports[0].NodePort)
	}
	var clusterIPs, nodePorts []string
	for _, s := range []*corev1.Service{outside, balanced} {
		p := s.Spec.Ports[0].NodePort
		if p < firstNodePort || p > lastNodePort {
			return "", fmt.Errorf("a %s service got node port %d, which is not in %d-%d", s.Spec.Type, p, firstNodePort, lastNodePort)
		}
		for _, n := range c.nodes {
			nodePorts = append(nodePorts, who(n.ip, p))
		}
	}
	for _, s := range []*corev1.Service{inside, outside, balanced} {
		if err := c.awaitEndpoints(ctx, s, pods[0]); err != nil {
			return "", err
		}
		clusterIPs = append(clusterIPs, who(s.Spec.ClusterIP, 80))
	}
	if err := c.awaitEndpoints(ctx, headless, pods...); err != nil {
		return "", err
	}

	err = c.onEveryNode(func(p *pair) error {
		pod, err := p.pod()
		if err != nil {
			return err
		}
		if err := c.call(ctx, pod, pods[:1], clusterIPs...); err != nil {
			return fmt.Errorf("node %s: from a pod, ClusterIPs: %w; %s", p.node.name, err, c.proxyState(ctx, p.node))
		}
		if err := c.resolvesTo(ctx, pod, headless, pods); err != nil {
			return fmt.Errorf("node %s: %w", p.node.name, err)
		}
		host, err := p.host()
		if err != nil {
			return err
		}
		if err := c.call(ctx, host, pods[:1], nodePorts...); err != nil {
			return fmt.Errorf("node %s: from the node itself, node ports: %w; %s", p.node.name, err, c.proxyState(ctx, p.node))
		}
		return nil
	})
	return fmt.Sprintf("ClusterIP answers pods of %s; NodePort %d and LoadBalancer (ClusterIP %s, NodePort %d) at every node from every node; "+
		"headless resolves to its %d pods; node ports %d and %d and unnamed ports refused; not shown: that a ClusterIP is closed to other machines",
		c.nodeNames(), outside.Spec.Ports[0].NodePort, balanced.Spec.ClusterIP, balanced.Spec.Ports[0].NodePort,
		len(pods), firstNodePort-1, lastNodePort+1), err
}

// refusals tries services that the API server must not take.
func (c *Cluster) refusals(ctx context.Context, ns string) error {
	one := func(nodePort int32) corev1.ServiceSpec {
		return corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort,
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(probe.Port), NodePort: nodePort}}}
	}
	tries := []struct {
		what string
		spec corev1.ServiceSpec
	}{
		{fmt.Sprintf("node port %d", firstNodePort-1), one(firstNodePort - 1)},
		{fmt.Sprintf("node port %d", lastNodePort+1), one(lastNodePort + 1)},
		{"two ports without names", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}, {Port: 81}}}},
	}
	for i, t := range tries {
		_, err := c.service(ctx, ns, fmt.Sprintf("refused-%d", i), t.spec)
		switch {
		case err == nil:
			return fmt.Errorf("a service with %s was accepted", t.what)
		case !apierrors.IsInvalid(err):
			return fmt.Errorf("a service with %s: want it called invalid: %w", t.what, err)
		}
	}
	return nil
}

func (c *Cluster) resolvesTo(ctx context.Context, from *corev1.Pod, s *corev1.Service, pods []*corev1.Pod) error {
	var ips []string
	for _, p := range pods {
		ips = append(ips, p.Status.PodIP)
	}
	slices.Sort(ips)
	server, err := c.lookUp(ctx, from, probe.Query{Kind: "headless service", Type: addressType(ips[0]), Name: s.Name + "." + s.Namespace + ".svc.{domain}", Want: ips})
	if err != nil && server != "" {
		return fmt.Errorf("%w; about %s: %s", err, server, c.dnsState(ctx, server))
	}
	return err
}
