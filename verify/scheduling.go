package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scheduling makes three pods: one is free, one is bound to a node, one fits nowhere.
func scheduling(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.namespace(ctx, "2")
	if err != nil {
		return "", err
	}
	most, err := c.mostCPU(ctx)
	if err != nil {
		return "", err
	}
	const idle = "exec tail -f /dev/null"
	last := c.nodes[len(c.nodes)-1].name
	free, bound, big := c.pod("free", "", idle), c.pod("bound", last, idle), c.pod("big", "", idle)
	most.Add(most)
	big.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: most}
	for _, p := range []*corev1.Pod{free, bound, big} {
		if err := c.createPod(ctx, ns, p); err != nil {
			return "", err
		}
	}

	var chosen, reason string
	err = onEach([]func() error{
		func() error {
			p, err := c.awaitPod(ctx, ns, "free")
			if err != nil {
				return fmt.Errorf("a free pod: %w", err)
			}
			chosen = p.Spec.NodeName
			return nil
		},
		func() error {
			if _, err := c.awaitPod(ctx, ns, "bound"); err != nil {
				return fmt.Errorf("a pod bound to %s: %w", last, err)
			}
			return nil
		},
		func() (err error) {
			reason, err = c.awaitUnschedulable(ctx, ns, "big")
			if err != nil {
				err = fmt.Errorf("a pod that asks for %s CPUs: %w", most.String(), err)
			}
			return err
		},
	}, func(f func() error) error { return f() })
	return fmt.Sprintf("free pod went to %s; bound pod runs on %s; one that asks for %s CPUs stays pending: %s", chosen, last, most.String(), reason), err
}

func (c *Cluster) awaitUnschedulable(ctx context.Context, ns, name string) (reason string, err error) {
	w := watched{c.client.CoreV1().RESTClient(), "pods", ns, name, ""}
	err = await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		if len(all) == 0 {
			return false, "pod " + name + " is not there"
		}
		i := slices.IndexFunc(all[0].Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
		})
		if i >= 0 {
			// What follows is about claims and preemption, which are not the reason.
			reason, _, _ = strings.Cut(all[0].Status.Conditions[i].Message, ". ")
		}
		return i >= 0 && all[0].Status.Phase == corev1.PodPending, podState(all[0]) + ", and no scheduler says that it fits nowhere"
	})
	return reason, err
}

// mostCPU is what the greatest node has.
func (c *Cluster) mostCPU(ctx context.Context) (resource.Quantity, error) {
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("list nodes: %w", err)
	}
	var most resource.Quantity
	for _, n := range list.Items {
		if q := n.Status.Allocatable.Cpu(); q.Cmp(most) > 0 {
			most = q.DeepCopy()
		}
	}
	return most, nil
}
