package aws

import (
	"context"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"
)

// things are all that is there of the cluster, or of some kinds, level by level: what a level has must be gone before the next can go.
func (a *Cloud) things(ctx context.Context, of map[string]bool) ([][]thing, error) {
	if err := a.known(); err != nil {
		return nil, err
	}
	l := a.lookAtAll(ctx)
	if err := a.findVPC(l); err != nil {
		return nil, explain(err)
	}
	var balancers, targets, instances, volumes, interfaces, nats, addresses, groups, tables, subnets, gateways, vpcs, templates, keys, profiles []thing
	var g errgroup.Group
	for _, list := range []struct {
		kind string
		into *[]thing
		ask  func() ([]thing, error)
	}{
		{"load-balancer", &balancers, func() ([]thing, error) { return a.balancers(ctx) }},
		{"target-group", &targets, func() ([]thing, error) { return a.targetGroups(ctx) }},
		{"instance", &instances, func() ([]thing, error) {
			return things(l.instances, func(i ec2types.Instance) (thing, bool) {
				ending := i.State.Name == ec2types.InstanceStateNameShuttingDown
				return thing{"instance", *i.InstanceId, tagOf(i.Tags, partTag), func(ctx context.Context) error {
					_, err := a.terminate(ctx, *i.InstanceId)
					return err
				}, ending}, i.State.Name != ec2types.InstanceStateNameTerminated
			})
		}},
		{"volume", &volumes, func() ([]thing, error) { return a.volumes(ctx) }},
		{"network-interface", &interfaces, func() ([]thing, error) { return a.interfaces(ctx) }},
		{"nat-gateway", &nats, func() ([]thing, error) {
			return things(l.nats, func(n ec2types.NatGateway) (thing, bool) {
				return thing{"nat-gateway", *n.NatGatewayId, tagOf(n.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: n.NatGatewayId})
					return err
				}, n.State == ec2types.NatGatewayStateDeleting}, n.State != ec2types.NatGatewayStateDeleted && n.State != ec2types.NatGatewayStateFailed
			})
		}},
		{"elastic-ip", &addresses, func() ([]thing, error) {
			return things(l.addresses, func(e ec2types.Address) (thing, bool) {
				return thing{"elastic-ip", *e.AllocationId, tagOf(e.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: e.AllocationId})
					return err
				}, false}, true
			})
		}},
		{"security-group", &groups, func() ([]thing, error) { return a.securityGroups(ctx) }},
		{"route-table", &tables, func() ([]thing, error) {
			return things(l.tables, func(t ec2types.RouteTable) (thing, bool) {
				return thing{"route-table", *t.RouteTableId, tagOf(t.Tags, partTag), func(ctx context.Context) error {
					for _, s := range t.Associations {
						if _, err := a.ec2.DisassociateRouteTable(ctx, &ec2.DisassociateRouteTableInput{AssociationId: s.RouteTableAssociationId}); err != nil && !missing(err) {
							return err
						}
					}
					_, err := a.ec2.DeleteRouteTable(ctx, &ec2.DeleteRouteTableInput{RouteTableId: t.RouteTableId})
					return err
				}, false}, true
			})
		}},
		{"subnet", &subnets, func() ([]thing, error) {
			return things(l.subnets, func(s ec2types.Subnet) (thing, bool) {
				return thing{"subnet", *s.SubnetId, tagOf(s.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: s.SubnetId})
					return err
				}, false}, true
			})
		}},
		{"internet-gateway", &gateways, func() ([]thing, error) {
			return things(l.gateways, func(g ec2types.InternetGateway) (thing, bool) {
				return thing{"internet-gateway", *g.InternetGatewayId, tagOf(g.Tags, partTag), func(ctx context.Context) error {
					for _, v := range g.Attachments {
						if _, err := a.ec2.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: g.InternetGatewayId, VpcId: v.VpcId}); err != nil && codeOf(err) != "Gateway.NotAttached" && !missing(err) {
							return err
						}
					}
					_, err := a.ec2.DeleteInternetGateway(ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: g.InternetGatewayId})
					return err
				}, false}, true
			})
		}},
		{"vpc", &vpcs, func() ([]thing, error) {
			return things(l.vpcs, func(v ec2types.Vpc) (thing, bool) {
				return thing{"vpc", *v.VpcId, tagOf(v.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: v.VpcId})
					return err
				}, false}, true
			})
		}},
		{"launch-template", &templates, func() ([]thing, error) {
			return things(l.templates, func(t ec2types.LaunchTemplate) (thing, bool) {
				return thing{"launch-template", *t.LaunchTemplateId, tagOf(t.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: t.LaunchTemplateId})
					return err
				}, false}, true
			})
		}},
		{"key-pair", &keys, func() ([]thing, error) {
			return things(l.keys, func(k ec2types.KeyPairInfo) (thing, bool) {
				return thing{"key-pair", *k.KeyPairId, tagOf(k.Tags, partTag), func(ctx context.Context) error {
					_, err := a.ec2.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyPairId: k.KeyPairId})
					return err
				}, false}, true
			})
		}},
		{"instance-profile", &profiles, func() ([]thing, error) { return a.identities(ctx) }},
	} {
		if of != nil && !of[list.kind] {
			continue
		}
		g.Go(func() (err error) {
			*list.into, err = list.ask()
			return explain(err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return [][]thing{slices.Concat(balancers, instances, templates), slices.Concat(targets, volumes, nats, interfaces), addresses, groups, slices.Concat(keys, profiles), tables, subnets, gateways, vpcs}, nil
}

func things[T any](list func() ([]T, error), as func(T) (thing, bool)) (all []thing, err error) {
	some, err := list()
	for _, x := range some {
		if t, there := as(x); there {
			all = append(all, t)
		}
	}
	return all, err
}

// lookAtAll finds everything by its tags alone, whatever the document says: what it names by id does not carry them.
func (a *Cloud) lookAtAll(ctx context.Context) *look {
	own := *a
	own.aws.Network.VPC = ""
	return own.look(ctx)
}

// securityGroups are emptied before they go: two that name each other hold each other.
func (a *Cloud) securityGroups(ctx context.Context) ([]thing, error) {
	return a.both(func(f []ec2types.Filter, next *string) (all []thing, _ *string, err error) {
		out, err := a.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: f, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		for _, g := range out.SecurityGroups {
			all = append(all, thing{"security-group", *g.GroupId, sdk.ToString(g.GroupName), func(ctx context.Context) error {
				if len(g.IpPermissions) > 0 {
					if _, err := a.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: g.GroupId, IpPermissions: g.IpPermissions}); err != nil && !missing(err) {
						return err
					}
				}
				_, err := a.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: g.GroupId})
				return err
			}, false})
		}
		return all, out.NextToken, nil
	})
}
