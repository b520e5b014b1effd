package phases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
)

// Release deletes the Services that have a load balancer of a cloud's, and waits until their controller has taken
// them down: nobody does when the cluster is no more. It tells how many there were.
func (u *Up) Release(ctx context.Context, limit time.Duration) (int, error) {
	services := func() (all []addons.Object, err error) {
		list, err := u.api.List(ctx, ref("v1", "Service", "", ""), "")
		return slices.DeleteFunc(list, func(s addons.Object) bool {
			kind, _, _ := unstructured.NestedString(s.Object, "spec", "type")
			return kind != "LoadBalancer"
		}), err
	}
	all, err := services()
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		if err := u.api.Delete(ctx, s); err != nil {
			return 0, err
		}
	}
	return len(all), until(ctx, limit, "the load balancers of Services to be gone", func(context.Context) error {
		left, err := services()
		if err != nil || len(left) == 0 {
			return err
		}
		var names []string
		for _, s := range left {
			names = append(names, s.GetNamespace()+"/"+s.GetName())
		}
		return fmt.Errorf("there are %s", strings.Join(names, ", "))
	})
}

// Lost are the names of nodes with a label, and of members of etcd, that are none of the machines.
func (u *Up) Lost(ctx context.Context, label string) (names []string, err error) {
	if !u.Answers(ctx) {
		return nil, nil
	}
	nodes, err := u.api.List(ctx, ref("v1", "Node", "", ""), label)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		names = append(names, n.GetName())
	}
	if u.Cluster.Spec.Etcd.External == nil {
		all, _, err := u.etcdNow(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range all.Members {
			if m.Name != "" {
				names = append(names, m.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		return slices.ContainsFunc(u.Machines, func(m *Machine) bool { return strings.EqualFold(m.Node.Name, name) })
	}), nil
}
