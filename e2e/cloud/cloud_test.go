package cloud_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// clients of a cloud, as the SDK has them.
type clients struct {
	cloud *cloud.Cloud
	ec2   *ec2.Client
	elb   *elb.Client
	iam   *iam.Client
	sts   *sts.Client
}

var test = aws.Credentials{AccessKeyID: cloud.TestKeyID, SecretAccessKey: cloud.TestKey.Secret}

// start serves a cloud to the SDK's clients, which try once, so that a test sees each error.
func start(t *testing.T, o cloud.Options) *clients {
	t.Helper()
	c := cloud.New(o)
	t.Cleanup(func() {
		for _, call := range c.Calls() {
			if len(call.Ignored) > 0 {
				t.Errorf("%s: nothing was made of %v", call.Action, call.Ignored)
			}
		}
	})
	return connect(t, c, test)
}

func connect(t *testing.T, c *cloud.Cloud, credentials aws.Credentials) *clients {
	t.Helper()
	s := httptest.NewServer(c)
	t.Cleanup(c.Close)
	t.Cleanup(s.Close)
	config := aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(s.URL), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil })}
	return &clients{c, ec2.NewFromConfig(config), elb.NewFromConfig(config), iam.NewFromConfig(config), sts.NewFromConfig(config)}
}

// ok is the result of a call that has to succeed.
func ok[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused says that a call must have failed with that code.
func refused[T any](_ T, err error) func(*testing.T, string) {
	return func(t *testing.T, code string) {
		t.Helper()
		if got := codeOf(err); got != code {
			t.Errorf("got %q (%v), want %q", got, err, code)
		}
	}
}

func codeOf(err error) string {
	if e := smithy.APIError(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// vpc makes a VPC with a way out, and returns it and a subnet in each of two zones.
func (c *clients) vpc(t *testing.T) (vpc string, subnets []string) {
	t.Helper()
	ctx := t.Context()
	vpc = *ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), TagSpecifications: tagged("vpc", "test")}))(t).Vpc.VpcId
	for i, zone := range []string{"eu-west-1a", "eu-west-1b"} {
		cidr := []string{"10.0.0.0/20", "10.0.16.0/20"}[i]
		subnets = append(subnets, *ok(c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpc, CidrBlock: &cidr, AvailabilityZone: &zone, TagSpecifications: tagged("subnet", zone)}))(t).Subnet.SubnetId)
	}
	igw := ok(c.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{}))(t).InternetGateway.InternetGatewayId
	ok(c.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: igw, VpcId: &vpc}))(t)
	return vpc, subnets
}

func tagged(what types.ResourceType, name string) []types.TagSpecification {
	return []types.TagSpecification{{ResourceType: what, Tags: []types.Tag{{Key: aws.String("Name"), Value: &name}, {Key: aws.String("cluster"), Value: aws.String("prod")}}}}
}

func filter(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: &name, Values: values}}
}

// run starts so many instances.
func (c *clients) run(t *testing.T, subnet string, n int32, groups ...string) *ec2.RunInstancesOutput {
	t.Helper()
	return ok(c.ec2.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: "t3.medium", SubnetId: &subnet, MinCount: &n, MaxCount: &n, SecurityGroupIds: groups,
		TagSpecifications: tagged("instance", "node")}))(t)
}

// image is the newest Ubuntu of Canonical's.
func (c *clients) image(t *testing.T) *string {
	t.Helper()
	all := ok(c.ec2.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"099720109477"}, Filters: append(
		filter("name", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-*"), filter("architecture", "x86_64")...)}))(t).Images
	if len(all) != 2 {
		t.Fatalf("images: %d", len(all))
	}
	return all[1].ImageId
}

func TestTheSDKMakesANetworkWithMachinesBehindALoadBalancer(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	if id := ok(c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))(t); *id.Account != "111122223333" {
		t.Errorf("account %s", *id.Account)
	}
	vpc, subnets := c.vpc(t)
	sg := ok(c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("nodes"), Description: aws.String("of a test"), VpcId: &vpc}))(t).GroupId
	port := aws.Int32(6443)
	ok(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: sg, IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: port, ToPort: port, IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0"), Description: aws.String("all")}}},
		{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: sg}}}}}))(t)
	group := ok(c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*sg}}))(t).SecurityGroups[0]
	if len(group.IpPermissions) != 2 || len(group.IpPermissionsEgress) != 1 || *group.IpPermissions[0].IpRanges[0].Description != "all" || *group.IpPermissions[1].UserIdGroupPairs[0].GroupId != *sg {
		t.Errorf("permissions: %+v", group.IpPermissions)
	}
	id := *c.run(t, subnets[0], 1, *sg).Instances[0].InstanceId
	if err := ec2.NewInstanceRunningWaiter(c.ec2).Wait(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}}, 1e10); err != nil {
		t.Fatal(err)
	}
	i := ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: append(filter("tag:cluster", "pr*"), filter("instance-state-name", "running")...)}))(t).Reservations[0].Instances[0]
	if *i.PrivateIpAddress != "10.0.0.4" || *i.PrivateDnsName != "ip-10-0-0-4.eu-west-1.compute.internal" || *i.SecurityGroups[0].GroupId != *sg || *i.NetworkInterfaces[0].Groups[0].GroupId != *sg ||
		*i.Placement.AvailabilityZone != "eu-west-1a" || i.BlockDeviceMappings[0].Ebs.VolumeId == nil {
		t.Errorf("instance: %+v", i)
	}
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: subnets, SecurityGroups: []string{*sg},
		Tags: []elbtypes.Tag{{Key: aws.String("cluster"), Value: aws.String("prod")}}}))(t).LoadBalancers[0]
	tg := ok(c.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: aws.String("api"), Port: port, Protocol: "TCP", VpcId: &vpc, TargetType: "instance",
		HealthCheckProtocol: "HTTPS", HealthCheckPath: aws.String("/readyz")}))(t).TargetGroups[0].TargetGroupArn
	ok(c.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancerArn, Port: port, Protocol: "TCP",
		DefaultActions: []elbtypes.Action{{Type: "forward", TargetGroupArn: tg}}}))(t)
	ok(c.elb.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: tg, Targets: []elbtypes.TargetDescription{{Id: &id}}}))(t)
	ok(c.elb.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: tg, Attributes: []elbtypes.TargetGroupAttribute{
		{Key: aws.String("preserve_client_ip.enabled"), Value: aws.String("false")}}}))(t)
	groups := ok(c.elb.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{LoadBalancerArn: lb.LoadBalancerArn}))(t).TargetGroups
	if len(groups) != 1 || *groups[0].HealthCheckPath != "/readyz" || groups[0].LoadBalancerArns[0] != *lb.LoadBalancerArn {
		t.Errorf("target groups: %+v", groups)
	}
	tags := ok(c.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{*lb.LoadBalancerArn}}))(t).TagDescriptions
	if *tags[0].Tags[0].Value != "prod" {
		t.Errorf("tags: %+v", tags)
	}
	if health := ok(c.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: tg}))(t).TargetHealthDescriptions; *health[0].Target.Id != id || *health[0].Target.Port != 6443 {
		t.Errorf("health: %+v", health)
	}
}

func TestTheSDKMakesARoleAndItsProfile(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	name, text := aws.String("node"), aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}`)
	ok(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: text}))(t)
	ok(c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: name, PolicyDocument: text}))(t)
	ok(c.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}))(t)
	ok(c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))(t)
	if p := ok(c.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name}))(t); *p.InstanceProfile.Roles[0].RoleName != "node" {
		t.Errorf("profile: %+v", p)
	}
	if p := ok(c.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: name}))(t); len(p.PolicyNames) != 1 || p.PolicyNames[0] != "node" {
		t.Errorf("policies: %+v", p)
	}
	refused(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: text}))(t, "EntityAlreadyExists")
	refused(c.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}))(t, "DeleteConflict")
	refused(c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("nobody")}))(t, "NoSuchEntity")
}
