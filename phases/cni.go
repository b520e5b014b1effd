package phases

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

// Networks tells whether a list of phases, but for those that are skipped, installs the pod network.
func Networks(list []Phase, skip []string) bool {
	return len(Select(list, "addon/cni")) > 0 && !skipped(skip, "addon/cni")
}

func cni(ctx context.Context, t *Target) error {
	objects, err := addons.CNI(t.Cluster, t.server(), t.Material)
	if err != nil {
		return err
	}
	if len(objects) == 0 { // somebody else installs a network, maybe what was ours
		return nil
	}
	return t.applyWhole(ctx, "cni", objects)
}

// applyWhole makes the objects of an addon true, and removes what an earlier version of it had beside them: the
// cluster keeps an inventory. It holds both versions in between, so that a run that is cut short loses nothing.
func (t *Target) applyWhole(ctx context.Context, addon string, objects []addons.Object) error {
	had, err := t.inventory(ctx, addon)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(slices.Clone(had), func(o addons.Object) bool {
		return slices.ContainsFunc(objects, func(is addons.Object) bool { return sameThing(o, is) })
	})
	if len(objects)+len(gone) == 0 {
		return nil
	}
	if err := t.apply(ctx, addons.Inventory(addon, append(slices.Clone(objects), gone...))); err != nil {
		return err
	}
	if err := t.applyAddon(ctx, objects); err != nil {
		return err
	}
	if len(gone) == 0 {
		return nil
	}
	for _, stage := range slices.Backward(stages(gone)) {
		for _, o := range stage {
			if err := t.prune(ctx, o); err != nil {
				return err
			}
		}
	}
	return t.apply(ctx, addons.Inventory(addon, objects))
}

// sameThing compares without the version of the API, in which an object may be had by more than one.
func sameThing(a, b addons.Object) bool {
	return a.GroupVersionKind().GroupKind() == b.GroupVersionKind().GroupKind() && a.GetNamespace() == b.GetNamespace() && a.GetName() == b.GetName()
}

// inventory is what an addon has in the cluster, by name.
func (t *Target) inventory(ctx context.Context, addon string) ([]addons.Object, error) {
	live, err := t.lookup(ctx, addons.Inventory(addon, nil))
	if live == nil {
		return nil, err
	}
	return addons.Inventoried(live), nil
}

// lookup is Get of a server that may only have begun to answer; nil: it is not there.
func (t *Target) lookup(ctx context.Context, o addons.Object) (live addons.Object, err error) {
	err = untilFinal(ctx, starting, describe(o), func(ctx context.Context) (err error) {
		live, err = t.API.Get(ctx, o)
		switch {
		case apierrors.IsNotFound(err):
			live = nil
			return nil
		case err != nil && !notYet(err):
			return finalError{err}
		}
		return err
	})
	return live, err
}

// prune removes an object that is no longer wished for. What holds things of others stays, and so does what
// others have made theirs.
func (t *Target) prune(ctx context.Context, o addons.Object) error {
	if kind := o.GetKind(); kind == "Namespace" || kind == definition {
		t.notice("%s is no longer wanted, and was left, as with it goes all that is in it: `kubectl delete %s %s` removes it", describe(o), kind, o.GetName())
		return nil
	}
	live, err := t.API.Get(ctx, o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ours := len(live.GetManagedFields()) == 0 // of an object with nothing but its name, nobody manages anything
	for _, f := range live.GetManagedFields() {
		ours = ours || f.Manager == FieldManager
	}
	if !ours {
		t.notice("%s is no longer wanted, and was left, as somebody else has made it anew", describe(o))
		return nil
	}
	if err := t.API.Delete(ctx, o); err != nil {
		return fmt.Errorf("remove %s, which is no longer wanted: %w", describe(o), err)
	}
	t.changed(1)
	return nil
}

// keptNetwork refuses what pods that run would not survive.
func keptNetwork(has, wants config.CNI, refuse func(field, has, wants, what string)) {
	if has.Name == "none" { // whatever somebody has installed there may be described now
		return
	}
	refuse("spec.network.cni.name", has.Name, wants.Name, "pods keep the interfaces and addresses of the network that they began with, and two networks on a host fight over them; write the one that it has, or make another cluster and move there")
	if has.Name == "calico" && wants.Name == "calico" {
		refuse("spec.network.cni.calico.encapsulation", has.Calico.Encapsulation, wants.Calico.Encapsulation, "Calico keeps it with the pools of addresses that it makes at its first start; write what it has, or make another cluster")
	}
}

// KeptNetwork refuses a pod network that a running cluster cannot be given, and other ranges than it has.
func KeptNetwork(live, wants *config.Cluster) error {
	var all *multierror.Error
	refuse := func(field, has, wants, what string) {
		if has != wants {
			all = multierror.Append(all, fmt.Errorf("%s: the cluster has %q and the document %q: %s", field, has, wants, what))
		}
	}
	n, w := live.Spec.Network, wants.Spec.Network
	keptNetwork(n.CNI, w.CNI, refuse)
	if n.CNI.Name != "none" {
		refuse("spec.network.podCIDR", n.PodCIDR, w.PodCIDR, "each node keeps its share of it, and so do its pods; write what the cluster has, or make another")
		refuse("spec.network.serviceCIDR", n.ServiceCIDR, w.ServiceCIDR, "services keep their addresses; write what the cluster has, or make another")
	}
	return config.Errors(all)
}
