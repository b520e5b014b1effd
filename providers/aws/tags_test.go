package aws

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestTagsOfTheDocumentComeToWhatIsThere(t *testing.T) {
	s := start(t, cloud.Options{})
	up(t, "tags: {cost: one}\n"+small)
	const document = "tags: {cost: two, team: a}\n" + small
	if plan := planned(t, document); plan != "change tags of the document: cost=two, team=a\n" {
		t.Errorf("it would %s", plan)
	}
	a, _, machines := up(t, document)
	before := len(s.Calls())
	if plan := planned(t, document); plan != "nothing\n" {
		t.Errorf("then it would %s", plan)
	}
	if calls := s.Calls()[before:]; len(calls) > 12 {
		t.Errorf("a run with nothing to do makes %d calls: %s", len(calls), actions(calls))
	}
	l, ctx := a.look(t.Context()), t.Context()
	mine := []ec2types.Filter{filter("tag:cost", "two"), filter("tag:team", "a")}
	volumes, err := a.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: mine})
	if err != nil || len(volumes.Volumes) != len(machines) {
		t.Errorf("%v, %v", volumes, err)
	}
	nats, err := a.ec2.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{Filter: mine})
	if err != nil || len(nats.NatGateways) != 1 {
		t.Errorf("%v, %v", nats, err)
	}
	b, err := l.balancer()
	if err != nil {
		t.Fatal(err)
	}
	tags, err := a.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{*b.LoadBalancerArn}})
	if err != nil || elbTag(tags.TagDescriptions[0].Tags, "cost") != "two" {
		t.Errorf("%v, %v", tags, err)
	}
	name := a.profileName()
	role, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil || iamTag(role.Role.Tags, "cost") != "two" {
		t.Errorf("%v, %v", role, err)
	}
}
