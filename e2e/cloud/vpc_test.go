package cloud_test

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func (c *clients) group(t *testing.T, vpc, name string) string {
	t.Helper()
	return *ok(c.ec2.CreateSecurityGroup(t.Context(), &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name, VpcId: &vpc}))(t).GroupId
}

// The order in which all can be deleted, and what refuses when it is not kept.
func TestWhatIsInUseIsNotDeleted(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, subnets := c.vpc(t)
	nodes, peers := c.group(t, vpc, "nodes"), c.group(t, vpc, "peers")
	ok(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &nodes, IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &peers}}}}}))(t)
	instance := []string{*c.run(t, subnets[0], 1, nodes).Instances[0].InstanceId}
	eip := ok(c.ec2.AllocateAddress(ctx, &ec2.AllocateAddressInput{}))(t).AllocationId
	nat := ok(c.ec2.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &subnets[0], AllocationId: eip}))(t).NatGateway.NatGatewayId
	table := ok(c.ec2.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &vpc}))(t).RouteTable.RouteTableId
	ok(c.ec2.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table, DestinationCidrBlock: aws.String("0.0.0.0/0"), NatGatewayId: nat}))(t)
	association := ok(c.ec2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: table, SubnetId: &subnets[0]}))(t).AssociationId
	gateways := ok(c.ec2.DescribeInternetGateways(ctx, &ec2.DescribeInternetGatewaysInput{Filters: filter("attachment.vpc-id", vpc)}))(t).InternetGateways
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: subnets, SecurityGroups: []string{peers}}))(t).LoadBalancers[0].LoadBalancerArn
	tg := ok(c.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: aws.String("api"), Port: aws.Int32(1), Protocol: "TCP", VpcId: &vpc}))(t).TargetGroups[0].TargetGroupArn
	ok(c.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb, Port: aws.Int32(1), Protocol: "TCP", DefaultActions: []elbtypes.Action{{Type: "forward", TargetGroupArn: tg}}}))(t)

	settle := func() { ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t) }
	deleteGroup := func(id string) func() error {
		return func() error {
			_, err := c.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			return err
		}
	}
	deleteSubnet := func(i int) func() error {
		return func() error {
			_, err := c.ec2.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &subnets[i]})
			return err
		}
	}
	deletions := map[string]func() error{
		"vpc":     func() error { _, err := c.ec2.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: &vpc}); return err },
		"subnet0": deleteSubnet(0), "subnet1": deleteSubnet(1), "nodes": deleteGroup(nodes), "peers": deleteGroup(peers),
		"detach": func() error {
			_, err := c.ec2.DetachInternetGateway(ctx, &ec2.DetachInternetGatewayInput{InternetGatewayId: gateways[0].InternetGatewayId, VpcId: &vpc})
			return err
		},
		"gateway": func() error {
			_, err := c.ec2.DeleteInternetGateway(ctx, &ec2.DeleteInternetGatewayInput{InternetGatewayId: gateways[0].InternetGatewayId})
			return err
		},
		"address": func() error {
			_, err := c.ec2.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: eip})
			return err
		},
		"table": func() error {
			_, err := c.ec2.DeleteRouteTable(ctx, &ec2.DeleteRouteTableInput{RouteTableId: table})
			return err
		},
		"disassociate": func() error {
			_, err := c.ec2.DisassociateRouteTable(ctx, &ec2.DisassociateRouteTableInput{AssociationId: association})
			return err
		},
		"nat": func() error {
			_, err := c.ec2.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: nat})
			return err
		},
		"instance": func() error {
			_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: instance})
			return err
		},
		"lb": func() error {
			_, err := c.elb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: lb})
			return err
		},
		"targets": func() error {
			_, err := c.elb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: tg})
			return err
		},
	}
	for _, step := range []struct{ what, code string }{
		{"vpc", "DependencyViolation"}, {"subnet0", "DependencyViolation"}, {"subnet1", "DependencyViolation"}, {"nodes", "DependencyViolation"}, {"peers", "DependencyViolation"},
		{"gateway", "DependencyViolation"}, {"detach", "DependencyViolation"}, {"address", "InvalidIPAddress.InUse"}, {"table", "DependencyViolation"}, {"targets", "ResourceInUse"},
		{"lb", ""}, {"lb", ""}, {"targets", ""}, {"instance", ""}, {"peers", "DependencyViolation"}, {"nodes", ""}, {"peers", ""}, {"subnet1", ""}, {"nat", ""}, {"address", ""},
		{"detach", ""}, {"gateway", ""}, {"disassociate", ""}, {"table", ""}, {"subnet0", ""}, {"vpc", ""}, {"vpc", "InvalidVpcID.NotFound"},
	} {
		if code := codeOf(deletions[step.what]()); code != step.code {
			t.Fatalf("delete %s: %q, want %q", step.what, code, step.code)
		}
		settle()
	}
	if left := c.cloud.Resources(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestALoadBalancersInterfacesOutliveIt(t *testing.T) {
	c, ctx := start(t, cloud.Options{Delays: map[string]time.Duration{"network-interface": time.Hour}}), t.Context()
	_, subnets := c.vpc(t)
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: subnets}))(t).LoadBalancers[0].LoadBalancerArn
	ok(c.elb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: lb}))(t)
	refused(c.ec2.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &subnets[0]}))(t, "DependencyViolation")
	left := ok(c.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filter("description", "ELB net/api/*")}))(t).NetworkInterfaces
	if len(left) != 2 {
		t.Errorf("interfaces: %d", len(left))
	}
	refused(c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: left[0].NetworkInterfaceId}))(t, "AuthFailure")
}

func TestANATGatewayWithoutAWayOutFails(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc := ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))(t).Vpc.VpcId
	subnet := ok(c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc, CidrBlock: aws.String("10.0.0.0/24")}))(t).Subnet.SubnetId
	eip := ok(c.ec2.AllocateAddress(ctx, &ec2.AllocateAddressInput{}))(t).AllocationId
	nat := ok(c.ec2.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: subnet, AllocationId: eip}))(t).NatGateway
	if nat.State != "pending" {
		t.Errorf("at first: %s", nat.State)
	}
	got := ok(c.ec2.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{*nat.NatGatewayId}}))(t).NatGateways[0]
	if got.State != "failed" || *got.FailureCode != "Gateway.NotAttached" {
		t.Errorf("at last: %s %v", got.State, got.FailureCode)
	}
}

func TestNetworksOverlapNowhereAndHaveTheirLimits(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, _ := c.vpc(t)
	for cidr, code := range map[string]string{"10.0.8.0/24": "InvalidSubnet.Conflict", "10.1.0.0/24": "InvalidSubnet.Range", "10.0.32.0/29": "InvalidSubnet.Range", "x": "InvalidParameterValue", "10.0.32.0/24": ""} {
		_, err := c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpc, CidrBlock: &cidr})
		if got := codeOf(err); got != code {
			t.Errorf("%s: %q, want %q", cidr, got, code)
		}
	}
	for range 4 {
		ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))(t)
	}
	refused(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))(t, "VpcLimitExceeded")
}

func TestAVPCBringsWhatItCannotBeWithout(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, _ := c.vpc(t)
	groups := ok(c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: filter("vpc-id", vpc)}))(t).SecurityGroups
	tables := ok(c.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: filter("association.main", "true")}))(t).RouteTables
	acls := ok(c.ec2.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: filter("vpc-id", vpc)}))(t).NetworkAcls
	if len(groups) != 1 || len(tables) != 1 || len(acls) != 1 || *groups[0].IpPermissions[0].UserIdGroupPairs[0].GroupId != *groups[0].GroupId || *tables[0].Routes[0].GatewayId != "local" {
		t.Errorf("groups %+v, tables %+v, acls %+v", groups, tables, acls)
	}
	refused(c.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: groups[0].GroupId}))(t, "CannotDelete")
	refused(c.ec2.DeleteRouteTable(ctx, &ec2.DeleteRouteTableInput{RouteTableId: tables[0].RouteTableId}))(t, "DependencyViolation")
	if a := ok(c.ec2.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: &vpc, Attribute: "enableDnsHostnames"}))(t); *a.EnableDnsHostnames.Value {
		t.Error("DNS hostnames are on")
	}
	ok(c.ec2.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: &vpc, EnableDnsHostnames: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))(t)
	if a := ok(c.ec2.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: &vpc, Attribute: "enableDnsHostnames"}))(t); !*a.EnableDnsHostnames.Value {
		t.Error("DNS hostnames are off")
	}
}

func TestRulesAreThereOnceAndGoOneByOne(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, _ := c.vpc(t)
	g := c.group(t, vpc, "nodes")
	permission := func(cidrs ...string) []types.IpPermission {
		p := types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22)}
		for _, cidr := range cidrs {
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: &cidr})
		}
		return []types.IpPermission{p}
	}
	made := ok(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &g, IpPermissions: permission("10.0.0.0/8", "192.0.2.7/32"), TagSpecifications: tagged("security-group-rule", "ssh")}))(t)
	if len(made.SecurityGroupRules) != 2 || *made.SecurityGroupRules[1].CidrIpv4 != "192.0.2.7/32" || *made.SecurityGroupRules[0].Tags[0].Value != "ssh" && *made.SecurityGroupRules[0].Tags[1].Value != "ssh" {
		t.Errorf("rules: %+v", made.SecurityGroupRules)
	}
	refused(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &g, IpPermissions: permission("10.0.0.0/8")}))(t, "InvalidPermission.Duplicate")
	refused(c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &g, IpPermissions: permission("10.9.0.0/16")}))(t, "InvalidPermission.NotFound")
	ok(c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &g, SecurityGroupRuleIds: []string{*made.SecurityGroupRules[0].SecurityGroupRuleId}}))(t)
	rules := ok(c.ec2.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: filter("group-id", g)}))(t).SecurityGroupRules
	rules = slices.DeleteFunc(rules, func(r types.SecurityGroupRule) bool { return *r.IsEgress })
	if len(rules) != 1 || *rules[0].CidrIpv4 != "192.0.2.7/32" {
		t.Errorf("rules: %+v", rules)
	}
	refused(c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("nodes"), Description: aws.String("x"), VpcId: &vpc}))(t, "InvalidGroup.Duplicate")
}

// A zone that AWS does not extend, a subnet that is too small, and one that a load balancer has: none of these will do.
func TestLoadBalancersAndGatewaysWantTheirSubnets(t *testing.T) {
	c, ctx := start(t, cloud.Options{Regions: map[string][]string{"eu-west-1": {"eu-west-1a", "eu-west-1b", "us-east-1c"}}}), t.Context()
	vpc, subnets := c.vpc(t)
	subnet := func(cidr, zone string) string {
		return *ok(c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpc, CidrBlock: &cidr, AvailabilityZone: &zone}))(t).Subnet.SubnetId
	}
	constrained, narrow := subnet("10.0.32.0/24", "us-east-1c"), subnet("10.0.33.0/28", "eu-west-1b")
	eip := ok(c.ec2.AllocateAddress(ctx, &ec2.AllocateAddressInput{}))(t).AllocationId
	refused(c.ec2.CreateNatGateway(ctx, &ec2.CreateNatGatewayInput{SubnetId: &constrained, AllocationId: eip}))(t, "NotAvailableInZone")
	c.run(t, narrow, 4)
	for _, in := range []struct{ subnet, code string }{{constrained, "ValidationError"}, {narrow, "InvalidSubnet"}} {
		refused(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: []string{in.subnet}}))(t, in.code)
	}
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: subnets[:1]}))(t).LoadBalancers[0].LoadBalancerArn
	refused(c.elb.SetSubnets(ctx, &elb.SetSubnetsInput{LoadBalancerArn: lb, Subnets: subnets[1:]}))(t, "InvalidConfigurationRequest")
	if zones := ok(c.elb.SetSubnets(ctx, &elb.SetSubnetsInput{LoadBalancerArn: lb, Subnets: subnets}))(t).AvailabilityZones; len(zones) != 2 {
		t.Errorf("it is in %+v", zones)
	}
}
