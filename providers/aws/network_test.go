package aws

import (
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// made brings a document to be, looks that a plan has told all of it, and that nothing is left to do.
func made(t *testing.T, document string) *Cloud {
	t.Helper()
	plan := planned(t, document)
	a := connect(t, parse(t, document))
	changes, err := a.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(plan, "\n") - strings.Count(plan, "nothing\n"); n != len(changes) {
		t.Errorf("planned:\n%s\ndone: %v", plan, changes)
	}
	if again := planned(t, document); again != "nothing\n" {
		t.Errorf("after it was made: %s", again)
	}
	return a
}

// count is how many things there are of a kind.
func count(c *cloud.Cloud, kind string) (n int) {
	for _, r := range c.Resources() {
		if strings.HasPrefix(r, kind+" ") {
			n++
		}
	}
	return n
}

func TestANetworkThatCannotBeChangedIsRefused(t *testing.T) {
	c := start(t, cloud.Options{})
	made(t, "network: {zones: [eu-west-1a, eu-west-1b]}")
	before := c.Resources()
	for _, network := range []string{"{zones: [eu-west-1a, eu-west-1b], nat: none}", "{zones: [eu-west-1a, eu-west-1b], cidr: 10.9.0.0/16}", "{zones: [eu-west-1b, eu-west-1a]}", "{zones: [eu-west-1a]}", "{zones: [eu-west-1a, eu-west-1c]}"} {
		_, err := connect(t, parse(t, "network: "+network)).Create(t.Context())
		wants(t, err, "write what they were", "`kubewright down`")
	}
	_, err := connect(t, parse(t, "loadBalancer: {scheme: internal}")).Create(t.Context())
	wants(t, err, "write loadBalancer.scheme: internet-facing")
	if after := c.Resources(); !slices.Equal(before, after) {
		t.Errorf("there was %s\nthere is %s", before, after)
	}
}

func TestAZoneThatIsAddedReachesTheLoadBalancer(t *testing.T) {
	start(t, cloud.Options{Lag: 1})
	made(t, "network: {zones: [eu-west-1a], nat: zone}")
	a := made(t, "network: {zones: [eu-west-1a, eu-west-1b], nat: zone}")
	made(t, "network: {nat: zone}") // in those that it has
	b, err := a.look(t.Context()).balancer()
	if err != nil || len(b.AvailabilityZones) != 2 {
		t.Errorf("%v: it is in %+v", err, b.AvailabilityZones)
	}
}

// Each public subnet of the smallest network has room for load balancers of Services, too.
func TestTheSmallestNetworkHasRoom(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := made(t, "network: {cidr: 10.0.0.0/20, zones: [eu-west-1a, eu-west-1b, eu-west-1c]}\n"+small), t.Context()
	subnets, err := a.look(ctx).subnets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subnets {
		if n := sdk.ToInt32(s.AvailableIpAddressCount); n < 50 {
			t.Errorf("%s (%s) has %d free addresses", tagOf(s.Tags, partTag), sdk.ToString(s.CidrBlock), n)
		}
	}
}

// In us-east-1 the third zone is one that AWS does not extend any more.
func TestZonesWithoutGatewaysAreNotChosen(t *testing.T) {
	c := start(t, cloud.Options{})
	t.Setenv("AWS_REGION", "us-east-1")
	made(t, small)
	if all := strings.Join(c.Resources(), " "); strings.Contains(all, "us-east-1c") || !strings.Contains(all, "private-us-east-1d") {
		t.Error(all)
	}
	for zone, want := range map[string]string{"us-east-1c": "neither NAT gateways", "us-east-1x": "choose among us-east-1a, us-east-1b, us-east-1d"} {
		d := parse(t, "network: {zones: [us-east-1a, "+zone+"]}")
		d.Metadata.Name = "other"
		_, err := connect(t, d).Create(t.Context())
		wants(t, err, zone, want)
	}
}

func TestASubnetOfSomebodyElsesInTheWayIsTold(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	vpc, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: sdk.String("10.0.0.0/16"), TagSpecifications: a.specified(ec2types.ResourceTypeVpc, "vpc")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: sdk.String("10.0.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Create(ctx)
	wants(t, err, "subnet private-eu-west-1a", *s.Subnet.SubnetId, "10.0.1.0/24", "remove that")
}

// Subnets tell of their VPC, where that is not seen.
func TestAVPCThatIsNotSeenIsNotMadeAgain(t *testing.T) {
	start(t, cloud.Options{})
	a := made(t, small)
	l := a.look(t.Context())
	vpcs, err := l.vpcs()
	if err != nil {
		t.Fatal(err)
	}
	l.vpcs = func() ([]ec2types.Vpc, error) { return nil, nil }
	w, err := a.network(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if id, lacks, err := w.vpc.find(); err != nil || id != *vpcs[0].VpcId || len(lacks) > 0 {
		t.Errorf("%q lacks %v, %v", id, lacks, err)
	}
}

// A subnet goes by another table than the look has shown.
func TestAnAssociationThatWasNotSeenIsReplaced(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := made(t, small), t.Context()
	l := a.look(ctx)
	table, err := part(l.tables, ofTable, "public")
	if err != nil {
		t.Fatal(err)
	}
	subnet, err := part(l.subnets, ofSubnet, "private-eu-west-1a")
	if err != nil {
		t.Fatal(err)
	}
	r := a.associate(l, given("route-table", *table.RouteTableId), given("subnet", *subnet.SubnetId))
	r.find = func() (string, []string, error) { return "", nil, nil }
	w := &walk{settle: a.settle, first: func() error { return nil }}
	if _, err := w.run(ctx, []*resource{r}); err != nil {
		t.Fatal(err)
	}
	all, err := a.look(ctx).tables()
	if have, by := association(all, *subnet.SubnetId); err != nil || have != r.id || *by.RouteTableId != *table.RouteTableId {
		t.Errorf("%v: it goes by %s", err, tagOf(by.Tags, partTag))
	}
}

// AWS takes no load balancer whose name begins with internal-.
func TestAClusterMayBeCalledInternal(t *testing.T) {
	start(t, cloud.Options{})
	for _, name := range []string{"internal", "internal-tools-of-the-whole-company"} {
		d := parse(t, small)
		d.Metadata.Name = name
		if _, err := connect(t, d).Create(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
