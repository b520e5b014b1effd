package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// readyTimeout bounds each wait for a cluster; an idle machine needs a tenth of it.
const readyTimeout = 3 * time.Minute

// Kubectl runs kubectl on the control plane, as its admin.
func (c *Cluster) Kubectl(ctx context.Context, argv ...string) (stdout, stderr string, err error) {
	return c.ControlPlane.Exec(ctx, nil, append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, argv...)...)
}

// WaitReady waits until all nodes are Ready, the API shows etcd's pod, and CoreDNS is available.
func (c *Cluster) WaitReady(ctx context.Context) error {
	if err := c.WaitNodes(ctx); err != nil {
		return err
	}
	// The kubelet shows its static pods in the API only some seconds after they run.
	_, err := until(ctx, c.Client.CoreV1().RESTClient(), "pods", "kube-system", "etcd-"+c.ControlPlane.Name, &corev1.Pod{}, func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodRunning {
			return errors.New("it is " + string(p.Status.Phase))
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = until(ctx, c.Client.AppsV1().RESTClient(), "deployments", "kube-system", "coredns", &appsv1.Deployment{}, func(d *appsv1.Deployment) error {
		if d.Status.ReadyReplicas < *d.Spec.Replicas {
			return fmt.Errorf("%d of %d replicas are ready", d.Status.ReadyReplicas, *d.Spec.Replicas)
		}
		return nil
	})
	return err
}

// WaitNodes waits until all nodes are Ready.
func (c *Cluster) WaitNodes(ctx context.Context) error {
	for _, name := range c.NodeNames() {
		_, err := until(ctx, c.Client.CoreV1().RESTClient(), "nodes", "", name, &corev1.Node{}, func(n *corev1.Node) error {
			for _, cond := range n.Status.Conditions {
				if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
					return nil
				} else if cond.Type == corev1.NodeReady {
					return errors.New(cond.Message)
				}
			}
			return errors.New("it has no Ready condition")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitFresh waits until every node has shown a sign of life since then, and all is ready.
func (c *Cluster) WaitFresh(ctx context.Context, since time.Time) error {
	for _, name := range c.NodeNames() {
		_, err := until(ctx, c.Client.CoordinationV1().RESTClient(), "leases", corev1.NamespaceNodeLease, name, &coordinationv1.Lease{}, func(l *coordinationv1.Lease) error {
			if l.Spec.RenewTime == nil || l.Spec.RenewTime.Time.Before(since) {
				return fmt.Errorf("its last sign of life is of %v", l.Spec.RenewTime)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// NodeNames are those of all hosts, the control plane first.
func (c *Cluster) NodeNames() []string {
	names := []string{c.ControlPlane.Name}
	for _, w := range c.Workers {
		names = append(names, w.Name)
	}
	return names
}

// until watches one object until look has nothing to say against it.
func until[T runtime.Object](ctx context.Context, client rest.Interface, resource, namespace, name string, kind T, look func(T) error) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	lw := cache.NewListWatchFromClient(client, resource, namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	last := errors.New("it does not exist")
	var found T
	_, err := watchtools.UntilWithSync(ctx, lw, kind, nil, func(e watch.Event) (bool, error) {
		o, ok := e.Object.(T)
		if !ok || e.Type == watch.Deleted {
			return false, nil
		}
		found, last = o, look(o)
		return last == nil, nil
	})
	if err != nil {
		return found, fmt.Errorf("%s %s: %w: %w", resource, name, last, err)
	}
	return found, nil
}
