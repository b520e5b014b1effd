package aws

import (
	"errors"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
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
	if len(vpcs) == 0 {
		return nil, fmt.Errorf("AWS: %s is not in %s: look at network.vpc and region", n.VPC, a.region)
	}
	w := &network{cidr: sdk.ToString(vpcs[0].CidrBlock), vpc: given("vpc", n.VPC)}
	all := map[string]*resource{}
	for _, s := range subnets {
		if sdk.ToString(s.VpcId) != n.VPC {
			return nil, fmt.Errorf("AWS: %s is in %s, not in %s: name subnets of the VPC", *s.SubnetId, sdk.ToString(s.VpcId), n.VPC)
		}
		all[*s.SubnetId] = given("subnet", *s.SubnetId)
		all[*s.SubnetId].detail = sdk.ToString(s.AvailabilityZone)
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
		w.zones = append(w.zones, s.detail)
	}
	if w.balanced = w.nodes; len(w.public) > 0 && a.aws.LoadBalancer.Scheme != "internal" {
		w.balanced = w.public
	}
	return w, nil
}

// given is a thing that is there, is used, and is never changed.
func given(kind, id string) *resource {
	return &resource{kind: kind, name: id, find: func() (string, []string, error) { return id, nil, nil }}
}
