package aws

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// givenNetwork is a VPC, 172.20.0.0/16, with an internet gateway and two subnets in each of two zones: first two to which no
// route leads from the internet, then two that are public, in which machines get no public address of themselves.
func givenNetwork(t *testing.T, a *Cloud) (vpc string, subnets []string) {
	t.Helper()
	ctx := t.Context()
	must := func(do func() error) {
		t.Helper()
		if err := a.settle(ctx, do); err != nil {
			t.Fatal(err)
		}
	}
	must(func() error {
		out, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: sdk.String("172.20.0.0/16")})
		if err == nil {
			vpc = *out.Vpc.VpcId
		}
		return err
	})
	var table, gateway *string
	must(func() error {
		out, err := a.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{})
		if err == nil {
			gateway = out.InternetGateway.InternetGatewayId
			_, err = a.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{VpcId: &vpc, InternetGatewayId: gateway})
		}
		return err
	})
	must(func() error {
		out, err := a.ec2.CreateRouteTable(ctx, &ec2.CreateRouteTableInput{VpcId: &vpc})
		if err == nil {
			table = out.RouteTable.RouteTableId
			_, err = a.ec2.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table, GatewayId: gateway, DestinationCidrBlock: sdk.String(everywhere)})
		}
		return err
	})
	for i, zone := range []string{"eu-west-1a", "eu-west-1b", "eu-west-1a", "eu-west-1b"} {
		must(func() error {
			out, err := a.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &vpc, AvailabilityZone: &zone, CidrBlock: sdk.String(fmt.Sprintf("172.20.%d.0/24", i))})
			if err == nil {
				subnets = append(subnets, *out.Subnet.SubnetId)
			}
			if err == nil && i > 1 {
				_, err = a.ec2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: table, SubnetId: out.Subnet.SubnetId})
			}
			return err
		})
	}
	return vpc, subnets
}

// What a document names by id is used, and is as it was when the cluster is gone.
func TestWhatIsThereIsUsedAndLeft(t *testing.T) {
	s := start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id, subnets := givenNetwork(t, a)
	before := s.Resources()
	text := fmt.Sprintf("network: {vpc: %s, subnets: [%s, %s], publicSubnets: [%s, %s]}\nssh: {bastion: t4g.nano}\nloadBalancer: {scheme: internal}\ncontrolPlane: {count: 3}\npools: [{name: w, count: 1, zones: [eu-west-1b]}]",
		id, subnets[0], subnets[1], subnets[2], subnets[3])
	d := parse(t, text)
	_, err := connect(t, d).Create(ctx)
	must(err)
	if len(d.Spec.Hosts) != 4 || !strings.Contains(d.Spec.Hosts[3].ProviderID, "/eu-west-1b/") {
		t.Errorf("%+v", d.Spec.Hosts)
	}
	all, err := a.look(ctx).instances()
	must(err)
	for _, i := range all {
		public, bastion := sdk.ToString(i.PublicIpAddress), tagOf(i.Tags, partTag) == bastionPart
		if bastion != (public != "") || bastion && d.Spec.Hosts[3].SSH.ProxyJump != "ubuntu@"+public {
			t.Errorf("%s is reached at %q; hosts by %s", tagOf(i.Tags, partTag), public, d.Spec.Hosts[3].SSH.ProxyJump)
		}
	}
	if changes, err := connect(t, parse(t, text)).Plan(ctx); err != nil || len(changes) > 0 {
		t.Errorf("again: %v, %v", changes, err)
	}
	for _, r := range s.Resources() {
		if f := strings.Fields(r); slices.Contains([]string{"vpc", "subnet", "internet-gateway", "natgateway", "route-table"}, f[0]) && !slices.Contains(before, r) {
			t.Errorf("it has made %s", r)
		}
	}
	_, err = connect(t, parse(t, text)).Delete(ctx)
	must(err)
	if after := s.Resources(); !slices.Equal(before, after) {
		t.Errorf("there was %s\nthere is %s", before, after)
	}
	_, err = connect(t, parse(t, strings.Replace(text, subnets[1], "subnet-0123456789abcdef0", 1))).Plan(ctx)
	wants(t, err, "subnet-0123456789abcdef0")
}

func TestAGivenSubnetThatNobodyReachesIsRefused(t *testing.T) {
	start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	vpc, subnets := givenNetwork(t, a)
	for network, want := range map[string]string{
		"{vpc: VPC, subnets: [OPEN, CLOSED]}": "CLOSED has no route to an internet gateway, so that nobody would reach the load balancer",
		"{vpc: VPC, subnets: [OPEN], publicSubnets: [CLOSED]}\nloadBalancer: {scheme: internal}\nssh: {bastion: t4g.nano}": "CLOSED has no route to an internet gateway, so that nobody would reach the bastion",
	} {
		named := strings.NewReplacer("VPC", vpc, "OPEN", subnets[2], "CLOSED", subnets[1]).Replace
		_, err := connect(t, parse(t, named("network: "+network))).Plan(t.Context())
		wants(t, err, named(want))
	}
}

func TestAGivenVPCHasNoAddressInCommonWithPodsAndServices(t *testing.T) {
	start(t, cloud.Options{})
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	for pods, services := range map[string]string{"": "172.20.128.0/20", "172.16.0.0/12": "", "10.244.0.0/16,fd00::/56": "10.96.0.0/12,fd00:1::/112"} {
		d := parse(t, fmt.Sprintf("network: {vpc: %s, subnets: [%s]}", vpc, subnets[2]))
		d.Spec.Network.PodCIDR, d.Spec.Network.ServiceCIDR = pods, services
		_, err := connect(t, d).Plan(t.Context())
		switch {
		case pods != "" && services != "":
			if err != nil {
				t.Error(err)
			}
		case pods != "":
			wants(t, err, "spec.network.podCIDR: 172.16.0.0/12 and 172.20.0.0/16 of "+vpc+" overlap: write")
		default:
			wants(t, err, "spec.network.serviceCIDR: 172.20.128.0/20 and 172.20.0.0/16 of "+vpc+" overlap: write")
		}
		if err != nil && !errors.As(err, new(*DocumentError)) {
			t.Errorf("%v is none of the document's", err)
		}
	}
}

// A load balancer sends nothing to a zone that it is not in.
func TestControlPlanesAreInZonesOfTheLoadBalancer(t *testing.T) {
	start(t, cloud.Options{})
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	plan := func(scheme string) error {
		_, err := connect(t, parse(t, fmt.Sprintf("network: {vpc: %s, subnets: [%s, %s], publicSubnets: [%s]}\nloadBalancer: {scheme: %s}", vpc, subnets[0], subnets[1], subnets[2], scheme))).Plan(t.Context())
		return err
	}
	if err := plan("internal"); err != nil {
		t.Error(err)
	}
	wants(t, plan("internet-facing"), "spec.provider.aws.network.publicSubnets: there is none in eu-west-1b, where "+subnets[1]+" is")
}

// Of two subnets in one zone the load balancer is in the first, and nodes in both. They are reached by SSH from the VPC alone.
func TestGivenPrivateSubnetsAreReachedFromTheirNetworkAlone(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	vpc, subnets := givenNetwork(t, a)
	d := parse(t, fmt.Sprintf("network: {vpc: %s, subnets: [%s, %s]}\nloadBalancer: {scheme: internal}\npools: [{name: w, count: 2}]", vpc, subnets[0], subnets[1]))
	b := connect(t, d)
	w, err := b.network(ctx, b.look(ctx))
	if err != nil {
		t.Fatal(err)
	}
	rules := b.rules(w)
	if !slices.ContainsFunc(rules, func(r rule) bool { return r.Low == 22 }) {
		t.Error("nobody gets in by SSH")
	}
	for _, r := range rules {
		if r.Low == 22 && r.From != "172.20.0.0/16" || r.From == everywhere {
			t.Errorf("%s is open to %s: %s", r.Group, r.From, r.Why)
		}
	}
	d = parse(t, fmt.Sprintf("network: {vpc: %s, subnets: [%s, %s]}\nloadBalancer: {scheme: internal}\npools: [{name: w, count: 2}]", vpc, subnets[0], subnets[2]))
	b = connect(t, d)
	if _, err := b.Create(ctx); err != nil {
		t.Fatal(err)
	}
	lb, err := b.look(ctx).balancer()
	if err != nil || len(lb.AvailabilityZones) != 1 || sdk.ToString(lb.AvailabilityZones[0].SubnetId) != subnets[0] {
		t.Errorf("%v, %+v", err, lb)
	}
}

// A load balancer is in one subnet of each zone: where it is in one already, another that the document names first changes nothing.
func TestTheLoadBalancerIsInOneSubnetOfEachZone(t *testing.T) {
	start(t, cloud.Options{})
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	for i, named := range [][]string{{subnets[0]}, {subnets[2]}, {subnets[2], subnets[1], subnets[0]}} {
		a := made(t, fmt.Sprintf("network: {vpc: %s, subnets: [%s]}\nloadBalancer: {scheme: internal}", vpc, strings.Join(named, ", ")))
		b, err := a.look(t.Context()).balancer()
		if err != nil {
			t.Fatal(err)
		}
		var in []string
		for _, z := range b.AvailabilityZones {
			in = append(in, sdk.ToString(z.SubnetId))
		}
		want := unique(append([]string{subnets[0]}, subnets[1:1+i/2]...))
		if in = unique(in); !slices.Equal(in, want) {
			t.Errorf("%v: it is in %v, not %v", named, in, want)
		}
	}
}

// A balancer, group or key pair of the cluster's names that does not carry its tags is somebody else's.
func TestWhatHasOurNameAndNotOurTagIsRefused(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	if _, err := a.ec2.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: sdk.String(a.named(255, "key"))}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Create(ctx)
	wants(t, err, "key pair kubewright-prod-key without the tag kubewright.dev/cluster=prod", "left alone")
	if _, err := a.Delete(ctx); err != nil {
		t.Error(err)
	}
	if out, err := a.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{}); err != nil || len(out.KeyPairs) != 1 {
		t.Errorf("it is gone: %v", err)
	}
}

func TestABalancerThatIsNotOursIsRefused(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	vpc, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: sdk.String("172.20.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: sdk.String(a.balancerName()), Protocol: elbtypes.ProtocolEnumTcp, Port: sdk.Int32(80), VpcId: vpc.Vpc.VpcId}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Create(ctx)
	wants(t, err, "target group prod-api without the tag kubewright.dev/cluster=prod")
}

// What somebody else has put into the cluster's VPC keeps that, and is named; when it is gone, the rest goes.
func TestWhatIsNotOursKeepsWhatItStandsOn(t *testing.T) {
	s := start(t, cloud.Options{Delay: 20 * time.Millisecond})
	a, ctx := connect(t, parse(t, small)), t.Context()
	if _, err := a.Create(ctx); err != nil {
		t.Fatal(err)
	}
	subnets, err := a.look(ctx).subnets()
	if err != nil {
		t.Fatal(err)
	}
	images, err := a.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{canonical["aws"]}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.ec2.RunInstances(ctx, &ec2.RunInstancesInput{MinCount: sdk.Int32(1), MaxCount: sdk.Int32(1), SubnetId: subnets[0].SubnetId, ImageId: images.Images[0].ImageId, InstanceType: "t3.micro"})
	if err != nil {
		t.Fatal(err)
	}
	theirs := *out.Instances[0].InstanceId
	a.Patience = 300 * time.Millisecond
	var warned []string
	a.Warn = func(f string, args ...any) { warned = append(warned, fmt.Sprintf(f, args...)) }
	_, err = a.Delete(ctx)
	if len(warned) != 1 || !strings.Contains(warned[0], "in the way of ") || !strings.Contains(warned[0], "instance "+theirs) || strings.Count(warned[0], "eni-") != 1 {
		t.Errorf("meanwhile it is said: %q", warned)
	}
	wants(t, err, "this is left", "subnet "+tagOf(subnets[0].Tags, partTag), "vpc vpc", "not of the cluster", "instance "+theirs)
	if _, err := a.terminate(ctx, theirs); err != nil {
		t.Fatal(err)
	}
	a.Patience = 5 * time.Second
	if _, err := a.Delete(ctx); err != nil {
		t.Error(err)
	}
	for _, r := range s.Resources() {
		t.Errorf("left: %s", r)
	}
}

func TestWhoDoesNotGetInIsToldFromWhereOneDoes(t *testing.T) {
	start(t, cloud.Options{})
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	given := fmt.Sprintf("network: {vpc: %s, subnets: [%s], publicSubnets: [%s]}\nloadBalancer: {scheme: internal}\n", vpc, subnets[0], subnets[2])
	for document, want := range map[string]string{
		"network: {zones: [eu-west-1a]}": "", "network: {nat: none}": "", given + "ssh: {bastion: t4g.nano}": "", "ssh: {proxyJump: me@192.0.2.1}": "",
		given:                  "with network.vpc a bastion is made only where the document asks for one: write ssh.bastion: t4g.nano, and network.publicSubnets",
		"ssh: {bastion: none}": "from inside the VPC alone, or by a VPN; else write ssh.bastion: t4g.nano, and run",
	} {
		a, _, _ := up(t, document)
		if have := a.Inside(); (want == "") != (have == "") || !strings.Contains(have, want) {
			t.Errorf("%s: %q, not %q", document, have, want)
		}
		if _, err := a.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
