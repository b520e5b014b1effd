package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/verify/probe"
)

// nodeAgents asks the kubelet of every node through the API, systemd where the host can be reached, and kube-proxy at
// its own port.
func nodeAgents(ctx context.Context, c *Cluster) (string, error) {
	_, err := c.client.AppsV1().DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{})
	proxied := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("get DaemonSet kube-proxy: %w", err)
	}
	err = c.onEveryNode(func(p *pair) error {
		errs := []error{c.kubelet(ctx, p.node)}
		if proxied {
			errs = append(errs, c.proxyAnswers(ctx, p))
		}
		return lines(errs...)
	})
	under := pressures(c.nodes)
	if err != nil { // it may be why
		err = lines(err, under)
	}
	said := fmt.Sprintf("kubelets of %s are Ready and answer /healthz", c.nodeNames())
	if n := len(c.hosts); n > 0 {
		said += fmt.Sprintf(", and are active and enabled units on %d of %d hosts", n, len(c.nodes))
	} else {
		said += "; not looked at: their systemd units, which needs -f"
	}
	if proxied {
		said += "; kube-proxy is ready and healthy on each"
	} else {
		said += "; there is no kube-proxy: another does its work"
	}
	if under != nil {
		said += "; but " + under.Error()
	}
	return said, err
}

// pressures names nodes that are short of something, and may refuse pods or end them; nil where none is.
func pressures(nodes []node) error {
	var errs []error
	for _, n := range nodes {
		for _, cond := range n.is.Status.Conditions {
			if cond.Status == corev1.ConditionTrue && slices.Contains([]corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure}, cond.Type) {
				errs = append(errs, fmt.Errorf("node %s has %s: %s", n.name, cond.Type, cond.Message))
			}
		}
	}
	return lines(errs...)
}

func (c *Cluster) kubelet(ctx context.Context, n node) error {
	var errs []error
	is, err := c.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get node %s: %w", n.name, err)
	}
	for _, cond := range is.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status != corev1.ConditionTrue {
			errs = append(errs, fmt.Errorf("node %s is not ready: %s", n.name, cond.Message))
		}
	}
	b, err := c.client.CoreV1().RESTClient().Get().Resource("nodes").Name(n.name).SubResource("proxy").Suffix("healthz").DoRaw(ctx)
	if err != nil || strings.TrimSpace(string(b)) != "ok" {
		errs = append(errs, fmt.Errorf("node %s: the kubelet does not answer /healthz with ok: %q, %v", n.name, b, err))
	}
	if run := c.hosts[n.name]; run != nil {
		for word, want := range map[string]string{"is-active": "active", "is-enabled": "enabled"} {
			out, err := run(ctx, "systemctl", word, "kubelet")
			if strings.TrimSpace(out) != want {
				errs = append(errs, fmt.Errorf("node %s: systemctl %s kubelet says %q, want %s: %v", n.name, word, strings.TrimSpace(out), want, err))
			}
		}
	}
	return lines(errs...)
}

// proxyPort is where kube-proxy tells how it is, unless its configuration says otherwise.
const proxyPort = 10256

// proxyAnswers asks at the node's own address: a kube-proxy that was stopped still has a pod that is ready.
func (c *Cluster) proxyAnswers(ctx context.Context, p *pair) error {
	state, ok := c.proxyPod(ctx, p.node)
	if !ok {
		return fmt.Errorf("node %s: %s", p.node.name, state)
	}
	host, err := p.host()
	if err != nil {
		return err
	}
	url := strings.TrimSuffix(who(p.node.ip, proxyPort), "who") + "healthz"
	if err := c.get(ctx, host, probe.Get{URLs: []string{url}, Within: rulesLimit}); err != nil {
		return fmt.Errorf("node %s: kube-proxy does not answer: %w; %s", p.node.name, err, state)
	}
	return nil
}

// containers shows the engines, and what a pod reads.
func containers(ctx context.Context, c *Cluster) (string, error) {
	engines := map[string][]string{}
	for _, n := range c.nodes {
		version := n.is.Status.NodeInfo.ContainerRuntimeVersion
		if version == "" {
			return "", fmt.Errorf("node %s does not say which container engine it has", n.name)
		}
		engines[version] = append(engines[version], n.name)
	}
	pod, err := c.composed()
	if err != nil {
		return "", err
	}
	got, err := ask[map[string]string](ctx, c, pod, "files", []string{"/secret/word", "/config/word", "/shared/began"})
	if err != nil {
		return "", err
	}
	for path, want := range map[string]string{"/secret/word": secretWord, "/config/word": configWord} {
		if got[path] != want {
			return "", fmt.Errorf("%s holds %q, want %q", path, got[path], want)
		}
	}
	var said []string
	for _, version := range slices.Sorted(maps.Keys(engines)) {
		said = append(said, version+" on "+strings.Join(engines[version], " "))
	}
	return strings.Join(said, ", ") + "; a pod on " + pod.Spec.NodeName + " reads its Secret, its ConfigMap and its emptyDir", nil
}
