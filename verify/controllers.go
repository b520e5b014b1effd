package verify

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// controllers makes a Deployment, follows who owns what, and deletes a pod.
func controllers(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	template := c.pod("web", "", "wait")
	deployment, err := c.client.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1),
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create deployment: %w", err)
	}
	var set *appsv1.ReplicaSet
	w := watched{c.client.AppsV1().RESTClient(), "replicasets", ns, "", ""}
	err = await(ctx, w, 15*time.Second, func(all []*appsv1.ReplicaSet) (bool, string) {
		for _, r := range all {
			if metav1.IsControlledBy(r, deployment) {
				set = r
			}
		}
		return set != nil, "no ReplicaSet is owned by Deployment web: is the controller manager at work?"
	})
	if err != nil {
		return "", err
	}
	first, err := c.awaitReplica(ctx, set, "")
	if err != nil {
		return "", fmt.Errorf("the pod of ReplicaSet %s: %w", set.Name, err)
	}
	start := time.Now()
	if err := c.client.CoreV1().Pods(ns).Delete(ctx, first.Name, metav1.DeleteOptions{}); err != nil {
		return "", fmt.Errorf("delete pod %s: %w", first.Name, err)
	}
	second, err := c.awaitReplica(ctx, set, first.UID)
	if err != nil {
		return "", fmt.Errorf("pod %s was deleted, and ReplicaSet %s did not replace it: %w", first.Name, set.Name, err)
	}
	return fmt.Sprintf("Deployment web owns ReplicaSet %s, which owns pod %s; that was deleted, and %s was ready in its place after %.1fs",
		set.Name, first.Name, second.Name, time.Since(start).Seconds()), nil
}

// awaitReplica waits for a ready pod of a ReplicaSet that is not the one which is gone.
func (c *Cluster) awaitReplica(ctx context.Context, set *appsv1.ReplicaSet, gone types.UID) (replica *corev1.Pod, err error) {
	w := watched{c.client.CoreV1().RESTClient(), "pods", set.Namespace, "", ""}
	err = await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		state := "it has no other pod: is the controller manager at work?"
		for _, p := range all {
			if !metav1.IsControlledBy(p, set) || p.UID == gone {
				continue
			}
			replica, state = p, podState(p)
			if ready(p) {
				return true, ""
			}
		}
		return false, state
	})
	if err != nil && replica != nil {
		err = fmt.Errorf("%w%s", err, c.why(ctx, replica))
	}
	return replica, err
}
