package aws

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// constrained are ids of zones that AWS does not extend any more: they have neither NAT gateways nor network load balancers, and lack many types of
// instances. Their names differ from account to account.
var constrained = []string{"apne1-az3", "cac1-az3", "use1-az3", "usw1-az2"}

// chooseZones are those of the document, those that were chosen when the VPC was made, or the first three.
func (a *Cloud) chooseZones(l *look) ([]string, error) {
	vpc, err := ourVPC(l)
	if err != nil {
		return nil, explain(err)
	}
	named, before := a.aws.Network.Zones, ""
	if vpc != nil {
		before = tagOf(vpc.Tags, zonesTag)
	}
	switch {
	case len(named) > 0 && strings.Join(named, ",") == before:
		return named, nil
	case len(named) == 0 && before != "":
		return strings.Split(before, ","), nil
	}
	all, err := l.zones()
	if err != nil {
		return nil, explain(err)
	}
	var names []string
	for _, z := range all {
		if !slices.Contains(constrained, sdk.ToString(z.ZoneId)) {
			names = append(names, sdk.ToString(z.ZoneName))
		}
	}
	slices.Sort(names)
	for _, z := range named {
		if !slices.Contains(names, z) {
			return nil, wrong("network.zones", "%s is none of %s, or has neither NAT gateways nor network load balancers: choose among %s", z, a.region, strings.Join(names, ", "))
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("AWS: no zone of %s is available to this account: choose another region", a.region)
	case len(named) > 0:
		return named, nil
	}
	return names[:min(3, len(names))], nil
}

// divide gives each zone an eighth of a VPC for nodes, and an eighth of the last eighth, for what faces the internet.
func divide(vpc netip.Prefix, zones int) (public, private []string) {
	nth := func(p netip.Prefix, n int) netip.Prefix { // of eight
		b := p.Addr().As4()
		at := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		at += uint32(n) << (32 - p.Bits() - 3)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)}), p.Bits()+3)
	}
	for i := range zones {
		private = append(private, nth(vpc, i).String())
		public = append(public, nth(nth(vpc, 7), i).String())
	}
	return public, private
}

// ourVPCID is the id of the cluster's VPC, of which its subnets tell where it is not seen; empty: there is none.
func ourVPCID(l *look) (string, error) {
	vpc, err := ourVPC(l)
	if vpc != nil || err != nil {
		return sdk.ToString(cmp.Or(vpc, &ec2types.Vpc{}).VpcId), err
	}
	subnets, err := l.subnets()
	for _, s := range subnets {
		return sdk.ToString(s.VpcId), nil
	}
	return "", err
}

// ourVPC is the cluster's; nil: there is none. Of two, which are there when a run did not see what one before it had made, it is that with the subnets.
func ourVPC(l *look) (*ec2types.Vpc, error) {
	subnets, err := l.subnets()
	if err != nil {
		return nil, err
	}
	return part(l.vpcs, ofVPC, "vpc", func(v ec2types.Vpc) bool {
		return slices.ContainsFunc(subnets, func(s ec2types.Subnet) bool { return sdk.ToString(s.VpcId) == *v.VpcId })
	})
}
