package cloud_test

import (
	"encoding/base64"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestALaunchTemplateSaysWhatTheRequestDoesNot(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, subnets := c.vpc(t)
	g := c.group(t, vpc, "nodes")
	key := ok(c.ec2.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("prod"), KeyType: "ed25519"}))(t)
	if key.KeyMaterial == nil {
		t.Error("no private key")
	}
	data := types.RequestLaunchTemplateData{ImageId: c.image(t), InstanceType: "t3.medium", KeyName: key.KeyName, SecurityGroupIds: []string{g},
		MetadataOptions:     &types.LaunchTemplateInstanceMetadataOptionsRequest{HttpTokens: "required", HttpPutResponseHopLimit: aws.Int32(2)},
		BlockDeviceMappings: []types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.LaunchTemplateEbsBlockDeviceRequest{VolumeSize: aws.Int32(40), Encrypted: aws.Bool(true)}}},
		TagSpecifications:   []types.LaunchTemplateTagSpecificationRequest{{ResourceType: "volume", Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}},
		UserData:            aws.String(base64.StdEncoding.EncodeToString([]byte("#cloud-config\n")))}
	lt := ok(c.ec2.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("prod-nodes"), LaunchTemplateData: &data}))(t).LaunchTemplate
	data.InstanceType = "t3.large"
	ok(c.ec2.CreateLaunchTemplateVersion(ctx, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateId: lt.LaunchTemplateId, LaunchTemplateData: &data}))(t)
	versions := ok(c.ec2.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: lt.LaunchTemplateId, Versions: []string{"$Latest"}}))(t).LaunchTemplateVersions
	if d := versions[0].LaunchTemplateData; len(versions) != 1 || d.InstanceType != "t3.large" || d.MetadataOptions.HttpTokens != "required" || d.SecurityGroupIds[0] != g ||
		*d.BlockDeviceMappings[0].Ebs.VolumeSize != 40 || *d.TagSpecifications[0].Tags[0].Key != "a" {
		t.Errorf("versions: %+v", versions)
	}
	for version, kind := range map[string]types.InstanceType{"$Default": "t3.medium", "2": "t3.large"} {
		out := ok(c.ec2.RunInstances(ctx, &ec2.RunInstancesInput{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: lt.LaunchTemplateId, Version: &version},
			SubnetId: &subnets[1], MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}))(t)
		i := out.Instances[0]
		if i.InstanceType != kind || *i.KeyName != "prod" || *i.SecurityGroups[0].GroupId != g || i.MetadataOptions.HttpTokens != "required" || *i.MetadataOptions.HttpPutResponseHopLimit != 2 {
			t.Errorf("version %s: %+v", version, i)
		}
		volume := ok(c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*i.BlockDeviceMappings[0].Ebs.VolumeId}}))(t).Volumes[0]
		if *volume.Size != 40 || !*volume.Encrypted || *volume.Tags[0].Value != "b" {
			t.Errorf("volume: %+v", volume)
		}
	}
	in := &ec2.RunInstancesInput{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: lt.LaunchTemplateName}, InstanceType: "t3.small", SubnetId: &subnets[1], MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
	if i := ok(c.ec2.RunInstances(ctx, in))(t).Instances[0]; i.InstanceType != "t3.small" {
		t.Errorf("the request says t3.small, and it is a %s", i.InstanceType)
	}
}

func TestEC2SeesAnInstanceProfileLaterThanIAM(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	_, subnets := c.vpc(t)
	c.cloud.Change(func(o *cloud.Options) { o.Lag = 1 })
	name := aws.String("node")
	ok(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(`{"Statement":[]}`)}))(t)
	refused(c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: name}))(t, "NoSuchEntity")
	ok(c.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}))(t)
	refused(c.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name}))(t, "NoSuchEntity")
	ok(c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))(t)
	in := &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: "t3.medium", SubnetId: &subnets[0], MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: name}}
	refused(c.ec2.RunInstances(ctx, in))(t, "InvalidParameterValue")
	if i := ok(c.ec2.RunInstances(ctx, in))(t).Instances[0]; *i.IamInstanceProfile.Arn != "arn:aws:iam::111122223333:instance-profile/node" {
		t.Errorf("profile: %+v", i.IamInstanceProfile)
	}
}

func TestATerminatedInstanceIsSeenWithoutItsNetwork(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	_, subnets := c.vpc(t)
	id := []string{*c.run(t, subnets[0], 1).Instances[0].InstanceId}
	ok(c.ec2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &id[0], SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)}}))(t)
	if i := ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: id}))(t).Reservations[0].Instances[0]; *i.SourceDestCheck || *i.NetworkInterfaces[0].SourceDestCheck {
		t.Error("the source/destination check is on")
	}
	ok(c.ec2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &id[0], DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))(t)
	refused(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: id}))(t, "OperationNotPermitted")
	ok(c.ec2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &id[0], DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(false)}}))(t)
	ok(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: id}))(t)
	i := ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: id}))(t).Reservations[0].Instances[0]
	if i.State.Name != "terminated" || i.VpcId != nil || len(i.NetworkInterfaces) != 0 || len(i.Tags) == 0 {
		t.Errorf("instance: %+v", i)
	}
	if n := len(ok(c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{}))(t).Volumes); n != 0 {
		t.Errorf("%d volumes", n)
	}
}

func TestVolumesOfAnInstanceStayUnlessTheyGoWithIt(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	_, subnets := c.vpc(t)
	id := *c.run(t, subnets[0], 1).Instances[0].InstanceId
	ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}))(t)
	v := ok(c.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("eu-west-1a"), Size: aws.Int32(10), VolumeType: "gp3", TagSpecifications: tagged("volume", "pvc")}))(t).VolumeId
	ok(c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*v}}))(t)
	ok(c.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: v, InstanceId: &id, Device: aws.String("/dev/xvdba")}))(t)
	refused(c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v}))(t, "VolumeInUse")
	ok(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}))(t)
	left := ok(c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: filter("status", "available")}))(t).Volumes
	if len(left) != 1 || *left[0].VolumeId != *v {
		t.Errorf("volumes: %+v", left)
	}
	ok(c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v}))(t)
}

func TestLoadBalancersAreThereOnceByName(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, subnets := c.vpc(t)
	in := &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: subnets}
	one := ok(c.elb.CreateLoadBalancer(ctx, in))(t).LoadBalancers[0]
	if two := ok(c.elb.CreateLoadBalancer(ctx, in))(t).LoadBalancers[0]; *one.LoadBalancerArn != *two.LoadBalancerArn || *one.DNSName != *two.DNSName {
		t.Errorf("%s, then %s", *one.LoadBalancerArn, *two.LoadBalancerArn)
	}
	in.Scheme = "internal"
	refused(c.elb.CreateLoadBalancer(ctx, in))(t, "DuplicateLoadBalancerName")
	// What was made without groups never has some.
	refused(c.elb.SetSecurityGroups(ctx, &elb.SetSecurityGroupsInput{LoadBalancerArn: one.LoadBalancerArn, SecurityGroups: []string{c.group(t, vpc, "lb")}}))(t, "InvalidConfigurationRequest")
	refused(c.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{"nobody"}}))(t, "LoadBalancerNotFound")

	tg := ok(c.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: aws.String("api"), Port: aws.Int32(6443), Protocol: "TCP", VpcId: &vpc}))(t).TargetGroups[0].TargetGroupArn
	id := c.run(t, subnets[0], 1).Instances[0].InstanceId
	c.cloud.Change(func(o *cloud.Options) { o.Delay = 1e12 })
	pending := c.run(t, subnets[0], 1).Instances[0].InstanceId
	register := func(id *string) *elb.RegisterTargetsInput {
		return &elb.RegisterTargetsInput{TargetGroupArn: tg, Targets: []elbtypes.TargetDescription{{Id: id}}}
	}
	refused(c.elb.RegisterTargets(ctx, register(pending)))(t, "InvalidTarget")
	ok(c.elb.RegisterTargets(ctx, register(id)))(t)
	if h := ok(c.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: tg}))(t).TargetHealthDescriptions[0].TargetHealth; h.State != "unused" {
		t.Errorf("health behind no load balancer: %s", h.State)
	}
}
