package aws

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// givenNetwork is one that is there.
func (a *Cloud) givenNetwork(l *look) (*network, error) {
	n := a.aws.Network
	vpcs, err := l.vpcs()
	if err != nil {
		return nil, explain(err)
	}
	subnets, err := l.subnets()
	if err != nil {
		return nil, explain(err)
	}
	tables, err := l.tables()
	if err != nil {
		return nil, explain(err)
	}
	if len(vpcs) == 0 {
		return nil, fmt.Errorf("AWS: %s is not in %s: look at network.vpc and region", n.VPC, a.region)
	}
	w := &network{vpc: given("vpc", n.VPC), private: true}
	for _, r := range vpcs[0].CidrBlockAssociationSet {
		if r.CidrBlockState != nil && r.CidrBlockState.State == ec2types.VpcCidrBlockStateCodeAssociated {
			w.ranges = append(w.ranges, sdk.ToString(r.CidrBlock))
		}
	}
	all, open := map[string]*resource{}, map[string]bool{}
	for _, s := range subnets {
		if sdk.ToString(s.VpcId) != n.VPC {
			return nil, fmt.Errorf("AWS: %s is in %s, not in %s: name subnets of the VPC", *s.SubnetId, sdk.ToString(s.VpcId), n.VPC)
		}
		all[*s.SubnetId] = given("subnet", *s.SubnetId)
		all[*s.SubnetId].value = sdk.ToString(s.AvailabilityZone)
		open[*s.SubnetId] = leadsOut(tables, *s.SubnetId)
		if slices.Contains(n.Subnets, *s.SubnetId) && open[*s.SubnetId] && sdk.ToBool(s.MapPublicIpOnLaunch) {
			w.private = false
		}
	}
	pick := func(ids []string) (some []*resource, err error) {
		for _, id := range ids {
			if all[id] == nil {
				return nil, errors.Join(err, fmt.Errorf("AWS: %s is not in %s: look at network.subnets", id, a.region))
			}
			some = append(some, all[id])
		}
		return some, nil
	}
	if w.nodes, err = pick(n.Subnets); err != nil {
		return nil, err
	}
	if w.public, err = pick(n.PublicSubnets); err != nil {
		return nil, err
	}
	for _, s := range w.nodes {
		w.zones = append(w.zones, s.value)
	}
	facing := a.aws.LoadBalancer.Scheme != "internal"
	if w.balanced = w.nodes; len(w.public) > 0 && facing {
		w.balanced = w.public
	}
	w.balanced = onePerZone(w.balanced)
	if facing {
		for _, s := range w.balanced {
			if !open[s.name] {
				return nil, fmt.Errorf("AWS: %s has no route to an internet gateway, so that nobody would reach the load balancer there: name subnets that have one under network.publicSubnets, or write loadBalancer.scheme: internal", s.name)
			}
		}
	}
	if a.hasBastion() {
		for _, s := range w.public {
			if !open[s.name] {
				return nil, fmt.Errorf("AWS: %s has no route to an internet gateway, so that nobody would reach the bastion there: name others under network.publicSubnets", s.name)
			}
		}
	}
	return w, nil
}

// leadsOut tells that the route table of a subnet, or the VPC's main one where it has none, leads to the internet both ways: to a gateway of its own, or
// to a firewall before one.
func leadsOut(tables []ec2types.RouteTable, subnet string) bool {
	at := slices.IndexFunc(tables, func(t ec2types.RouteTable) bool {
		return slices.ContainsFunc(t.Associations, func(s ec2types.RouteTableAssociation) bool { return sdk.ToString(s.SubnetId) == subnet })
	})
	if at < 0 {
		at = slices.IndexFunc(tables, func(t ec2types.RouteTable) bool {
			return slices.ContainsFunc(t.Associations, func(s ec2types.RouteTableAssociation) bool { return sdk.ToBool(s.Main) })
		})
	}
	return at >= 0 && slices.ContainsFunc(tables[at].Routes, func(r ec2types.Route) bool {
		to := sdk.ToString(r.GatewayId)
		return sdk.ToString(r.DestinationCidrBlock) == everywhere && r.State == ec2types.RouteStateActive && (strings.HasPrefix(to, "igw-") || strings.HasPrefix(to, "vpce-"))
	})
}

// onePerZone are the first of each zone: a load balancer takes no more.
func onePerZone(subnets []*resource) (some []*resource) {
	for _, s := range subnets {
		if !slices.ContainsFunc(some, func(have *resource) bool { return have.value == s.value }) {
			some = append(some, s)
		}
	}
	return some
}

// given is a thing that is there, is used, and is never changed.
func given(kind, id string) *resource {
	return &resource{kind: kind, name: id, find: func() (string, []string, error) { return id, nil, nil }}
}
