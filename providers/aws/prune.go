package aws

import (
	"context"
	"os"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// cutShort tells that the last run on this machine was.
func (a *Cloud) cutShort() bool {
	_, err := os.Stat(a.busy())
	return err == nil
}

// obsolete are ids of the tables of gateways that there are to be no more, as network.nat has changed.
func (w *network) obsolete(l *look) (ids []string, err error) {
	all, err := l.tables()
	for _, t := range all {
		if !slices.ContainsFunc(w.roots, func(r *resource) bool { return r.kind == "route-table" && r.name == tagOf(t.Tags, partTag) }) {
			ids = append(ids, *t.RouteTableId)
		}
	}
	slices.Sort(ids)
	return ids, err
}

// superfluous are ids of what there is, and is not to be: a bastion that is no longer wished for, gateways of another network.nat, and what
// was made twice. That may befall what is made without a token, when AWS does not tell at once what a run before has made; so it is looked
// at closely only after something was made. A table goes after its gateway, and a group after its machine, and tell until then that there is more.
func (a *Cloud) superfluous(l *look, w *network, closely bool) (ids []string, err error) {
	if a.aws.Network.Own() {
		go l.vpcs()
		go l.subnets()
		go l.tables()
		if closely {
			go l.gateways()
			go l.addresses()
			go l.nats()
		}
	}
	if !a.hasBastion() {
		g, err := part(l.groups, ofGroup, bastionGroup)
		if err != nil {
			return nil, err
		}
		if i, err := part(l.instances, ofInstance, bastionPart); err != nil {
			return nil, err
		} else if i != nil {
			ids = append(ids, *i.InstanceId)
		}
		if g != nil {
			ids = append(ids, *g.GroupId)
		}
	}
	if !a.aws.Network.Own() {
		return ids, nil
	}
	old, err := w.obsolete(l)
	if err != nil {
		return nil, err
	}
	ids = append(ids, old...)
	vpcs, err := l.vpcs()
	if err != nil {
		return nil, err
	}
	ours, err := ourVPC(l)
	if err != nil {
		return nil, err
	}
	for _, v := range vpcs {
		if id := *v.VpcId; id != w.vpc.id && (ours == nil || id != *ours.VpcId) {
			ids = append(ids, id)
		}
	}
	if !closely && len(old) == 0 && len(vpcs) < 2 {
		return ids, nil
	}
	more, err := w.superfluousGateways(l)
	return append(ids, more...), err
}

func (w *network) superfluousGateways(l *look) (ids []string, err error) {
	gateways, err := l.gateways()
	if err != nil {
		return nil, err
	}
	ours, _ := ourGateway(l) // of the same answer
	for _, g := range gateways {
		if id := *g.InternetGatewayId; id != w.gateway.id && (ours == nil || id != *ours.InternetGatewayId) {
			ids = append(ids, id)
		}
	}
	kept := map[string]string{} // addresses by part
	for _, o := range w.outlets {
		e, err := ourAddress(l, o.name)
		if err != nil {
			return nil, err
		}
		if kept[o.name] = o.id; o.id == "" && e != nil {
			kept[o.name] = *e.AllocationId
		}
	}
	addresses, err := l.addresses()
	if err != nil {
		return nil, err
	}
	for _, e := range addresses {
		if *e.AllocationId != kept[tagOf(e.Tags, partTag)] {
			ids = append(ids, *e.AllocationId)
		}
	}
	nats, err := l.nats()
	for _, n := range nats {
		_, wanted := kept[tagOf(n.Tags, partTag)]
		if _, _, there := ofNAT(n); !wanted && (there || n.State == ec2types.NatGatewayStateDeleting) {
			ids = append(ids, sdk.ToString(n.NatGatewayId))
		}
	}
	return ids, err
}

// among are the cluster's things with these ids, in the order in which they can go.
func (a *Cloud) among(ctx context.Context, ids []string) ([][]thing, error) {
	all, err := a.things(ctx)
	for i := range all {
		all[i] = slices.DeleteFunc(all[i], func(t thing) bool { return !slices.Contains(ids, t.id) })
	}
	return all, err
}

// listed are the deletions of things.
func listed(all [][]thing) (list []Change) {
	for _, t := range slices.Concat(all...) {
		list = append(list, Change{"delete", t.kind, t.name, t.id})
	}
	return list
}

// prune deletes what is superfluous.
func (a *Cloud) prune(ctx context.Context, ids []string) ([]Change, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := a.among(ctx, ids)
	if err != nil {
		return nil, err
	}
	_, err = a.endAll(ctx, 2, func() ([][]thing, error) { return a.among(ctx, ids) })
	return listed(all), err
}
