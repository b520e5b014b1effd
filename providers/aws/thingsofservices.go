package aws

import (
	"context"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// balancers are the load balancers with the cluster's tag, or with that of its Services.
func (a *Cloud) balancers(ctx context.Context) ([]thing, error) {
	names, in := map[string]string{}, map[string]string{}
	all, err := pages(func(next *string) (arns []string, _ *string, err error) {
		out, err := a.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Marker: next})
		if err != nil {
			return nil, nil, err
		}
		for _, b := range out.LoadBalancers {
			arns = append(arns, *b.LoadBalancerArn)
			names[*b.LoadBalancerArn], in[*b.LoadBalancerArn] = sdk.ToString(b.LoadBalancerName), sdk.ToString(b.VpcId)
		}
		return arns, out.NextMarker, nil
	})
	return a.tagged(ctx, all, in, err, func(arn string) thing {
		return thing{"load-balancer", arn, names[arn], func(ctx context.Context) error {
			_, err := a.elb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: &arn})
			return err
		}, false}
	})
}

func (a *Cloud) targetGroups(ctx context.Context) ([]thing, error) {
	names, in := map[string]string{}, map[string]string{}
	all, err := pages(func(next *string) (arns []string, _ *string, err error) {
		out, err := a.elb.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{Marker: next})
		if err != nil {
			return nil, nil, err
		}
		for _, t := range out.TargetGroups {
			arns = append(arns, *t.TargetGroupArn)
			names[*t.TargetGroupArn], in[*t.TargetGroupArn] = sdk.ToString(t.TargetGroupName), sdk.ToString(t.VpcId)
		}
		return arns, out.NextMarker, nil
	})
	return a.tagged(ctx, all, in, err, func(arn string) thing {
		return thing{"target-group", arn, names[arn], func(ctx context.Context) error {
			_, err := a.elb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: &arn})
			return err
		}, false}
	})
}

// tagged are those that carry the cluster's tag, or in its VPC that of its controllers.
func (a *Cloud) tagged(ctx context.Context, arns []string, in map[string]string, err error, as func(arn string) thing) (all []thing, _ error) {
	key, value := a.kubernetes()
	for some := range slices.Chunk(arns, 20) {
		tags, e := a.tagsOf(ctx, some)
		if e != nil {
			return nil, e
		}
		for _, d := range tags {
			if arn := *d.ResourceArn; elbTag(d.Tags, clusterTag) == a.name || elbTag(d.Tags, key) == value && slices.Contains(a.vpcs, in[arn]) {
				all = append(all, as(arn))
			}
		}
	}
	return all, err
}

// tagsOf asks for the tags of up to twenty at a time. Where one has just gone AWS tells nothing of the others, so they are asked for again without it.
func (a *Cloud) tagsOf(ctx context.Context, arns []string) ([]elbtypes.TagDescription, error) {
	out, err := a.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: arns})
	switch {
	case err == nil:
		return out.TagDescriptions, nil
	case !missing(err):
		return nil, err
	case len(arns) == 1:
		return nil, nil
	}
	one, err := a.tagsOf(ctx, arns[:len(arns)/2])
	if err != nil {
		return nil, err
	}
	other, err := a.tagsOf(ctx, arns[len(arns)/2:])
	return append(one, other...), err
}

// findVPC remembers the ids of the cluster's VPC, for when it is no more, and of one that was made beside it, unseen; none: there was none.
func (a *Cloud) findVPC(l *look) error {
	if given := a.aws.Network.VPC; given != "" {
		a.vpcs = []string{given}
	}
	if len(a.vpcs) > 0 {
		return nil
	}
	all, err := l.vpcs()
	for _, v := range all {
		a.vpcs = append(a.vpcs, *v.VpcId)
	}
	return err
}

// ofCluster are filters for what carries the cluster's own tag, and for what its controllers have made in its VPC: others in the
// account, EKS say, may have a cluster of the same name, and give what is theirs the same tag.
func (a *Cloud) ofCluster() [][]ec2types.Filter {
	if len(a.vpcs) == 0 {
		return [][]ec2types.Filter{a.mine()}
	}
	key, value := a.kubernetes()
	return [][]ec2types.Filter{a.mine(), {filter("tag:"+key, value), filter("vpc-id", a.vpcs...)}}
}

// volumes are those that are left when the machines are gone. They lie in no VPC: the EBS driver gives those of claims the cluster's own tag.
func (a *Cloud) volumes(ctx context.Context) ([]thing, error) {
	return pages(func(next *string) (all []thing, _ *string, err error) {
		out, err := a.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: a.mine(), NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		for _, v := range out.Volumes {
			if slices.ContainsFunc(v.Attachments, func(t ec2types.VolumeAttachment) bool { return sdk.ToBool(t.DeleteOnTermination) }) {
				continue // it goes with its machine
			}
			all = append(all, thing{"volume", *v.VolumeId, tagOf(v.Tags, "kubernetes.io/created-for/pvc/name"), func(ctx context.Context) error {
				_, err := a.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v.VolumeId})
				return err
			}, v.State == ec2types.VolumeStateDeleting})
		}
		return all, out.NextToken, nil
	})
}

// interfaces are those that nobody uses any more.
func (a *Cloud) interfaces(ctx context.Context) ([]thing, error) {
	return a.both(func(f []ec2types.Filter, next *string) (all []thing, _ *string, err error) {
		out, err := a.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: append(slices.Clone(f), filter("status", "available")), NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		for _, n := range out.NetworkInterfaces {
			all = append(all, thing{"network-interface", *n.NetworkInterfaceId, "", func(ctx context.Context) error {
				_, err := a.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: n.NetworkInterfaceId})
				return err
			}, false})
		}
		return all, out.NextToken, nil
	})
}

// both asks for what has the one tag or the other.
func (a *Cloud) both(ask func(f []ec2types.Filter, next *string) ([]thing, *string, error)) (all []thing, err error) {
	for _, f := range a.ofCluster() {
		some, err := pages(func(next *string) ([]thing, *string, error) { return ask(f, next) })
		if err != nil {
			return nil, err
		}
		for _, t := range some {
			if !slices.ContainsFunc(all, func(have thing) bool { return have.id == t.id }) {
				all = append(all, t)
			}
		}
	}
	return all, nil
}
