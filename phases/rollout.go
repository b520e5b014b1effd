package phases

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/reach"
)

// networkReady is the last phase of a cluster: other hosts may have joined meanwhile, and be ready.
const networkReady = "wait-network"

// waitNetwork waits until kube-proxy and what the pod network runs on each node are there as they were applied last:
// a network that was changed may not come up again, and nodes stay ready without it. Those that are not ready hold nobody up.
func waitNetwork(ctx context.Context, t *Target) error {
	var agents []addons.Object
	if t.Cluster.Spec.KubeProxy.Mode != "none" {
		agents = append(agents, ref("apps/v1", "DaemonSet", "kube-system", "kube-proxy"))
	}
	applied, err := t.networkObjects(ctx)
	if err != nil {
		return err
	}
	for _, o := range applied {
		if o.GetKind() == "DaemonSet" {
			agents = append(agents, o)
		}
	}
	errs := make([]error, len(agents))
	var wg sync.WaitGroup
	for i, o := range agents {
		wg.Go(func() { errs[i] = t.rolledOut(ctx, o) })
	}
	wg.Wait()
	return config.Errors(multierror.Append(nil, errs...))
}

// networkObjects are the names of those of the pod network that we have applied.
func (t *Target) networkObjects(ctx context.Context) ([]addons.Object, error) {
	if t.Cluster.Spec.Network.CNI.Name == "none" { // it may be somebody else's by now
		return nil, nil
	}
	return t.inventory(ctx, "cni")
}

// rolledOut waits as long as there is any progress: a DaemonSet goes from node to node.
func (t *Target) rolledOut(ctx context.Context, o addons.Object) error {
	live, err := t.lookup(ctx, o)
	if err != nil || live == nil { // its phase was skipped
		return err
	}
	if d, err := typed[appsv1.DaemonSet](live); err != nil || everywhere(d) {
		return err
	}
	limit := t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(limit, cancel)
	defer late.Stop()
	best, held := math.MaxInt, ""
	_, err = t.API.Until(bounded, o, func(live addons.Object) bool {
		behind, by, err := t.behind(bounded, live)
		if err == nil && len(behind) < best {
			best = len(behind)
			late.Reset(limit)
		}
		held = by
		return err == nil && (len(behind) == 0 || held != "")
	})
	if err == nil && held != "" {
		t.notice("%s is rolled out on further nodes when %s, which is not ready, is back, or is taken out with `kubewright remove`", describe(o), held)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	// What is not said of the DaemonSet itself: a node may have been lost meanwhile.
	bounded, cancel = context.WithTimeout(ctx, starting)
	defer cancel()
	if live, err = t.API.Get(bounded, o); err != nil {
		return err
	}
	behind, _, err := t.behind(bounded, live)
	if err != nil || len(behind) == 0 {
		return err
	}
	return fmt.Errorf("%s is not rolled out on all nodes that are ready, and for %s nothing has changed:%s%s\n"+
		"see `%s`, and what the document says of it under spec; then run the same command again",
		describe(o), limit, firstOf(behind), t.lastWords(ctx, behind), asking(o, behind))
}

// asking is the command that shows more of what a DaemonSet lacks.
func asking(o addons.Object, behind []trouble) string {
	for _, one := range behind {
		if one.container != "" {
			return fmt.Sprintf("kubectl -n %s logs %s -c %s", o.GetNamespace(), one.pod, one.container)
		}
	}
	return fmt.Sprintf("kubectl -n %s describe ds %s", o.GetNamespace(), o.GetName())
}

// everywhere tells of a DaemonSet that runs on all of its nodes as it was applied last.
func everywhere(d *appsv1.DaemonSet) bool {
	s, all := d.Status, d.Status.DesiredNumberScheduled
	return s.ObservedGeneration >= d.Generation && s.UpdatedNumberScheduled == all && s.NumberReady == all
}

// behind is what a DaemonSet lacks on nodes that are ready. Held names those that are not, where its controller goes no
// further for them: they are as many as may be without it at a time.
func (t *Target) behind(ctx context.Context, live addons.Object) (all []trouble, held string, err error) {
	d, err := typed[appsv1.DaemonSet](live)
	if err != nil || everywhere(d) {
		return nil, "", err
	}
	nodes, err := t.API.List(ctx, ref("v1", "Node", "", ""), "")
	if err != nil {
		return nil, "", err
	}
	ready := map[string]bool{}
	for _, n := range nodes {
		if condition(n, "Ready") == "True" {
			ready[n.GetName()] = true
		}
	}
	if len(ready) == 0 {
		return nil, "", nil
	}
	if d.Status.ObservedGeneration < d.Generation {
		return []trouble{{what: "the controller manager has not taken it up"}}, "", nil
	}
	selector := metav1.FormatLabelSelector(d.Spec.Selector)
	newest, err := t.newest(ctx, d, selector)
	if err != nil {
		return nil, "", err
	}
	pods, err := t.API.List(ctx, ref("v1", "Pod", d.Namespace, ""), selector)
	if err != nil {
		return nil, "", err
	}
	has, kept := map[string]bool{}, 0
	var lost []string
	for _, o := range pods {
		p, err := typed[corev1.Pod](o)
		if err != nil {
			return nil, "", err
		}
		node := nodeOf(p)
		if !metav1.IsControlledBy(p, d) {
			continue
		}
		has[node] = true
		old := p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] != newest && d.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType
		switch {
		case !ready[node]:
			if !podReady(p) {
				lost = append(lost, node)
			}
		case old || p.DeletionTimestamp != nil:
			if podReady(p) && p.DeletionTimestamp == nil {
				kept++
			}
			all = append(all, trouble{what: "Pod " + p.Namespace + "/" + p.Name + " on " + node + " is still the one of before", node: node})
		case !podReady(p):
			all = append(all, troubles(p)...)
		}
	}
	// It says for how many nodes it is, and not for which.
	missing := int(d.Status.DesiredNumberScheduled) - len(has)
	for _, n := range nodes {
		if !ready[n.GetName()] && !has[n.GetName()] {
			missing--
			lost = append(lost, n.GetName())
		}
	}
	for range missing {
		all = append(all, trouble{what: "on one node more there is no pod of it"})
	}
	most := 1
	if u := d.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		if most, err = intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, int(d.Status.DesiredNumberScheduled), true); err != nil {
			return nil, "", err
		}
	}
	if kept > 0 && kept == len(all) && len(lost) >= most {
		slices.Sort(lost)
		held = reach.Names(slices.Compact(lost))
	}
	return all, held, nil
}

// newest is the revision of pods that a DaemonSet is to have now.
func (t *Target) newest(ctx context.Context, d *appsv1.DaemonSet, selector string) (revision string, err error) {
	all, err := t.API.List(ctx, ref("apps/v1", "ControllerRevision", d.Namespace, ""), selector)
	if err != nil {
		return "", err
	}
	latest := int64(-1)
	for _, o := range all {
		r, err := typed[appsv1.ControllerRevision](o)
		if err != nil {
			return "", err
		}
		if metav1.IsControlledBy(r, d) && r.Revision > latest {
			latest, revision = r.Revision, r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
		}
	}
	return revision, nil
}

// typed is an object in its own type.
func typed[T any](o addons.Object) (*T, error) {
	into := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		return nil, fmt.Errorf("read %s: %w", describe(o), err)
	}
	return into, nil
}
