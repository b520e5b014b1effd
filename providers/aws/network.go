package aws

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// network is what the other resources need of it.
type network struct {
	vpc      *resource
	gateway  *resource // to the internet; nil: it is somebody else's
	cidr     string
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
	w := &network{cidr: a.aws.Network.CIDR}
	var err error
	if w.zones, err = a.chooseZones(l); err != nil {
		return nil, err
	}
	key, value := a.kubernetes()
	vpc := &resource{kind: "vpc", name: "vpc", detail: w.cidr}
	w.vpc = vpc
	vpc.find = func() (string, []string, error) {
		v, err := part(l.vpcs, ofVPC, "vpc")
		if v == nil || err != nil {
			return "", nil, err
		}
		some, err := l.subnets() // which are made after its names are on
		if len(some) > 0 {
			return *v.VpcId, nil, err
		}
		return *v.VpcId, []string{"dns names"}, err
	}
	vpc.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: &w.cidr, TagSpecifications: a.specified(ec2types.ResourceTypeVpc, "vpc", key, value, zonesTag, strings.Join(w.zones, ","))})
		if err != nil {
			return "", err
		}
		return *out.Vpc.VpcId, nil
	}
	vpc.steps = []step{{name: "dns names", do: func(ctx context.Context) error {
		_, err := a.ec2.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &vpc.id, EnableDnsHostnames: &ec2types.AttributeBooleanValue{Value: sdk.Bool(true)}})
		return err // names from AWS's own server are on in every VPC that is made
	}}}
	gateway := a.internetGateway(l, vpc)
	w.gateway = gateway
	publicTable := a.table(l, vpc, "public", gateway)
	publicCIDRs, privateCIDRs := divide(netip.MustParsePrefix(w.cidr), len(w.zones))
	private := a.aws.Network.Private()
	var nat, privateTable *resource
	for i, zone := range w.zones {
		subnet := a.subnet(l, vpc, "public-"+zone, zone, publicCIDRs[i], "kubernetes.io/role/elb", true)
		if !private {
			subnet = a.subnet(l, vpc, "public-"+zone, zone, privateCIDRs[i], "kubernetes.io/role/elb", true)
		}
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
	return w, nil
}

// chooseZones are those of the document, those that were chosen when the VPC was made, or the first three.
func (a *Cloud) chooseZones(l *look) ([]string, error) {
	vpc, err := part(l.vpcs, ofVPC, "vpc")
	if err != nil {
		return nil, explain(err)
	}
	if z := a.aws.Network.Zones; len(z) > 0 {
		return z, nil
	}
	if vpc != nil && tagOf(vpc.Tags, zonesTag) != "" {
		return strings.Split(tagOf(vpc.Tags, zonesTag), ","), nil
	}
	all, err := l.zones()
	if err != nil {
		return nil, explain(err)
	}
	var names []string
	for _, z := range all {
		names = append(names, sdk.ToString(z.ZoneName))
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("AWS: no zone of %s is available to this account: choose another region", a.region)
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

func ofVPC(v ec2types.Vpc) (string, []ec2types.Tag, bool) { return *v.VpcId, v.Tags, true }
func ofSubnet(s ec2types.Subnet) (string, []ec2types.Tag, bool) {
	return *s.SubnetId, s.Tags, true
}

func (a *Cloud) subnet(l *look, vpc *resource, name, zone, cidr, role string, public bool) *resource {
	r := &resource{kind: "subnet", name: name, detail: cidr + " in " + zone, needs: []*resource{vpc}}
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
			return again(a.look(ctx).subnets, ofSubnet, name, err)
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

// table leads everything that is not in the VPC to a gateway.
func (a *Cloud) table(l *look, vpc *resource, name string, gateway *resource) *resource {
	const everywhere = "0.0.0.0/0"
	r := &resource{kind: "route-table", name: name, detail: everywhere + " by " + gateway.name, after: []*resource{vpc}}
	r.find = func() (string, []string, error) {
		t, err := part(l.tables, ofTable, name)
		if t == nil || err != nil {
			return "", nil, err
		}
		for _, route := range t.Routes {
			if sdk.ToString(route.DestinationCidrBlock) == everywhere && route.State == ec2types.RouteStateActive {
				return *t.RouteTableId, nil, nil
			}
		}
		return *t.RouteTableId, []string{"default route"}, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &vpc.id, TagSpecifications: a.specified(ec2types.ResourceTypeRouteTable, name)})
		if err != nil {
			return "", err
		}
		return *out.RouteTable.RouteTableId, nil
	}
	r.steps = []step{{name: "default route", needs: []*resource{gateway}, do: func(ctx context.Context) error {
		gatewayID, natID := route(gateway)
		_, err := a.ec2.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: &r.id, DestinationCidrBlock: sdk.String(everywhere), GatewayId: gatewayID, NatGatewayId: natID})
		if codeOf(err) == "RouteAlreadyExists" { // and leads nowhere
			_, err = a.ec2.ReplaceRoute(ctx, &ec2.ReplaceRouteInput{RouteTableId: &r.id, DestinationCidrBlock: sdk.String(everywhere), GatewayId: gatewayID, NatGatewayId: natID})
		}
		return err
	}}}
	return r
}

func ofTable(t ec2types.RouteTable) (string, []ec2types.Tag, bool) {
	return *t.RouteTableId, t.Tags, true
}

func route(to *resource) (gateway, nat *string) {
	if to.kind == "nat-gateway" {
		return nil, &to.id
	}
	return &to.id, nil
}

// associate has a subnet's packets go by a table.
func (a *Cloud) associate(l *look, table, subnet *resource) *resource {
	r := &resource{kind: "route", name: subnet.name, detail: "by the table " + table.name, after: []*resource{table, subnet}}
	r.find = func() (string, []string, error) {
		t, err := part(l.tables, ofTable, table.name)
		if t == nil || err != nil {
			return "", nil, err
		}
		s, err := part(l.subnets, ofSubnet, subnet.name)
		if s == nil || err != nil {
			return "", nil, err
		}
		for _, assoc := range t.Associations {
			if sdk.ToString(assoc.SubnetId) == *s.SubnetId {
				return *assoc.RouteTableAssociationId, nil, nil
			}
		}
		return "", nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: &table.id, SubnetId: &subnet.id})
		if codeOf(err) == "Resource.AlreadyAssociated" {
			return subnet.id, nil
		}
		if err != nil {
			return "", err
		}
		return sdk.ToString(out.AssociationId), nil
	}
	return r
}
