package phases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubewright/kubewright/apiclient"
	"github.com/kubewright/kubewright/config"
)

// evictAgain is when to ask again whether a pod may go, which a budget forbade.
const evictAgain = 5 * time.Second

// drain cordons the node and evicts its pods, as `kubectl drain --ignore-daemonsets --delete-emptydir-data`
// does. (Its library would bring all of kubectl along.) The pods of a host that is gone cannot end: they go
// when its Node does.
func (u *Up) drain(ctx context.Context, t *Target, r Removal, alive bool) error {
	client, err := apiclient.New(u.api.config, u.api.http)
	if err != nil {
		return err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, t.Node.Name, metav1.GetOptions{})
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !node.Spec.Unschedulable {
		t.changed(1)
		if _, err := client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("cordon: %w", err)
		}
	}
	if !alive {
		return nil
	}
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return err
	}
	pods, alone := evictable(list.Items)
	if len(alone) > 0 && !r.Force {
		return fmt.Errorf("nobody would start these pods elsewhere: %s: end them yourself, or with --force, and run this again; until then nothing new is put on %s, unless you say `kubectl uncordon %[2]s`", strings.Join(alone, ", "), node.Name)
	}
	limit := r.Limit
	if limit == 0 {
		limit = 10 * time.Minute
	}
	t.changed(len(pods))
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	var all multierror.Group
	places := make(chan struct{}, 50)
	for _, p := range pods {
		all.Go(func() error {
			places <- struct{}{}
			defer func() { <-places }()
			return evict(bounded, client, p, r.Grace)
		})
	}
	if err := config.Errors(all.Wait()); err != nil {
		return fmt.Errorf("evict the pods: %w: see `kubectl get poddisruptionbudgets -A`, and run the same command again", err)
	}
	return nil
}

// evictable are the pods that have to go elsewhere, and the names of those among them that nobody would
// start again. Those of DaemonSets and static ones belong to the node.
func evictable(all []corev1.Pod) (pods []corev1.Pod, alone []string) {
	for _, p := range all {
		owner := metav1.GetControllerOf(&p)
		over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if _, static := p.Annotations[corev1.MirrorPodAnnotationKey]; static || owner != nil && owner.Kind == "DaemonSet" && !over {
			continue
		}
		if owner == nil && !over && p.DeletionTimestamp == nil {
			alone = append(alone, p.Namespace+"/"+p.Name)
		}
		pods = append(pods, p)
	}
	return pods, alone
}

// evict asks until the pod may go, and waits until it is gone.
func evict(ctx context.Context, client apiclient.Interface, p corev1.Pod, grace time.Duration) error {
	options := &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
	if grace > 0 {
		seconds := int64(grace.Seconds())
		options.GracePeriodSeconds = &seconds
	}
	var last error
	wait := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s/%s: %w: %w", p.Namespace, p.Name, context.Cause(ctx), last)
		case <-time.After(d):
			return nil
		}
	}
	for {
		err := client.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace}, DeleteOptions: options})
		if err == nil || isNotFound(err) || apierrors.IsConflict(err) { // another one of the name
			break
		}
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			break // it goes with its namespace
		}
		if !apierrors.IsTooManyRequests(err) && ctx.Err() == nil {
			return fmt.Errorf("%s/%s: %w", p.Namespace, p.Name, err)
		}
		last = err
		if err := wait(evictAgain); err != nil {
			return err
		}
	}
	last = errors.New("it has not ended yet")
	for {
		now, err := client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if isNotFound(err) || err == nil && now.UID != p.UID {
			return nil
		}
		if err != nil {
			last = err
		}
		if err := wait(time.Second / 4); err != nil {
			return err
		}
	}
}
