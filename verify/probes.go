package verify

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// probe is a pair of pods on a node, one in the pod network and one in the node's own. The
// functions wait until it runs; every caller gets the same answer.
type probe struct {
	node node
	pod  func() (*corev1.Pod, error)
	host func() (*corev1.Pod, error)
}

// startProbes makes a probe for every node, also for those that are tainted, cordoned or not
// ready: pods that are bound to a node need no scheduler.
func (c *Cluster) startProbes(ctx context.Context) ([]*probe, error) {
	ns, err := c.namespace(ctx, "probes")
	if err != nil {
		return nil, err
	}
	var probes []*probe
	for i, n := range c.nodes {
		start := func(name, script string, host bool) func() (*corev1.Pod, error) {
			p := c.pod(fmt.Sprintf("%s-%d", name, i), n.name, script)
			p.Labels["app"] = name
			p.Spec.HostNetwork = host
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			// ping and traceroute need it; not every runtime grants it by itself.
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_RAW"}}}
			created := c.createPod(ctx, ns, p)
			return sync.OnceValues(func() (*corev1.Pod, error) {
				if created != nil {
					return nil, fmt.Errorf("node %s: %w", n.name, created)
				}
				running, err := c.awaitPod(ctx, ns, p.Name)
				if err != nil {
					return nil, fmt.Errorf("node %s: no probe: %w", n.name, err)
				}
				return running, nil
			})
		}
		probes = append(probes, &probe{n, start("pod", serve, false), start("host", "exec tail -f /dev/null", true)})
	}
	return probes, nil
}

// onEveryNode calls f with the probe of each node.
func (c *Cluster) onEveryNode(f func(*probe) error) error {
	probes, err := c.probes()
	if err != nil {
		return err
	}
	return onEach(probes, f)
}
