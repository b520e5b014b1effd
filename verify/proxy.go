package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/verify/probe"
)

// serviceRules calls one ClusterIP from every node, from a pod and from the node itself.
func serviceRules(ctx context.Context, c *Cluster) (string, error) {
	pods, err := c.backends()
	if err != nil {
		return "", err
	}
	backend := pods[len(pods)-1]
	s, err := c.service(ctx, backend.Namespace, "rules", corev1.ServiceSpec{Selector: map[string]string{"backend": backend.Name}})
	if err != nil {
		return "", err
	}
	if err := c.awaitEndpoints(ctx, s, backend); err != nil {
		return "", err
	}
	url := who(s.Spec.ClusterIP, 80)
	var mu sync.Mutex
	running := map[string][]string{} // mode -> nodes
	err = c.onEveryNode(func(p *pair) error {
		for where, ask := range map[string]func() (*corev1.Pod, error){"a pod": p.pod, "the node itself": p.host} {
			from, err := ask()
			if err != nil {
				return err
			}
			if err := c.call(ctx, from, []*corev1.Pod{backend}, url); err != nil {
				return fmt.Errorf("node %s: from %s, ClusterIP %s with its endpoint on %s: %w; %s",
					p.node.name, where, s.Spec.ClusterIP, backend.Spec.NodeName, err, c.proxyState(ctx, p.node))
			}
		}
		host, err := p.host()
		if err != nil {
			return err
		}
		mode := c.runningMode(ctx, host)
		mu.Lock()
		defer mu.Unlock()
		running[mode] = append(running[mode], p.node.name)
		return nil
	})
	if err != nil {
		return "", err
	}
	var modes []string
	for _, mode := range slices.Sorted(maps.Keys(running)) {
		slices.Sort(running[mode])
		modes = append(modes, mode+" on "+strings.Join(running[mode], " "))
	}
	return fmt.Sprintf("ClusterIP %s answers pods and nodes of %s; kube-proxy mode: %s (ConfigMap), %s (running)",
		s.Spec.ClusterIP, c.nodeNames(), c.configuredMode(ctx), strings.Join(modes, ", ")), nil
}

// configuredMode is that of kubeadm's ConfigMap.
func (c *Cluster) configuredMode(ctx context.Context) string {
	cm, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{})
	if err != nil {
		return "not known, " + err.Error()
	}
	var config struct{ Mode string }
	if err := yaml.Unmarshal([]byte(cm.Data["config.conf"]), &config); err != nil {
		return "not known, config.conf: " + err.Error()
	}
	if config.Mode == "" {
		return "iptables by default"
	}
	return config.Mode
}

// runningMode asks the node's kube-proxy, where it listens at its usual port.
func (c *Cluster) runningMode(ctx context.Context, host *corev1.Pod) string {
	loopback := "127.0.0.1" // of the node's own family
	if strings.Contains(host.Status.HostIP, ":") {
		loopback = "[::1]"
	}
	got, err := ask[[]probe.Got](ctx, c, host, "get", probe.Get{URLs: []string{"http://" + loopback + ":10249/proxyMode"}})
	if err != nil || got[0].Error != "" || got[0].Body == "" {
		return "not known"
	}
	return strings.TrimSpace(got[0].Body)
}

// proxyState says how kube-proxy is on a node.
func (c *Cluster) proxyState(ctx context.Context, n node) string {
	state, _ := c.proxyPod(ctx, n)
	return state
}

// proxyPod also tells whether its pod is ready.
func (c *Cluster) proxyPod(ctx context.Context, n node) (state string, ok bool) {
	list, err := c.client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		LabelSelector: "k8s-app=kube-proxy", FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.name).String()})
	switch {
	case err != nil:
		return "kube-proxy: " + err.Error(), false
	case len(list.Items) == 0:
		return "no kube-proxy pod runs on " + n.name, false
	}
	state, ok = podState(&list.Items[0]), ready(&list.Items[0])
	if !ok {
		state += ", not ready"
	}
	return state, ok
}
