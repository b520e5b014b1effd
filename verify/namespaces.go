package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// namespaces has a quota refuse a second pod, two objects of one name live side by side, and the API tell which kinds
// are in namespaces.
func namespaces(ctx context.Context, c *Cluster) (string, error) {
	home, err := c.home()
	if err != nil {
		return "", err
	}
	ns, err := c.namespace(ctx, "quota")
	if err != nil {
		return "", err
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "one-pod"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}}}
	if _, err := c.client.CoreV1().ResourceQuotas(ns).Create(ctx, quota, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("create quota: %w", err)
	}
	for _, in := range []string{home, ns} {
		alike := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "alike"}, Data: map[string]string{"in": in}}
		if _, err := c.client.CoreV1().ConfigMaps(in).Create(ctx, alike, metav1.CreateOptions{}); err != nil {
			return "", fmt.Errorf("create a ConfigMap of the same name in %s: %w", in, err)
		}
	}
	for _, in := range []string{home, ns} {
		got, err := c.client.CoreV1().ConfigMaps(in).Get(ctx, "alike", metav1.GetOptions{})
		if err != nil || got.Data["in"] != in {
			return "", fmt.Errorf("namespace %s shows ConfigMap alike as that of namespace %q: %v", in, got.Data["in"], err)
		}
	}
	inside, outside, err := c.kinds()
	if err != nil {
		return "", err
	}
	// Before the controller has counted, all is refused.
	w := watched{c.client.CoreV1().RESTClient(), "resourcequotas", ns, quota.Name, ""}
	err = await(ctx, w, startLimit, func(all []*corev1.ResourceQuota) (bool, string) {
		return len(all) == 1 && !all[0].Status.Hard.Pods().IsZero(), "no controller has counted for the quota: is the controller manager at work?"
	})
	if err != nil {
		return "", err
	}
	for i := range 2 {
		p := c.pod(fmt.Sprintf("counted-%d", i), "", "wait")
		p.Spec.SchedulerName = "kubewright-verify-none" // it is counted, and need not run
		err := c.createPod(ctx, ns, p)
		switch {
		case i == 0 && err != nil:
			return "", fmt.Errorf("a quota of one pod refuses the first: %w", err)
		case i == 1 && err == nil:
			return "", errors.New("a quota of one pod does not refuse the second")
		case i == 1 && !apierrors.IsForbidden(err):
			return "", fmt.Errorf("the second pod: want it forbidden by the quota: %w", err)
		}
	}
	return fmt.Sprintf("a quota of one pod refuses the second; one name in two namespaces is two objects; %d kinds are in namespaces (pods), %d are not (nodes)", inside, outside), nil
}

// kinds counts the kinds of objects that are in namespaces and that are not.
func (c *Cluster) kinds() (inside, outside int, err error) {
	// An API of somebody else's, behind the aggregator, may be down.
	lists, err := c.client.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return 0, 0, fmt.Errorf("list kinds: %w", err)
	}
	var core []metav1.APIResource
	for _, list := range lists {
		if list.GroupVersion == "v1" {
			core = list.APIResources
		}
		for _, r := range list.APIResources {
			if r.Namespaced {
				inside++
			} else {
				outside++
			}
		}
	}
	for name, want := range map[string]bool{"pods": true, "nodes": false} {
		if !slices.ContainsFunc(core, func(r metav1.APIResource) bool { return r.Name == name && r.Namespaced == want }) {
			return 0, 0, fmt.Errorf("the API server does not list %s as namespaced: %t", name, want)
		}
	}
	return inside, outside, nil
}
