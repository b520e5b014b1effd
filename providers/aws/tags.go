package aws

import (
	"context"
	"maps"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// tagging brings the document's tags to what was made before it had them. What every run looks at tells whether some are lacking, so it gets them last.
func (a *Cloud) tagging(ctx context.Context, l *look) *resource {
	r := &resource{kind: "tags", name: "of the document"}
	var seen []string // that lack some, of what every run looks at
	r.find = func() (string, []string, error) {
		lacks := map[string]bool{}
		note := func(ids []string, tags map[string]bool) {
			seen = append(seen, ids...)
			maps.Copy(lacks, tags)
		}
		for _, err := range []error{untagged(a, l.vpcs, ofVPC, note), untagged(a, l.subnets, ofSubnet, note), untagged(a, l.tables, ofTable, note),
			untagged(a, l.groups, ofGroup, note), untagged(a, l.instances, ofInstance, note)} {
			if err != nil {
				return "", nil, err
			}
		}
		return r.name, sorted(lacks), nil
	}
	r.mend = func(ctx context.Context) error {
		var others []string
		note := func(ids []string, _ map[string]bool) { others = append(others, ids...) }
		volumes := once(func(next *string) ([]ec2types.Volume, *string, error) {
			out, err := a.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: append(a.mine(), filter("tag-key", partTag)), NextToken: next})
			if err != nil {
				return nil, nil, err
			}
			return out.Volumes, out.NextToken, nil
		})
		for _, err := range []error{untagged(a, l.gateways, ofGateway, note), untagged(a, l.nats, ofNAT, note), untagged(a, l.addresses, ofAddress, note),
			untagged(a, l.keys, func(k ec2types.KeyPairInfo) (string, []ec2types.Tag, bool) { return *k.KeyPairId, k.Tags, true }, note),
			untagged(a, l.templates, func(t ec2types.LaunchTemplate) (string, []ec2types.Tag, bool) {
				return *t.LaunchTemplateId, t.Tags, true
			}, note),
			untagged(a, volumes, func(v ec2types.Volume) (string, []ec2types.Tag, bool) { return *v.VolumeId, v.Tags, true }, note),
			a.tagBalancer(ctx, l), a.tagIdentity(ctx, l)} {
			if err != nil {
				return err
			}
		}
		var tags []ec2types.Tag
		for _, k := range sorted(a.aws.Tags) {
			tags = append(tags, ec2types.Tag{Key: &k, Value: sdk.String(a.aws.Tags[k])})
		}
		for some := range slices.Chunk(append(others, seen...), 500) {
			if _, err := a.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: some, Tags: tags}); err != nil {
				return err
			}
		}
		return nil
	}
	return r
}

// untagged notes the ids of what is ours and lacks tags of the document, and which.
func untagged[T any](a *Cloud, list func() ([]T, error), is func(T) (string, []ec2types.Tag, bool), note func(ids []string, lacks map[string]bool)) error {
	all, err := list()
	for _, x := range all {
		id, tags, there := is(x)
		if !there || tagOf(tags, clusterTag) != a.name {
			continue
		}
		lacks := map[string]bool{}
		for k, v := range a.aws.Tags {
			if !slices.ContainsFunc(tags, func(t ec2types.Tag) bool { return sdk.ToString(t.Key) == k && sdk.ToString(t.Value) == v }) {
				lacks[k+"="+v] = true
			}
		}
		if len(lacks) > 0 {
			note([]string{id}, lacks)
		}
	}
	return err
}

func (a *Cloud) tagBalancer(ctx context.Context, l *look) error {
	var arns []string
	b, err := l.balancer()
	if err != nil {
		return err
	}
	if b != nil {
		arns = append(arns, *b.LoadBalancerArn)
	}
	t, err := l.target()
	if t != nil {
		arns = append(arns, *t.TargetGroupArn)
	}
	if err != nil || len(arns) == 0 {
		return err
	}
	var tags []elbtypes.Tag
	for _, k := range sorted(a.aws.Tags) {
		tags = append(tags, elbtypes.Tag{Key: &k, Value: sdk.String(a.aws.Tags[k])})
	}
	_, err = a.elb.AddTags(ctx, &elb.AddTagsInput{ResourceArns: arns, Tags: tags})
	return err
}

// tagIdentity tags the profile and the role that are made for control planes.
func (a *Cloud) tagIdentity(ctx context.Context, l *look) error {
	if a.aws.ControlPlane.InstanceProfile != "" {
		return nil
	}
	out, err := l.profile()
	if err != nil || !hasRole(out.InstanceProfile, a.profileName()) {
		return nil // it is being made, or will be
	}
	name, tags := a.profileName(), a.iamTags(planesPool)
	if _, err := a.iam.TagRole(ctx, &iam.TagRoleInput{RoleName: &name, Tags: tags}); err != nil {
		return err
	}
	_, err = a.iam.TagInstanceProfile(ctx, &iam.TagInstanceProfileInput{InstanceProfileName: &name, Tags: tags})
	return err
}
