package phases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
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

// Lost are nodes with a label, and members of etcd that the cluster's document has as hosts with that label, that are none of the machines:
// their names and provider ids. Whoever has joined by other means is not among them.
func (u *Up) Lost(ctx context.Context, label string) (lost []config.Node, err error) {
	if !u.Answers(ctx) {
		return nil, nil
	}
	nodes, err := u.api.List(ctx, ref("v1", "Node", "", ""), label)
	if err != nil {
		return nil, err
	}
	var all []config.Node
	for _, n := range nodes {
		id, _, _ := unstructured.NestedString(n.Object, "spec", "providerID")
		all = append(all, config.Node{Name: n.GetName(), ProviderID: id})
	}
	if u.Cluster.Spec.Etcd.External == nil && u.live != nil {
		members, _, err := u.etcdNow(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, labelled(u.live.Cluster.Spec.Hosts, label, members)...)
	}
	for _, n := range all {
		is := func(name string) bool { return strings.EqualFold(name, n.Name) }
		if !slices.ContainsFunc(u.Machines, func(m *Machine) bool { return is(m.Node.Name) }) && !slices.ContainsFunc(lost, func(n config.Node) bool { return is(n.Name) }) {
			lost = append(lost, n)
		}
	}
	return lost, nil
}

// labelled are the hosts with a label that are members of etcd. Their nodes may be gone: the cloud controller deletes those of machines that are.
func labelled(hosts []config.Node, label string, members EtcdMembers) (all []config.Node) {
	for _, n := range hosts {
		if _, ok := n.Labels[label]; ok && slices.ContainsFunc(members.Members, func(m EtcdMember) bool { return m.Name == n.Name }) {
			all = append(all, config.Node{Name: n.Name, ProviderID: n.ProviderID})
		}
	}
	return all
}
