package aws

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestGatewaysAreReplacedWhenNATChanges(t *testing.T) {
	c := start(t, cloud.Options{Lag: 1, Delay: 5 * time.Millisecond})
	for i, nat := range []string{"single", "zone", "single", "zone"} {
		a := made(t, "network: {nat: "+nat+"}")
		want := map[string]int{"single": 1, "zone": 3}[nat]
		for kind, n := range map[string]int{"natgateway": want, "elastic-ip": want, "route-table": want + 1} {
			if have := count(c, kind); have != n {
				t.Errorf("%d: nat: %s: %d of %s, not %d", i, nat, have, kind, n)
			}
		}
		l := a.look(t.Context())
		tables, err := l.tables()
		if err != nil {
			t.Fatal(err)
		}
		subnets, _ := l.subnets()
		for _, s := range subnets {
			zone, private := strings.CutPrefix(tagOf(s.Tags, partTag), "private-")
			name := map[bool]string{true: "private-" + zone, false: "private"}[nat == "zone"]
			if _, by := association(tables, *s.SubnetId); private && (by == nil || tagOf(by.Tags, partTag) != name) {
				t.Errorf("%d: nat: %s: %s goes by %+v", i, nat, zone, by)
			}
		}
	}
}

// Nodes go by a new gateway when it leads out, and not before; those whose gateway can't be made go by the old one.
func TestNodesAreNeverCutOffWhenNATChanges(t *testing.T) {
	c := start(t, cloud.Options{Delay: 5 * time.Millisecond})
	a, ctx := made(t, "network: {nat: single}"), t.Context()
	leads := func(id string) bool {
		out, err := a.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{RouteTableIds: []string{id}})
		return err == nil && slices.ContainsFunc(out.RouteTables[0].Routes, func(r ec2types.Route) bool {
			return sdk.ToString(r.DestinationCidrBlock) == everywhere && r.State == ec2types.RouteStateActive
		})
	}
	refused := &cloud.Error{Code: "NatGatewayLimitExceeded", Message: "no more", Status: 400}
	c.Change(func(o *cloud.Options) {
		o.Delays = map[string]time.Duration{"natgateway": 50 * time.Millisecond}
		o.Before = func(q cloud.Call) *cloud.Error {
			if q.Action == "ReplaceRouteTableAssociation" && !leads(q.Params.Get("RouteTableId")) {
				t.Errorf("a subnet is to go by %s, which leads nowhere", q.Params.Get("RouteTableId"))
			}
			if q.Action == "CreateNatGateway" {
				return refused
			}
			return nil
		}
	})
	_, err := connect(t, parse(t, "network: {nat: zone}")).Create(ctx)
	wants(t, err, "nat-gateway nat-eu-west-1", "no more")
	l := a.look(ctx)
	subnets, err := l.subnets()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := l.tables()
	for _, s := range subnets {
		if _, by := association(tables, *s.SubnetId); err != nil || by == nil || !leads(*by.RouteTableId) {
			t.Errorf("%v: %s goes by %+v", err, tagOf(s.Tags, partTag), by)
		}
	}
	refused = nil
	made(t, "network: {nat: zone}")
}

// With loadBalancer.from nodes reach the API by the addresses that they go out with: both, while they change.
func TestTheOldAddressIsLetInUntilNodesGoByTheNew(t *testing.T) {
	c := start(t, cloud.Options{Delay: 5 * time.Millisecond, Delays: map[string]time.Duration{"natgateway": 50 * time.Millisecond}})
	const from = "loadBalancer: {from: [203.0.113.0/24]}\n"
	made(t, from+"network: {nat: single}")
	before := len(c.Calls())
	made(t, from+"network: {nat: zone}")
	var order []string
	for _, q := range c.Calls()[before:] {
		switch q.Action {
		case "AuthorizeSecurityGroupIngress", "ReplaceRouteTableAssociation", "RevokeSecurityGroupIngress":
			order = append(order, q.Action)
		}
	}
	if all := strings.Join(slices.Compact(order), " "); all != "AuthorizeSecurityGroupIngress ReplaceRouteTableAssociation RevokeSecurityGroupIngress" {
		t.Error(all)
	}
}

func TestABastionThatIsTurnedOffGoes(t *testing.T) {
	c := start(t, cloud.Options{Lag: 1, Delay: 5 * time.Millisecond})
	made(t, small)
	instances, groups := count(c, "instance"), count(c, "security-group")
	off := "ssh: {bastion: none}\n" + small
	if plan := planned(t, off); !strings.Contains(plan, "delete instance bastion: i-") || !strings.Contains(plan, "delete security-group kubewright-prod-bastion: sg-") {
		t.Error(plan)
	}
	made(t, off)
	if count(c, "instance") != instances-1 || count(c, "security-group") != groups-1 {
		t.Errorf("there is %s", strings.Join(c.Resources(), "\n"))
	}
	made(t, small)
}

// What is made without a token is made twice where AWS does not tell yet what a run has made that was cut short, and the next one is on
// another machine.
func TestWhatWasMadeTwiceIsRemoved(t *testing.T) {
	times := func(c *cloud.Cloud, action string) (n int) {
		for _, q := range c.Calls() {
			if q.Action == action && q.Code == "" {
				n++
			}
		}
		return n
	}
	once := start(t, whims())
	made(t, small)
	want := kinds(once)
	for _, action := range []string{"CreateVpc", "CreateInternetGateway", "AllocateAddress", "CreateRouteTable"} {
		c := start(t, whims())
		a := connect(t, parse(t, small))
		c.Change(func(o *cloud.Options) {
			o.Lag = 1
			o.After = func(q cloud.Call) {
				if q.Action == action && q.Code == "" { // it fails where its VPC is not seen yet
					c.Change(func(o *cloud.Options) { o.Expire = 1 }) // all that follows fails
				}
			}
		})
		if _, err := a.Create(t.Context()); err == nil {
			t.Fatalf("%s: it was not cut short", action)
		}
		c.Change(func(o *cloud.Options) { o.Lag, o.After, o.Expire = 2, nil, 0 })
		if err := removeFile(a.busy()); err != nil {
			t.Fatal(err)
		}
		if _, err := connect(t, parse(t, small)).Create(t.Context()); err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		if have := kinds(c); times(c, action) <= times(once, action) || !slices.Equal(have, want) {
			t.Errorf("%s: done %d times, and there is\n%s\nnot\n%s", action, times(c, action), strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Whichever of two VPCs is the cluster's, down finds what its Services have in it.
func TestDownOfTwoVPCs(t *testing.T) {
	c := start(t, cloud.Options{})
	a, ctx := connect(t, parse(t, small)), t.Context()
	var others []string
	for range 4 { // ids are random: one of them is likely the first by id, and all are by age
		vpc, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: sdk.String("10.0.0.0/16")})
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, *vpc.Vpc.VpcId)
	}
	a = made(t, small)
	if _, err := a.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: others, Tags: a.tags("vpc")}); err != nil {
		t.Fatal(err)
	}
	subnets, err := a.look(ctx).subnets()
	if err != nil {
		t.Fatal(err)
	}
	key, value := a.kubernetes()
	if _, err := a.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: sdk.String("service"), Type: elbtypes.LoadBalancerTypeEnumNetwork, Subnets: []string{*subnets[0].SubnetId},
		Tags: []elbtypes.Tag{{Key: &key, Value: &value}}}); err != nil {
		t.Fatal(err)
	}
	plan := planned(t, small)
	for _, id := range others {
		if !strings.Contains(plan, "delete vpc vpc: "+id) || strings.Count(plan, "\n") != len(others) {
			t.Errorf("%s: %s", id, plan)
		}
	}
	if doomed, err := a.Doomed(ctx); err != nil || !slices.ContainsFunc(doomed, func(c Change) bool { return c.Name == "service" }) {
		t.Errorf("%v: a Service's load balancer is not among %v", err, doomed)
	}
	if _, err := a.Delete(ctx); err != nil {
		t.Error(err)
	}
	if left := c.Resources(); len(left) > 0 {
		t.Errorf("left: %s", fmt.Sprint(left))
	}
}

// What is in the VPC that was made twice is none of what the cluster uses, and goes with it.
func TestWhatIsInTheOtherVPCGoesWithIt(t *testing.T) {
	c := start(t, cloud.Options{})
	a, ctx := made(t, small), t.Context()
	want := kinds(c)
	for range 4 { // ids are random, and the first by id is taken where nothing else tells
		vpc, err := a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: sdk.String("10.0.0.0/16"), TagSpecifications: a.specified(ec2types.ResourceTypeVpc, "vpc")})
		if err != nil {
			t.Fatal(err)
		}
		gateway, err := a.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{TagSpecifications: a.specified(ec2types.ResourceTypeInternetGateway, internetPart)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{VpcId: vpc.Vpc.VpcId, InternetGatewayId: gateway.InternetGateway.InternetGatewayId}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{nodesGroup, bastionGroup} {
			if _, err := a.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: vpc.Vpc.VpcId, GroupName: sdk.String(a.named(255, name)), Description: sdk.String("of"),
				TagSpecifications: a.specified(ec2types.ResourceTypeSecurityGroup, name)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if plan := planned(t, small); strings.Count(plan, "\n") != 4*4 || strings.Count(plan, "delete ") != 4*4 {
		t.Error(plan)
	}
	if _, err := connect(t, parse(t, small)).Create(ctx); err != nil {
		t.Fatal(err)
	}
	if have := kinds(c); !slices.Equal(have, want) {
		t.Errorf("there is\n%s\nnot\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// A route table that goes with its gateway may be used by somebody else's subnet: then nothing is changed.
func TestATableThatSomebodyElseUsesIsKept(t *testing.T) {
	c := start(t, cloud.Options{})
	a, ctx := made(t, "network: {nat: single}"), t.Context()
	l := a.look(ctx)
	table, err := ourTable(l, "private")
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: table.VpcId, CidrBlock: sdk.String("10.0.192.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.AssociateRouteTable(ctx, &ec2.AssociateRouteTableInput{RouteTableId: table.RouteTableId, SubnetId: s.Subnet.SubnetId}); err != nil {
		t.Fatal(err)
	}
	before := c.Resources()
	_, err = connect(t, parse(t, "network: {nat: zone}")).Create(ctx)
	wants(t, err, *table.RouteTableId, *s.Subnet.SubnetId+", which is not of the cluster")
	if after := c.Resources(); !slices.Equal(before, after) {
		t.Errorf("there was %s\nthere is %s", before, after)
	}
}

// Of two tables the one that a run has used stays, whether or not it is seen yet that subnets go by it.
func TestATableWhoseAssociationsAreNotSeenIsKept(t *testing.T) {
	start(t, cloud.Options{})
	a, ctx := made(t, small), t.Context()
	l := a.look(ctx)
	w, err := a.network(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&walk{plan: true}).run(ctx, w.roots); err != nil {
		t.Fatal(err)
	}
	tables, err := l.tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, seen := range []bool{true, false} {
		var all []ec2types.RouteTable
		for _, have := range tables {
			double := have
			double.RouteTableId, double.Associations = sdk.String("rtb-0"+tagOf(have.Tags, partTag)), nil
			if !seen {
				have.Associations = nil
			}
			all = append(all, double, have)
		}
		l.tables = func() ([]ec2types.RouteTable, error) { return all, nil }
		ids, err := w.obsolete(l)
		if slices.Sort(ids); err != nil || !slices.Equal(ids, []string{"rtb-0private", "rtb-0public"}) {
			t.Errorf("%v: seen %v: %v go", err, seen, ids)
		}
	}
}
