package verify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/apiclient"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// contexts has the kubeconfig commands at work on a file of their own.
func contexts(ctx context.Context, c *Cluster) (string, error) {
	if c.contexts == nil {
		return "", skip("whoever runs this has no kubeconfig commands")
	}
	return c.contexts(ctx, c.file)
}

// labels moves a pod in and out of a service by its labels, and changes an annotation that nothing depends on.
func labels(ctx context.Context, c *Cluster) (string, error) {
	pods, err := c.backends()
	if err != nil {
		return "", err
	}
	pod, selector := pods[0], map[string]string{"picked": "yes"}
	s, err := c.service(ctx, pod.Namespace, "labelled", corev1.ServiceSpec{Selector: selector})
	if err != nil {
		return "", err
	}
	const name = "kubewright.dev/note"
	for _, step := range []struct {
		what  string
		label any
		note  any
		ends  int
	}{{"labelled", "yes", "first", 1}, {"labelled otherwise", "no", "second", 0}, {"labelled again", "yes", "third", 1}, {"without the label", nil, nil, 0}} {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"labels": map[string]any{"picked": step.label}, "annotations": map[string]any{name: step.note}}})
		if err != nil {
			return "", err
		}
		got, err := c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return "", fmt.Errorf("patch pod %s: %w", pod.Name, err)
		}
		if note, there := got.Annotations[name]; there != (step.note != nil) || there && note != step.note {
			return "", fmt.Errorf("pod %s was annotated %v, and carries %q", pod.Name, step.note, note)
		}
		if err := c.awaitSlice(ctx, s, endpointReady(step.ends, true)); err != nil {
			return "", fmt.Errorf("a pod %s, and a service for picked=yes: %w", step.what, err)
		}
	}
	return "a service finds a pod as it is labelled, and loses it; an annotation was added, overwritten and removed", nil
}

// canI asks for itself, for another user, and again after that was given a role.
func canI(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	const user = "kubewright-verify"
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	other, err := apiclient.New(config, nil)
	if err != nil {
		return "", err
	}
	may := func(client apiclient.Interface) (bool, error) {
		r, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: ns, Verb: "list", Resource: "pods"}}}, metav1.CreateOptions{})
		if err != nil {
			return false, fmt.Errorf("ask who may list pods in %s: %w", ns, err)
		}
		return r.Status.Allowed, nil
	}
	if ok, err := may(c.client); err != nil || !ok {
		return "", errors.Join(err, errors.New("the user of the kubeconfig may not list pods"))
	}
	if ok, err := may(other); err != nil || ok {
		return "", errors.Join(err, fmt.Errorf("user %s, to whom nobody gave anything, may list pods: %t", user, ok))
	}
	meta := metav1.ObjectMeta{Name: "lists-pods"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	if _, err := c.client.RbacV1().Roles(ns).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("create Role: %w", err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}}
	if _, err := c.client.RbacV1().RoleBindings(ns).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("create RoleBinding: %w", err)
	}
	// The authorizer hears of it a moment later.
	err = until(ctx, rulesLimit, func(context.Context) error {
		if ok, err := may(other); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("user %s was given a Role in %s, and still may not list pods there", user, ns))
		}
		return nil
	})
	return "list pods: yes for the kubeconfig's user, no for another, yes after a RoleBinding in one namespace", err
}

// export writes objects to YAML without what only a living one has, deletes them, and makes them again of that.
func export(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return "", err
	}
	meta := metav1.ObjectMeta{Name: "exported"}
	if _, err := c.client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"word": configWord}}, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("create ConfigMap: %w", err)
	}
	if _, err := c.service(ctx, ns, meta.Name, corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort}); err != nil {
		return "", err
	}
	for _, kind := range []string{"configmaps", "services"} {
		door := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: kind}).Namespace(ns)
		before, err := door.Get(ctx, meta.Name, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("get %s: %w", kind, err)
		}
		text, err := yaml.Marshal(exported(before).Object)
		if err != nil {
			return "", err
		}
		if err := door.Delete(ctx, meta.Name, metav1.DeleteOptions{}); err != nil {
			return "", fmt.Errorf("delete %s: %w", kind, err)
		}
		if _, err := door.Get(ctx, meta.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("%s %s was deleted, and is still there: %v", kind, meta.Name, err)
		}
		again := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &again.Object); err != nil {
			return "", err
		}
		after, err := door.Apply(ctx, meta.Name, again, metav1.ApplyOptions{FieldManager: "kubewright-verify", Force: true})
		if err != nil {
			return "", fmt.Errorf("apply the exported %s: %w\n%s", kind, err, text)
		}
		if after.GetUID() == before.GetUID() {
			return "", fmt.Errorf("%s is the object of before", kind)
		}
		if want, have := exported(before).Object, exported(after).Object; !sameJSON(want, have) {
			back, _ := json.Marshal(have)
			was, _ := json.Marshal(want)
			return "", fmt.Errorf("%s came back as %s, was exported as %s", kind, back, was)
		}
	}
	return "a ConfigMap and a Service were exported to YAML, deleted, and applied again: the same but for uid, resourceVersion and times", nil
}

// exported is an object without what the cluster has added to it.
func exported(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	delete(o.Object, "status")
	metadata, _ := o.Object["metadata"].(map[string]any)
	maps.DeleteFunc(metadata, func(field string, _ any) bool {
		return !slices.Contains([]string{"name", "namespace", "labels", "annotations"}, field)
	})
	return o
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// balancing calls a service with two endpoints so often that chance leaves none of them out.
func balancing(ctx context.Context, c *Cluster) (string, error) {
	pods, err := c.backends()
	if err != nil {
		return "", err
	}
	s, err := c.service(ctx, pods[0].Namespace, "balanced-pair", corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyCluster)})
	if err != nil {
		return "", err
	}
	if err := c.awaitEndpoints(ctx, s, pods...); err != nil {
		return "", err
	}
	from, err := c.lastProbe()
	if err != nil {
		return "", err
	}
	const calls = 60 // 1 in 10^17 that one of two is left out
	var by map[string]int
	err = until(ctx, rulesLimit, func(ctx context.Context) error { // the rules may have one endpoint at first
		got, err := c.calls(ctx, from, who(s.Spec.ClusterIP, 80), pods, calls)
		if err != nil {
			return err
		}
		if by = got; len(by) < len(pods) {
			return fmt.Errorf("of %d calls of service %s all went to %s, and its endpoints are %s", calls, s.Spec.ClusterIP, counts(by), words(podNames(pods)))
		}
		return nil
	})
	return fmt.Sprintf("%d calls of a service from a pod on %s were answered by %s", calls, from.Spec.NodeName, counts(by)), err
}

// counts says who did something how often.
func counts(by map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s (%d)", name, by[name]))
	}
	return cmp.Or(strings.Join(all, ", "), "nobody")
}

// optional has nothing to show yet.
func optional(context.Context, *Cluster) (string, error) {
	return "", skip("optional parts, which kubewright does not make yet")
}
