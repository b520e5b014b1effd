package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// cordonMark is the annotation of a node that a run has cordoned: whoever finds it may uncordon that node.
const cordonMark = "kubewright.dev/verify-cordoned"

// cordon makes the last node that is schedulable unschedulable for a moment. Pods of other checks that find no
// other node wait as long.
func cordon(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	i := len(c.nodes) - 1
	for ; i >= 0 && !forAll(&c.nodes[i].is); i-- {
	}
	if i < 0 {
		return "", skip("no node is both ready and open to any pod, so none can be cordoned and given back")
	}
	n := c.nodes[i]
	if err := c.setCordon(ctx, n.name, true); err != nil {
		return "", err
	}
	name, reason, err := c.keptOut(ctx, ns, n)
	// Also when the run was cancelled meanwhile. What fails here, the cleaning up does again.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := lines(err, c.setCordon(back, n.name, false)); err != nil {
		return "", err
	}
	w := watched{c.client.CoreV1().RESTClient(), "pods", ns, name, ""}
	err = await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		return len(all) == 1 && all[0].Spec.NodeName == n.name, "no scheduler has brought it there"
	})
	if err != nil {
		return "", fmt.Errorf("node %s is schedulable again, and a pod that wants to go there: %w", n.name, err)
	}
	return fmt.Sprintf("while %s was cordoned, a pod for it stayed pending (%s); after that it went there", n.name, reason), nil
}

// keptOut makes a pod for a node that is cordoned, and waits until the scheduler leaves it alone. A scheduler may see a pod
// before it sees what was done to a node a moment earlier: then it is given another one.
func (c *Cluster) keptOut(ctx context.Context, ns string, n node) (name, reason string, err error) {
	for try := 1; try == 1 || try <= 5 && errors.Is(err, errScheduled); try++ {
		if try > 1 {
			time.Sleep(time.Second)
		}
		name = fmt.Sprintf("kept-out-%d", try)
		p := c.pod(name, "", "wait")
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n.is.Labels[corev1.LabelHostname]}
		if err := c.createPod(ctx, ns, p); err != nil {
			return "", "", err
		}
		if reason, err = c.awaitUnschedulable(ctx, ns, name); err != nil {
			err = fmt.Errorf("node %s is cordoned, and pod %s that wants to go there: %w", n.name, name, err)
		}
	}
	return name, reason, err
}

// forAll tells of a node that takes any pod; one that has our toleration, if it is a control plane.
func forAll(n *corev1.Node) bool {
	kept := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key != controlPlane && t.Effect != corev1.TaintEffectPreferNoSchedule
	})
	return nodeReady(n) && !kept && !n.Spec.Unschedulable
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// setCordon cordons with the mark, or undoes both at once.
func (c *Cluster) setCordon(ctx context.Context, node string, on bool) error {
	var mark, unschedulable any // nil takes the field away
	if on {
		mark, unschedulable = c.run, true
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{cordonMark: mark}},
		"spec":     map[string]any{"unschedulable": unschedulable},
	})
	if err != nil {
		return err
	}
	if _, err := c.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("cordon node %s (%t): %w", node, on, err)
	}
	return nil
}

// uncordonMarked undoes what runs have cordoned, and names the nodes.
func (c *Cluster) uncordonMarked(ctx context.Context) ([]string, error) {
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var names []string
	var errs []error
	for _, n := range list.Items {
		if _, marked := n.Annotations[cordonMark]; !marked {
			continue
		}
		if err := c.setCordon(ctx, n.Name, false); err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, "cordon of node "+n.Name)
	}
	return names, lines(errs...)
}
