package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/reach"
)

// waitCloud waits until the cloud controller has said of each node that is ready what it is: until then, the node has
// a taint that keeps off most pods.
func waitCloud(ctx context.Context, t *Target) error {
	limit := t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	nodes, err := t.API.List(bounded, ref("v1", "Node", "", ""), "")
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if _, err := t.API.Until(bounded, n, saidByCloud); err != nil {
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return t.silentCloud(ctx, limit)
		}
	}
	return nil
}

// saidByCloud is true of a node that is not ready as well, for which nobody waits.
func saidByCloud(o addons.Object) bool {
	n, err := typed[corev1.Node](o)
	return err == nil && (condition(o, "Ready") != "True" ||
		!slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == addons.Uninitialized }))
}

// silentCloud names the nodes, and what keeps the controller from running, or the end of what it says.
func (t *Target) silentCloud(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	nodes, err := t.API.List(ctx, ref("v1", "Node", "", ""), "")
	if err != nil {
		return err
	}
	var names []string
	for _, n := range nodes {
		if !saidByCloud(n) {
			names = append(names, n.GetName())
		}
	}
	if len(names) == 0 { // what was waited for is gone
		return nil
	}
	slices.Sort(names)
	labels := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: addons.CloudControllerLabels()})
	pods, _ := t.API.List(ctx, ref("v1", "Pod", metav1.NamespaceSystem, ""), labels)
	var all []trouble
	log := ""
	for _, o := range pods {
		p, err := typed[corev1.Pod](o)
		if err != nil {
			continue
		}
		if !podReady(p) {
			all = append(all, troubles(p)...)
		}
		if p.Spec.NodeName == t.Node.Name && len(p.Spec.Containers) > 0 {
			log = t.containerLog(ctx, p.Spec.Containers[0].Name)
		}
	}
	if log != "" {
		log = fmt.Sprintf("\nits last lines on %s:\n%s", t.Node.Name, log)
	}
	return fmt.Errorf("the cloud controller has not said within %s what these nodes are to the cloud: %s%s\nsee `kubectl -n %s logs -l %s`: the control planes must be "+
		"allowed to ask the cloud, and the nodes have the names of their machines there, or a providerID; then run the same command again%s",
		limit, reach.Names(names), firstOf(all), metav1.NamespaceSystem, labels, log)
}
