package aws

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/config"
)

// infrastructure are all resources that nothing else needs; what they need comes with them.
func (a *Cloud) infrastructure(ctx context.Context, l *look) ([]*resource, *network, error) {
	refused := a.refusals(ctx, l)
	w, err := a.network(ctx, l)
	if err != nil {
		return nil, nil, gathered(append(refused, err)...)
	}
	groups, roots := a.groups(l, w)
	roots = append(roots, w.roots...)
	key := a.key(ctx, l)
	pools, err := a.pools(ctx, l, w, groups)
	if err := gathered(append(refused, err)...); err != nil {
		return nil, nil, err
	}
	var planes, others []*resource
	for i, p := range pools {
		if p.profile != nil && p.InstanceProfile == "" {
			roots = append(roots, p.profile)
		}
		made := a.launch(ctx, l, p, key)
		if i == 0 {
			planes = made
		} else {
			others = append(others, made...)
		}
	}
	if len(a.aws.Tags) > 0 {
		roots = append(roots, a.tagging(ctx, l))
	}
	running := a.running(ctx, l, "control planes", planes)
	roots = append(roots, running)
	if len(others) > 0 {
		roots = append(roots, a.running(ctx, l, "other machines", others))
	}
	return append(roots, a.balancer(l, w, groups[balancerGroup], running, planes)...), w, nil
}

// pools are all machines that there are to be, with what they are to be in, and to have.
func (a *Cloud) pools(ctx context.Context, l *look, w *network, groups map[string]*resource) ([]pool, error) {
	all := a.allPools()
	var bad *multierror.Error
	for i, p := range all {
		switch p.Name {
		case planesPool:
			p.groups, p.subnets, p.profile = []*resource{groups[nodesGroup], groups[controlPlaneGroup]}, w.nodes, a.profile(ctx, l, p)
		case bastionPart:
			p.groups, p.subnets = []*resource{groups[bastionGroup]}, w.public
		default:
			p.groups, p.subnets = []*resource{groups[nodesGroup]}, w.nodes
			if p.InstanceProfile != "" {
				p.profile = a.givenProfile(ctx, p)
			}
		}
		if len(p.Zones) > 0 {
			p.subnets = nil
			for i, z := range w.zones {
				if slices.Contains(p.Zones, z) {
					p.subnets = append(p.subnets, w.nodes[i])
				}
			}
			if slices.ContainsFunc(p.Zones, func(z string) bool { return !slices.Contains(w.zones, z) }) {
				bad = multierror.Append(bad, wrong(p.path+".zones", "%s is not all in %s, where the network is: choose zones of the network", strings.Join(p.Zones, ", "), strings.Join(w.zones, ", ")))
			}
		}
		all[i] = p
	}
	return all, wrongs(bad, nil)
}

// planned are the resources that there are to be, and what would be done about them. All that is wrong with the document, by what AWS says and by what is
// there, is one error.
func (a *Cloud) planned(ctx context.Context, l *look) ([]*resource, *network, []Change, error) {
	a.ahead(l)
	if err := a.known(); err != nil {
		return nil, nil, nil, err
	}
	w := &walk{plan: true}
	roots, net, err := a.infrastructure(ctx, l)
	d := (*DocumentError)(nil)
	if errors.As(err, &d) {
		w.wrong = multierror.Append(w.wrong, d.Err)
	} else if err != nil {
		return nil, nil, nil, err
	}
	named, err := a.mentioned(ctx, l, d != nil)
	if err != nil {
		return nil, nil, nil, wrongs(w.wrong, err)
	}
	changes, err := w.run(ctx, append(named, roots...))
	return roots, net, changes, err
}

// mentioned is what the document names of machines that are still to be made, or would now be made otherwise; but of the
// latter alone where the others are looked at anyway.
func (a *Cloud) mentioned(ctx context.Context, l *look, others bool) (all []*resource, err error) {
	for _, p := range a.allPools() {
		lacking, changed := false, false
		for _, name := range p.parts() {
			i, err := part(l.instances, ofInstance, name)
			if err != nil {
				return nil, explain(err)
			}
			lacking = lacking || i == nil
			changed = changed || i != nil && len(p.unlike(*i)) > 0
		}
		if lacking && !others || !lacking && !changed {
			continue
		}
		if all = append(all, a.image(ctx, l, p)); p.InstanceProfile != "" {
			all = append(all, a.givenProfile(ctx, p))
		}
	}
	if len(all) > 0 && others {
		all = append(all, a.key(ctx, l))
	}
	return all, nil
}

// Plan tells what Create would do, and which machines would have to leave the cluster first.
func (a *Cloud) Plan(ctx context.Context) ([]Change, error) {
	l := a.look(ctx)
	_, net, changes, err := a.planned(ctx, l)
	if err != nil {
		return nil, err
	}
	if ids, err := a.superfluous(l, net, len(changes) > 0 || a.cutShort()); err != nil {
		return nil, explain(err)
	} else if len(ids) > 0 {
		gone, err := a.among(ctx, ids, nil)
		if err != nil {
			return nil, err
		}
		changes = append(changes, listed(gone)...)
	}
	all, err := l.instances()
	for _, i := range a.extra(all) {
		changes = append(changes, ending(i))
	}
	return changes, err
}

// Create makes what is missing, mends what has changed, and gives the document its hosts and its endpoint. Machines that are no longer wished for
// stay: see [Cloud.Surplus].
func (a *Cloud) Create(ctx context.Context) (_ []Change, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			a.failed()
		}
	}()
	if err := a.catchUp(ctx); err != nil {
		return nil, err
	}
	l, closely := a.look(ctx), a.cutShort()
	roots, net, _, err := a.planned(ctx, l)
	if err != nil {
		return nil, err
	}
	w := &walk{say: a.Say, settle: a.settle, first: func() error { return touch(a.busy()) }}
	changes, err := w.run(ctx, roots)
	if err != nil {
		return changes, err
	}
	if len(changes) > 0 {
		l, closely = a.look(ctx), true
		go l.balancer()
		go l.instances()
	}
	ids, err := a.superfluous(l, net, closely)
	if err != nil {
		return changes, explain(err)
	}
	gone, err := a.prune(ctx, ids)
	changes = append(changes, gone...)
	if err != nil {
		return changes, err
	}
	if err := removeFile(a.busy()); err != nil {
		return changes, err
	}
	return changes, a.hand(l)
}

// Hosts gives the document the machines that are there, and its endpoint; none: nothing is made yet.
func (a *Cloud) Hosts(ctx context.Context) error {
	return a.hand(a.look(ctx))
}

// Surplus are nodes of machines that the document no longer wishes for.
func (a *Cloud) Surplus() []config.Node { return a.surplus }

// Shrink ends the machines of [Cloud.Surplus], which have left the cluster, and no others that may have come up since.
func (a *Cloud) Shrink(ctx context.Context) (changes []Change, err error) {
	for _, c := range a.leaving {
		if _, err := a.terminate(ctx, c.Detail); err != nil && !missing(err) { // one at a time: one that is no more would have AWS refuse all
			return changes, explain(err)
		}
		a.Say("%s", c)
		changes = append(changes, c)
	}
	return changes, nil
}

func ending(i ec2types.Instance) Change {
	return Change{"delete", "instance", tagOf(i.Tags, partTag), *i.InstanceId}
}

// machineOf takes a node's provider id apart: aws:///ZONE/ID.
func machineOf(n config.Node) (zone, id string) {
	zone, id, _ = strings.Cut(strings.TrimPrefix(n.ProviderID, "aws:///"), "/")
	return zone, id
}

// Gone are those of some nodes whose machines AWS has ended, or does not know any more.
func (a *Cloud) Gone(ctx context.Context, nodes []config.Node) (names []string, err error) {
	ids := map[string]string{}
	for _, n := range nodes {
		if zone, id := machineOf(n); id != "" && strings.HasPrefix(zone, a.region) { // of others AWS would know nothing here
			ids[id] = n.Name
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := pages(a.describeInstances(ctx, ec2.DescribeInstancesInput{Filters: []ec2types.Filter{filter("instance-id", sorted(ids)...)}}))
	if err != nil {
		return nil, explain(err)
	}
	for _, i := range all {
		if _, _, alive := ofInstance(i); alive {
			delete(ids, *i.InstanceId)
		}
	}
	return slices.Sorted(maps.Values(ids)), nil
}

// Young are nodes whose machines were started not longer ago than that: they may be booting, or what leads to them.
func (a *Cloud) Young(limit time.Duration) (names []string) {
	for name, at := range a.started {
		if time.Since(at) < limit {
			names = append(names, name)
		}
	}
	return names
}

func (a *Cloud) terminate(ctx context.Context, ids ...string) (*ec2.TerminateInstancesOutput, error) {
	return a.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
}
