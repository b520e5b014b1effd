package aws

import (
	"context"
	"fmt"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func (a *Cloud) internetGateway(l *look, vpc *resource) *resource {
	r := &resource{kind: "internet-gateway", name: "internet"}
	r.find = func() (string, []string, error) {
		g, err := part(l.gateways, ofGateway, r.name)
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

func ofGateway(g ec2types.InternetGateway) (string, []ec2types.Tag, bool) {
	return *g.InternetGatewayId, g.Tags, true
}

func (a *Cloud) elasticAddress(l *look, name string) *resource {
	r := &resource{kind: "elastic-ip", name: name}
	r.find = func() (string, []string, error) {
		e, err := part(l.addresses, ofAddress, name)
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
		return a.until(ctx, 10*time.Minute, func() (bool, string, error) {
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
