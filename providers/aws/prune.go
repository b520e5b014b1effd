package aws

import (
	"context"
	"os"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// cutShort tells that the last run on this machine was.
func (a *Cloud) cutShort() bool {
	_, err := os.Stat(a.busy())
	return err == nil
}

// obsolete are ids of the tables of gateways that there are to be no more, as that has changed, and of those that no subnet goes by. What a
// subnet goes by may not be seen yet: the table that this run has found or made is none of them.
func (w *network) obsolete(l *look) (ids []string, err error) {
	subnets, err := l.subnets()
	if err != nil {
		return nil, err
	}
	all, err := l.tables()
	for _, t := range all {
		name := tagOf(t.Tags, partTag)
		at := slices.IndexFunc(w.roots, func(r *resource) bool { return r.kind == "route-table" && r.name == name })
		if at < 0 || *t.RouteTableId != w.roots[at].id && len(t.Associations) == 0 {
			ids = append(ids, *t.RouteTableId)
		}
		for _, s := range t.Associations {
			id := sdk.ToString(s.SubnetId)
			if at < 0 && id != "" && !slices.ContainsFunc(subnets, func(s ec2types.Subnet) bool { return *s.SubnetId == id }) {
				return nil, wrong("network.nat", "the route table %s (%s) is to be deleted, as that has changed, and %s, which is not of the cluster, goes by it: have that go by another one, and run this again", name, *t.RouteTableId, id)
			}
		}
	}
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
		g, err := part(a.ourGroups(l), ofGroup, bastionGroup)
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
		id := *v.VpcId
		if id == w.vpc.id || ours != nil && id == *ours.VpcId {
			continue
		}
		ids = append(ids, id)
		groups, err := l.groups()
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if sdk.ToString(g.VpcId) == id {
				ids = append(ids, *g.GroupId)
			}
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
	nats, err := l.nats()
	if err != nil {
		return nil, err
	}
	routed, err := routedNATs(l)
	if err != nil {
		return nil, err
	}
	for _, n := range nats { // a gateway that is in use is kept, with its address
		_, _, there := ofNAT(n)
		if _, wanted := kept[tagOf(n.Tags, partTag)]; wanted && there && routed[*n.NatGatewayId] {
			kept[tagOf(n.Tags, partTag)] = addressOf(n)
		}
	}
	for _, e := range addresses {
		if *e.AllocationId != kept[tagOf(e.Tags, partTag)] {
			ids = append(ids, *e.AllocationId)
		}
	}
	for _, n := range nats {
		by, wanted := kept[tagOf(n.Tags, partTag)]
		if _, _, there := ofNAT(n); (!wanted || addressOf(n) != by) && (there || n.State == ec2types.NatGatewayStateDeleting) {
			ids = append(ids, *n.NatGatewayId)
		}
	}
	return ids, nil
}

// routedNATs are the gateways to which the cluster's tables lead.
func routedNATs(l *look) (map[string]bool, error) {
	ids := map[string]bool{}
	all, err := l.tables()
	for _, t := range all {
		for _, r := range t.Routes {
			ids[sdk.ToString(r.NatGatewayId)] = true
		}
	}
	return ids, err
}

func addressOf(n ec2types.NatGateway) string {
	for _, e := range n.NatGatewayAddresses {
		return sdk.ToString(e.AllocationId)
	}
	return ""
}

// among are the cluster's things with these ids, in the order in which they can go.
func (a *Cloud) among(ctx context.Context, ids []string, of map[string]bool) ([][]thing, error) {
	all, err := a.things(ctx, of)
	for i := range all {
		all[i] = slices.DeleteFunc(all[i], func(t thing) bool { return !slices.Contains(ids, t.id) })
	}
	return all, err
}

// listed are the deletions of things.
func listed(all [][]thing) (list []Change) {
	for _, t := range slices.Concat(all...) {
		c := Change{"delete", t.kind, t.name, t.id}
		if c.Name == "" {
			c.Name, c.Detail = t.id, ""
		}
		if strings.HasPrefix(c.Detail, "arn:") { // the name is enough
			c.Detail = ""
		}
		list = append(list, c)
	}
	return list
}

// prune deletes what is superfluous.
func (a *Cloud) prune(ctx context.Context, ids []string) ([]Change, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := a.among(ctx, ids, nil)
	if err != nil {
		return nil, err
	}
	_, err = a.endAll(ctx, 2, func(of map[string]bool) ([][]thing, error) { return a.among(ctx, ids, of) })
	return listed(all), err
}
