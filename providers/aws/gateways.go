package aws

import (
	"context"
	"fmt"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func (a *Cloud) internetGateway(l *look, vpc *resource) *resource {
	r := &resource{kind: "internet-gateway", name: internetPart}
	r.find = func() (string, []string, error) {
		g, err := ourGateway(l)
		switch {
		case g == nil || err != nil:
			return "", nil, err
		case len(g.Attachments) == 0:
			return *g.InternetGatewayId, []string{"attachment"}, nil
		}
		return *g.InternetGatewayId, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{TagSpecifications: a.specified(ec2types.ResourceTypeInternetGateway, r.name)})
		if err != nil {
			return "", err
		}
		return *out.InternetGateway.InternetGatewayId, nil
	}
	r.steps = []step{{name: "attachment", needs: []*resource{vpc}, do: func(ctx context.Context) error {
		_, err := a.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: &r.id, VpcId: &vpc.id})
		if codeOf(err) == "Resource.AlreadyAssociated" {
			return nil
		}
		return err
	}}}
	return r
}

const internetPart = "internet"

// ourGateway is one that is attached to the cluster's VPC, or else to none.
func ourGateway(l *look) (*ec2types.InternetGateway, error) {
	vpc, err := ourVPCID(l)
	if err != nil {
		return nil, err
	}
	of := func(g ec2types.InternetGateway) (string, []ec2types.Tag, bool) {
		elsewhere := func(v ec2types.InternetGatewayAttachment) bool { return vpc != "" && sdk.ToString(v.VpcId) != vpc }
		id, tags, _ := ofGateway(g)
		return id, tags, !slices.ContainsFunc(g.Attachments, elsewhere)
	}
	return part(l.gateways, of, internetPart, func(g ec2types.InternetGateway) bool { return len(g.Attachments) > 0 })
}

func ofGateway(g ec2types.InternetGateway) (string, []ec2types.Tag, bool) {
	return *g.InternetGatewayId, g.Tags, true
}

func (a *Cloud) elasticAddress(l *look, name string) *resource {
	r := &resource{kind: "elastic-ip", name: name}
	r.find = func() (string, []string, error) {
		e, err := ourAddress(l, name)
		if e == nil || err != nil {
			return "", nil, err
		}
		r.value = sdk.ToString(e.PublicIp)
		return *e.AllocationId, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.AllocateAddress(ctx, &ec2.AllocateAddressInput{Domain: ec2types.DomainTypeVpc, TagSpecifications: a.specified(ec2types.ResourceTypeElasticIp, name)})
		if err != nil {
			return "", err
		}
		r.value = sdk.ToString(out.PublicIp)
		return *out.AllocationId, nil
	}
	return r
}

// ourAddress is the one that is in use, where there are two.
func ourAddress(l *look, name string) (*ec2types.Address, error) {
	return part(l.addresses, ofAddress, name, func(e ec2types.Address) bool { return sdk.ToString(e.AssociationId) != "" })
}

func ofAddress(e ec2types.Address) (string, []ec2types.Tag, bool) {
	return *e.AllocationId, e.Tags, true
}

// natGateway lets nodes without public addresses reach the internet. It is needed when it works: AWS takes no route to
// one that is pending.
func (a *Cloud) natGateway(l *look, name string, subnet, address, gateway *resource) *resource {
	r := &resource{kind: "nat-gateway", name: name, detail: "in " + subnet.name, after: []*resource{subnet, address}, needs: []*resource{gateway}}
	r.find = func() (string, []string, error) {
		n, err := part(l.nats, ofNAT, name)
		switch {
		case n == nil || err != nil:
			return "", nil, err
		case n.State == ec2types.NatGatewayStatePending:
			return *n.NatGatewayId, []string{"available"}, nil
		}
		return *n.NatGatewayId, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &subnet.id, AllocationId: &address.id,
			TagSpecifications: a.specified(ec2types.ResourceTypeNatgateway, name)})
		if err != nil {
			return "", err
		}
		return *out.NatGateway.NatGatewayId, nil
	}
	r.steps = []step{{name: "available", do: func(ctx context.Context) error {
		return a.until(ctx, "the NAT gateway "+r.id, 10*time.Minute, func() (bool, string, error) {
			out, err := a.ec2.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{r.id}})
			if missing(err) || err == nil && len(out.NatGateways) == 0 {
				return false, "not there yet", nil
			}
			if err != nil {
				return false, "", err
			}
			n := out.NatGateways[0]
			if n.State == ec2types.NatGatewayStateFailed {
				return false, "", fmt.Errorf("%s has failed: %s: %s: run this again", r.id, sdk.ToString(n.FailureCode), sdk.ToString(n.FailureMessage))
			}
			return n.State == ec2types.NatGatewayStateAvailable, string(n.State), nil
		})
	}}}
	return r
}

func ofNAT(n ec2types.NatGateway) (string, []ec2types.Tag, bool) {
	return *n.NatGatewayId, n.Tags, n.State == ec2types.NatGatewayStatePending || n.State == ec2types.NatGatewayStateAvailable
}

const everywhere = "0.0.0.0/0"

// table leads everything that is not in the VPC to a gateway.
func (a *Cloud) table(l *look, vpc *resource, name string, gateway *resource) *resource {
	r := &resource{kind: "route-table", name: name, detail: everywhere + " by " + gateway.name, after: []*resource{vpc}}
	r.find = func() (string, []string, error) {
		t, err := ourTable(l, name)
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

// ourTable is the one by which subnets go, where there are two.
func ourTable(l *look, name string) (*ec2types.RouteTable, error) {
	return part(l.tables, ofTable, name, func(t ec2types.RouteTable) bool { return len(t.Associations) > 0 })
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

// associate has a subnet's packets go by a table: in place of another one when the table leads somewhere.
func (a *Cloud) associate(l *look, table, subnet *resource) *resource {
	r := &resource{kind: "route", name: subnet.name, detail: "by the table " + table.name, after: []*resource{table, subnet}}
	turn := false // from another table
	r.find = func() (string, []string, error) {
		s, err := part(l.subnets, ofSubnet, subnet.name)
		if s == nil || err != nil {
			return "", nil, err
		}
		tables, err := l.tables()
		id, by := association(tables, *s.SubnetId)
		if by == nil || err != nil || tagOf(by.Tags, partTag) == table.name {
			return id, nil, err
		}
		turn = true
		return id, []string{r.detail}, nil
	}
	r.steps = []step{{name: r.detail, needs: []*resource{table}, do: func(ctx context.Context) error {
		if !turn {
			return nil
		}
		out, err := a.ec2.ReplaceRouteTableAssociation(ctx, &ec2.ReplaceRouteTableAssociationInput{AssociationId: &r.id, RouteTableId: &table.id})
		if err == nil {
			r.id = sdk.ToString(out.NewAssociationId)
		}
		return err
	}}}
	r.create = func(ctx context.Context) (string, error) {
		out, err := a.ec2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: &table.id, SubnetId: &subnet.id})
		if codeOf(err) != "Resource.AlreadyAssociated" {
			if err != nil {
				return "", err
			}
			return sdk.ToString(out.AssociationId), nil
		}
		tables, e := pages(func(next *string) ([]ec2types.RouteTable, *string, error) {
			out, err := a.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []ec2types.Filter{filter("association.subnet-id", subnet.id)}, NextToken: next})
			if err != nil {
				return nil, nil, err
			}
			return out.RouteTables, out.NextToken, nil
		})
		id, by := association(tables, subnet.id)
		switch {
		case e != nil:
			return "", e
		case by == nil:
			return "", fmt.Errorf("%w: %w", errUnseen, err)
		case tagOf(by.Tags, clusterTag) != a.name:
			return "", fmt.Errorf("%s goes by %s, which is not of this cluster: end that association, and run this again", subnet.id, *by.RouteTableId)
		case *by.RouteTableId == table.id: // a run that was cut short came so far
			return id, nil
		}
		turn = true
		return id, nil
	}
	return r
}

// association is that of a subnet, and its table; nil: it has none.
func association(tables []ec2types.RouteTable, subnet string) (id string, by *ec2types.RouteTable) {
	for i, t := range tables {
		for _, s := range t.Associations {
			if sdk.ToString(s.SubnetId) == subnet {
				return sdk.ToString(s.RouteTableAssociationId), &tables[i]
			}
		}
	}
	return "", nil
}
