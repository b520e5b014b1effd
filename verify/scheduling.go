package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// tooMuch CPUs has no node, and none that an autoscaler could buy for the pod that asks for them.
const tooMuch = "1M"

// scheduling makes three pods: one is free, one is bound to a node, one fits nowhere.
func scheduling(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	last := c.nodes[len(c.nodes)-1].name
	free, bound, big := c.pod("free", "", "wait"), c.pod("bound", last, "wait"), c.pod("big", "", "wait")
	big.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(tooMuch)}
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
				err = fmt.Errorf("a pod that asks for %s CPUs: %w", tooMuch, err)
			}
			return err
		},
	}, func(f func() error) error { return f() })
	return fmt.Sprintf("free pod went to %s; bound pod runs on %s; one that asks for %s CPUs stays pending: %s", chosen, last, tooMuch, reason), err
}

// errScheduled is of a pod that ought to find no place.
var errScheduled = errors.New("the scheduler has found a place for it")

// awaitUnschedulable waits until the scheduler has said that a pod fits nowhere; [errScheduled]: it does.
func (c *Cluster) awaitUnschedulable(ctx context.Context, ns, name string) (reason string, err error) {
	scheduled := false
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
		scheduled = all[0].Spec.NodeName != ""
		return scheduled || i >= 0, podState(all[0]) + ", and no scheduler says that it fits nowhere"
	})
	if scheduled {
		err = errScheduled
	}
	return reason, err
}
