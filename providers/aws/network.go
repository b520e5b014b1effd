package aws

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// network is what the other resources need of it.
type network struct {
	vpc      *resource
	gateway  *resource   // to the internet; nil: it is somebody else's
	ranges   []string    // of the VPC
	private  bool        // nodes have no public addresses
	zones    []string    // of the nodes' subnets
	nodes    []*resource // subnets of the nodes, one for each zone, or those that were named
	balanced []*resource // subnets of the load balancer
	public   []*resource
	outlets  []*resource // addresses that the NAT gateways go out with
	roots    []*resource // that nothing else needs
}

// network is the VPC with subnets over some zones, and what leads out of it.
func (a *Cloud) network(ctx context.Context, l *look) (*network, error) {
	if !a.aws.Network.Own() {
		return a.givenNetwork(l)
	}
	cidr, private := a.aws.Network.CIDR, a.aws.Network.Private()
	w := &network{ranges: []string{cidr}, private: private}
	var err error
	if w.zones, err = a.chooseZones(l); err != nil {
		return nil, err
	}
	key, value := a.kubernetes()
	vpc := &resource{kind: "vpc", name: "vpc", detail: cidr}
	w.vpc = vpc
	vpc.find = func() (string, []string, error) {
		id, err := ourVPCID(l)
		if id == "" || err != nil {
			return "", nil, err
		}
		some, err := l.subnets()
		if err != nil {
			return "", nil, err
		}
		var lacks []string
		if len(some) == 0 { // they are made after its names are on
			lacks = append(lacks, "dns names")
		}
		if v, _ := ourVPC(l); v != nil && tagOf(v.Tags, zonesTag) != strings.Join(w.zones, ",") {
			lacks = append(lacks, "zones")
		}
		return id, lacks, nil
	}
	vpc.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: &cidr, TagSpecifications: a.specified(ec2types.ResourceTypeVpc, "vpc", key, value, zonesTag, strings.Join(w.zones, ","))})
		if err != nil {
			return "", err
		}
		return *out.Vpc.VpcId, nil
	}
	vpc.steps = []step{{name: "dns names", do: func(ctx context.Context) error {
		_, err := a.ec2.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &vpc.id, EnableDnsHostnames: &ec2types.AttributeBooleanValue{Value: sdk.Bool(true)}})
		return err // names from AWS's own server are on in every VPC that is made
	}}}
	vpc.mends = []step{{name: "zones", do: func(ctx context.Context) error {
		_, err := a.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{vpc.id}, Tags: []ec2types.Tag{{Key: sdk.String(zonesTag), Value: sdk.String(strings.Join(w.zones, ","))}}})
		return err
	}}}
	gateway := a.internetGateway(l, vpc)
	w.gateway = gateway
	publicTable := a.table(l, vpc, "public", gateway)
	publicCIDRs, privateCIDRs := divide(netip.MustParsePrefix(cidr), len(w.zones))
	if !private {
		publicCIDRs = privateCIDRs
	}
	ranges := map[string]string{} // of subnets by name
	for i, zone := range w.zones {
		if ranges["public-"+zone] = publicCIDRs[i]; private {
			ranges["private-"+zone] = privateCIDRs[i]
		}
	}
	if err := unchanged(l, cidr, ranges); err != nil {
		return nil, err
	}
	var nat, privateTable *resource
	for i, zone := range w.zones {
		subnet := a.subnet(l, vpc, "public-"+zone, zone, publicCIDRs[i], "kubernetes.io/role/elb", true)
		w.public = append(w.public, subnet)
		w.roots = append(w.roots, subnet, publicTable, a.associate(l, publicTable, subnet))
		if !private {
			continue
		}
		if nat == nil || a.aws.Network.NAT == "zone" {
			name := "nat"
			if a.aws.Network.NAT == "zone" {
				name = "nat-" + zone
			}
			address := a.elasticAddress(l, name)
			w.outlets = append(w.outlets, address)
			nat = a.natGateway(l, name, subnet, address, gateway)
			privateTable = a.table(l, vpc, strings.Replace(name, "nat", "private", 1), nat)
		}
		node := a.subnet(l, vpc, "private-"+zone, zone, privateCIDRs[i], "kubernetes.io/role/internal-elb", false)
		w.nodes = append(w.nodes, node)
		w.roots = append(w.roots, node, privateTable, a.associate(l, privateTable, node))
	}
	if !private {
		w.nodes = w.public
	}
	w.balanced = w.public
	if a.aws.LoadBalancer.Scheme == "internal" {
		w.balanced = w.nodes
	}
	if _, err := w.obsolete(l); err != nil { // before anything goes by others
		return nil, explain(err)
	}
	return w, nil
}

func ofVPC(v ec2types.Vpc) (string, []ec2types.Tag, bool) { return *v.VpcId, v.Tags, true }
func ofSubnet(s ec2types.Subnet) (string, []ec2types.Tag, bool) {
	return *s.SubnetId, s.Tags, true
}

func (a *Cloud) subnet(l *look, vpc *resource, name, zone, cidr, role string, public bool) *resource {
	r := &resource{kind: "subnet", name: name, detail: cidr + " in " + zone, value: zone, needs: []*resource{vpc}}
	r.find = func() (string, []string, error) {
		s, err := part(l.subnets, ofSubnet, name)
		if s == nil || err != nil {
			return "", nil, err
		}
		if public && !sdk.ToBool(s.MapPublicIpOnLaunch) {
			return *s.SubnetId, []string{"public addresses"}, nil
		}
		return *s.SubnetId, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		key, value := a.kubernetes()
		out, err := a.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpc.id, AvailabilityZone: &zone, CidrBlock: &cidr,
			TagSpecifications: a.specified(ec2types.ResourceTypeSubnet, name, key, value, role, "1")})
		if codeOf(err) == "InvalidSubnet.Conflict" { // a run that was cut short has made it
			return a.inTheWay(ctx, vpc.id, name, netip.MustParsePrefix(cidr), err)
		}
		if err != nil {
			return "", err
		}
		return *out.Subnet.SubnetId, nil
	}
	if public {
		r.steps = []step{{name: "public addresses", do: func(ctx context.Context) error {
			_, err := a.ec2.ModifySubnetAttribute(ctx, &ec2.ModifySubnetAttributeInput{SubnetId: &r.id, MapPublicIpOnLaunch: &ec2types.AttributeBooleanValue{Value: sdk.Bool(true)}})
			return err
		}}}
	}
	return r
}

// inTheWay is the subnet of that name, if a run that was cut short has made it; somebody else's is told of.
func (a *Cloud) inTheWay(ctx context.Context, vpc, name string, cidr netip.Prefix, why error) (string, error) {
	all, err := pages(func(next *string) ([]ec2types.Subnet, *string, error) {
		out, err := a.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{filter("vpc-id", vpc)}, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.Subnets, out.NextToken, nil
	})
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if tagOf(s.Tags, clusterTag) == a.name && tagOf(s.Tags, partTag) == name {
			return *s.SubnetId, nil
		}
		if have, err := netip.ParsePrefix(sdk.ToString(s.CidrBlock)); err == nil && have.Overlaps(cidr) {
			return "", fmt.Errorf("it would be %s, and %s in the same VPC is %s: remove that, if it is not needed, and run this again", cidr, *s.SubnetId, have)
		}
	}
	return "", fmt.Errorf("%w: %w", errUnseen, why)
}
