package aws

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/config"
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
		return nil, wrong("network.vpc", "%s is not in %s, or not of this account: look for its id with `aws ec2 describe-vpcs --region %s`", n.VPC, a.region, a.region)
	}
	w := &network{vpc: given("vpc", n.VPC), private: true}
	for _, r := range vpcs[0].CidrBlockAssociationSet {
		if r.CidrBlockState != nil && r.CidrBlockState.State == ec2types.VpcCidrBlockStateCodeAssociated {
			w.ranges = append(w.ranges, sdk.ToString(r.CidrBlock))
		}
	}
	var bad *multierror.Error
	pick := func(field string, ids []string) (some []*resource) {
		for i, id := range ids {
			at := slices.IndexFunc(subnets, func(s ec2types.Subnet) bool { return *s.SubnetId == id })
			path := fmt.Sprintf("network.%s[%d]", field, i)
			switch {
			case at < 0:
				bad = multierror.Append(bad, wrong(path, "%s is not in %s, or not of this account: look for its id with `aws ec2 describe-subnets --region %s --filters Name=vpc-id,Values=%s`", id, a.region, a.region, n.VPC))
			case sdk.ToString(subnets[at].VpcId) != n.VPC:
				bad = multierror.Append(bad, wrong(path, "%s is in %s, not in %s: name subnets of the VPC", id, sdk.ToString(subnets[at].VpcId), n.VPC))
			default:
				s := given("subnet", id)
				s.value = sdk.ToString(subnets[at].AvailabilityZone)
				some = append(some, s)
				if field == "subnets" && leadsOut(tables, id) && sdk.ToBool(subnets[at].MapPublicIpOnLaunch) {
					w.private = false
				}
			}
		}
		return some
	}
	w.nodes, w.public = pick("subnets", n.Subnets), pick("publicSubnets", n.PublicSubnets)
	w.zones = zonesOf(w.nodes)
	facing := a.aws.LoadBalancer.Scheme != "internal"
	if w.balanced = w.nodes; len(n.PublicSubnets) > 0 && facing {
		w.balanced = w.public
	}
	w.balanced = onePerZone(w.balanced)
	if facing {
		for _, s := range w.balanced {
			if !leadsOut(tables, s.name) {
				bad = multierror.Append(bad, wrong("network", "%s has no route to an internet gateway, so that nobody would reach the load balancer there: name subnets that have one under network.publicSubnets, or write loadBalancer.scheme: internal", s.name))
			}
		}
	}
	for _, s := range w.nodes {
		if len(w.public) == len(n.PublicSubnets) && !slices.Contains(zonesOf(w.balanced), s.value) { // of one that is not there no zone is known
			bad = multierror.Append(bad, wrong("network.publicSubnets", "there is none in %s, where %s is, and a load balancer leads to no control plane in a zone that it is not in: name one there, too, or leave that one out of subnets", s.value, s.name))
		}
	}
	if a.hasBastion() {
		for _, s := range w.public {
			if !leadsOut(tables, s.name) && !slices.Contains(w.balanced, s) {
				bad = multierror.Append(bad, wrong("network.publicSubnets", "%s has no route to an internet gateway, so that nobody would reach the bastion there: name others", s.name))
			}
		}
	}
	for _, err := range a.overlaps(w.ranges) {
		bad = multierror.Append(bad, err)
	}
	return w, wrongs(bad, nil)
}

// overlaps are ranges of pods and services in which addresses of the VPC are, that nobody in the cluster would reach.
func (a *Cloud) overlaps(vpc []string) (all []error) {
	c := *a.c
	c.Spec.Hosts = nil
	c.Default(config.Versions{})
	for _, r := range vpc {
		there, err := netip.ParsePrefix(r)
		if err != nil {
			continue
		}
		for field, ranges := range map[string][]netip.Prefix{"podCIDR": c.Spec.Network.PodRanges(), "serviceCIDR": c.Spec.Network.ServiceRanges()} {
			for _, other := range ranges {
				if other.Overlaps(there) {
					all = append(all, &DocumentError{fmt.Errorf("spec.network.%s: %s and %s of %s overlap: write a range that has no address in common with it", field, other, r, a.aws.Network.VPC)})
				}
			}
		}
	}
	return all
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

func zonesOf(subnets []*resource) (zones []string) {
	for _, s := range subnets {
		zones = append(zones, s.value)
	}
	return zones
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
