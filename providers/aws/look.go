package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// look is what there is of the cluster. Each list is asked for once, when somebody wants it.
type look struct {
	vpcs      func() ([]ec2types.Vpc, error)
	subnets   func() ([]ec2types.Subnet, error)
	gateways  func() ([]ec2types.InternetGateway, error)
	nats      func() ([]ec2types.NatGateway, error)
	addresses func() ([]ec2types.Address, error)
	tables    func() ([]ec2types.RouteTable, error)
	groups    func() ([]ec2types.SecurityGroup, error)
	keys      func() ([]ec2types.KeyPairInfo, error)
	templates func() ([]ec2types.LaunchTemplate, error)
	instances func() ([]ec2types.Instance, error)
	zones     func() ([]ec2types.AvailabilityZone, error)
	types     func() ([]ec2types.InstanceTypeInfo, error) // of the machines that there are to be
	ubuntu    func() ([]ec2types.Image, error)            // Canonical's of 24.04, for all architectures
	balancer  func() (*elbtypes.LoadBalancer, error)      // nil: there is none
	target    func() (*elbtypes.TargetGroup, error)
	targets   func() ([]elbtypes.TargetHealthDescription, error)
	profile   func() (*iam.GetInstanceProfileOutput, error) // that is made
}

// pages asks until there is no next one. What has become shorter meanwhile is read from its beginning.
func pages[T any](ask func(next *string) ([]T, *string, error)) (all []T, err error) {
	again := 0
	for next := (*string)(nil); ; {
		some, after, err := ask(next)
		if next != nil && again < 5 && strings.Contains(codeOf(err), "InvalidNextToken") {
			next, all, again = nil, nil, again+1
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if next = after; sdk.ToString(next) == "" {
			return all, nil
		}
	}
}

func once[T any](ask func(next *string) ([]T, *string, error)) func() ([]T, error) {
	return sync.OnceValues(func() ([]T, error) { return pages(ask) })
}

func filter(name string, values ...string) ec2types.Filter {
	return ec2types.Filter{Name: &name, Values: values}
}

func (a *Cloud) mine() []ec2types.Filter { return []ec2types.Filter{filter("tag:"+clusterTag, a.name)} }

func (a *Cloud) look(ctx context.Context) *look {
	mine, n := a.mine(), a.aws.Network
	l := &look{}
	l.vpcs = once(func(next *string) ([]ec2types.Vpc, *string, error) {
		in := &ec2.DescribeVpcsInput{Filters: mine, NextToken: next}
		if !n.Own() {
			in.Filters = []ec2types.Filter{filter("vpc-id", n.VPC)} // of an id that it does not know AWS tells by an error alone
		}
		out, err := a.ec2.DescribeVpcs(ctx, in)
		if err != nil {
			return nil, nil, err
		}
		return out.Vpcs, out.NextToken, nil
	})
	l.subnets = once(func(next *string) ([]ec2types.Subnet, *string, error) {
		in := &ec2.DescribeSubnetsInput{Filters: mine, NextToken: next}
		if !n.Own() {
			in.Filters = []ec2types.Filter{filter("subnet-id", unique(slices.Concat(n.Subnets, n.PublicSubnets))...)}
		}
		out, err := a.ec2.DescribeSubnets(ctx, in)
		if err != nil {
			return nil, nil, err
		}
		return out.Subnets, out.NextToken, nil
	})
	l.gateways = once(func(next *string) ([]ec2types.InternetGateway, *string, error) {
		out, err := a.ec2.DescribeInternetGateways(ctx, &ec2.DescribeInternetGatewaysInput{Filters: mine, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.InternetGateways, out.NextToken, nil
	})
	l.nats = once(func(next *string) ([]ec2types.NatGateway, *string, error) {
		out, err := a.ec2.DescribeNatGateways(ctx, &ec2.DescribeNatGatewaysInput{Filter: mine, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.NatGateways, out.NextToken, nil
	})
	l.addresses = once(func(*string) ([]ec2types.Address, *string, error) {
		out, err := a.ec2.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{Filters: mine})
		if err != nil {
			return nil, nil, err
		}
		return out.Addresses, nil, nil
	})
	l.tables = once(func(next *string) ([]ec2types.RouteTable, *string, error) {
		in := &ec2.DescribeRouteTablesInput{Filters: mine, NextToken: next}
		if !n.Own() {
			in.Filters = []ec2types.Filter{filter("vpc-id", n.VPC)}
		}
		out, err := a.ec2.DescribeRouteTables(ctx, in)
		if err != nil {
			return nil, nil, err
		}
		return out.RouteTables, out.NextToken, nil
	})
	l.groups = once(func(next *string) ([]ec2types.SecurityGroup, *string, error) {
		out, err := a.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: mine, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.SecurityGroups, out.NextToken, nil
	})
	l.keys = once(func(*string) ([]ec2types.KeyPairInfo, *string, error) {
		out, err := a.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{Filters: mine})
		if err != nil {
			return nil, nil, err
		}
		return out.KeyPairs, nil, nil
	})
	l.templates = once(func(next *string) ([]ec2types.LaunchTemplate, *string, error) {
		out, err := a.ec2.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{Filters: mine, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.LaunchTemplates, out.NextToken, nil
	})
	l.instances = once(a.describeInstances(ctx, ec2.DescribeInstancesInput{Filters: mine})) // those that are gone but still known, too
	l.zones = once(func(*string) ([]ec2types.AvailabilityZone, *string, error) {
		out, err := a.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{Filters: []ec2types.Filter{filter("state", "available"), filter("zone-type", "availability-zone")}})
		if err != nil {
			return nil, nil, err
		}
		return out.AvailabilityZones, nil, nil
	})
	a.lookAtImages(ctx, l)
	a.lookAtBalancer(ctx, l)
	l.profile = sync.OnceValues(func() (*iam.GetInstanceProfileOutput, error) {
		return a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: sdk.String(a.profileName())})
	})
	return l
}

// describeInstances asks for instances, a page at a time.
func (a *Cloud) describeInstances(ctx context.Context, in ec2.DescribeInstancesInput) func(*string) ([]ec2types.Instance, *string, error) {
	return func(next *string) (all []ec2types.Instance, _ *string, err error) {
		in.NextToken = next
		out, err := a.ec2.DescribeInstances(ctx, &in)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range out.Reservations {
			all = append(all, r.Instances...)
		}
		return all, out.NextToken, nil
	}
}

func (a *Cloud) lookAtBalancer(ctx context.Context, l *look) {
	name, n := a.balancerName(), a.aws.Network
	l.balancer = sync.OnceValues(func() (*elbtypes.LoadBalancer, error) {
		out, err := a.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{name}})
		if codeOf(err) == "LoadBalancerNotFound" || err == nil && len(out.LoadBalancers) == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		b := &out.LoadBalancers[0]
		all, err := l.vpcs()
		if n.Own() && err == nil && slices.ContainsFunc(all, func(v ec2types.Vpc) bool { return *v.VpcId == sdk.ToString(b.VpcId) }) {
			return b, nil // whoever is in the cluster's own VPC is of the cluster
		}
		return b, a.ours(ctx, "load balancer", name, sdk.ToString(b.LoadBalancerArn))
	})
	l.target = sync.OnceValues(func() (*elbtypes.TargetGroup, error) {
		out, err := a.elb.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{Names: []string{name}})
		if codeOf(err) == "TargetGroupNotFound" || err == nil && len(out.TargetGroups) == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		t := &out.TargetGroups[0]
		if len(t.LoadBalancerArns) > 0 { // which is ours, or it is not
			return t, nil
		}
		return t, a.ours(ctx, "target group", name, sdk.ToString(t.TargetGroupArn))
	})
	l.targets = sync.OnceValues(func() ([]elbtypes.TargetHealthDescription, error) {
		t, err := l.target()
		if t == nil || err != nil {
			return nil, err
		}
		out, err := a.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: t.TargetGroupArn})
		if err != nil {
			return nil, err
		}
		return out.TargetHealthDescriptions, nil
	})
}

// ours refuses what has the name of something of ours, and not its tag.
func (a *Cloud) ours(ctx context.Context, kind, name, arn string) error {
	out, err := a.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: []string{arn}})
	if err != nil {
		return err
	}
	for _, d := range out.TagDescriptions {
		if elbTag(d.Tags, clusterTag) == a.name {
			return nil
		}
	}
	return notOurs(kind, name, a.name)
}

func notOurs(kind, name, cluster string) error {
	return fmt.Errorf("there is a %s %s without the tag %s=%s: it is not of this cluster, and is left alone: choose another name for the cluster, or remove it", kind, name, clusterTag, cluster)
}

// ahead asks for what every run wants, all at once; and for what a first run wants, too, where no machine is noted here.
func (a *Cloud) ahead(l *look) {
	if _, err := os.Stat(a.notes()); errors.Is(err, os.ErrNotExist) {
		for _, ask := range []func(){func() { l.types() }, func() { l.ubuntu() }, func() { l.keys() }, func() { l.templates() }, func() { l.gateways() }, func() { l.nats() }, func() { l.addresses() }} {
			go ask()
		}
	}
	if a.aws.Network.Own() && len(a.aws.Network.Zones) == 0 {
		go l.zones()
	}
	if a.aws.ControlPlane.InstanceProfile == "" {
		go l.profile()
	}
	for _, ask := range []func(){func() { l.vpcs() }, func() { l.subnets() }, func() { l.tables() }, func() { l.groups() }, func() { l.instances() }, func() { l.balancer() }, func() { l.targets() }} {
		go ask() // whoever wants the answer waits for it
	}
}

// part is the one of a list that is this part of the cluster; of several the first by id of those that are better, or of all.
func part[T any](list func() ([]T, error), is func(T) (id string, tags []ec2types.Tag, there bool), name string, better ...func(T) bool) (found *T, err error) {
	all, err := list()
	best := ""
	for i := range all {
		id, tags, there := is(all[i])
		if !there || tagOf(tags, partTag) != name {
			continue
		}
		if slices.ContainsFunc(better, func(is func(T) bool) bool { return !is(all[i]) }) {
			id = "~" + id // comes after all others
		}
		if best == "" || id < best {
			found, best = &all[i], id
		}
	}
	return found, err
}

// again looks for what AWS says is there, and a look has not shown.
func again[T any](list func() ([]T, error), is func(T) (string, []ec2types.Tag, bool), name string, why error) (string, error) {
	found, err := part(list, is, name)
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", fmt.Errorf("%w: %w", errUnseen, why)
	}
	id, _, _ := is(*found)
	return id, nil
}

func unique(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
