package aws

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// balancerName is that of the load balancer and its target group; 32 characters are all that it may have, and how it may not begin, AWS says, too.
func (a *Cloud) balancerName() string {
	name := strings.TrimPrefix(a.named(32+len("kubewright-"), "api"), "kubewright-")
	if strings.HasPrefix(name, "internal-") {
		return a.named(32, "api")
	}
	return name
}

func (a *Cloud) port() int32 {
	if p := a.c.Spec.ControlPlane.BindPort; p != 0 {
		return p
	}
	return 6443
}

func (a *Cloud) elbTags() (all []elbtypes.Tag) {
	for _, t := range a.tags("api") {
		all = append(all, elbtypes.Tag{Key: t.Key, Value: t.Value})
	}
	return all
}

func elbTag(tags []elbtypes.Tag, key string) string {
	for _, t := range tags {
		if sdk.ToString(t.Key) == key {
			return sdk.ToString(t.Value)
		}
	}
	return ""
}

// balancer is the load balancer with what is behind it: its listener, and the control planes as targets.
func (a *Cloud) balancer(l *look, w *network, group *resource, running *resource, planes []*resource) (roots []*resource) {
	name, port := a.balancerName(), a.port()
	lb := &resource{kind: "load-balancer", name: name, detail: fmt.Sprintf("%s, %d/tcp", a.aws.LoadBalancer.Scheme, port), after: append([]*resource{group}, w.balanced...)}
	if w.gateway != nil && a.aws.LoadBalancer.Scheme != "internal" { // what faces the internet can't be made where nothing leads there
		lb.needs = append(lb.needs, w.gateway)
	}
	without := func(b *elbtypes.LoadBalancer) (some []*resource) { // in zones where it is in none
		for _, s := range w.balanced {
			if !slices.ContainsFunc(b.AvailabilityZones, func(z elbtypes.AvailabilityZone) bool { return sdk.ToString(z.ZoneName) == s.value }) {
				some = append(some, s)
			}
		}
		return some
	}
	lb.find = func() (string, []string, error) {
		b, err := l.balancer()
		if b == nil || err != nil {
			return "", nil, err
		}
		var lacks []string
		for _, s := range without(b) {
			lacks = append(lacks, "also in "+s.name)
		}
		return *b.LoadBalancerArn, lacks, nil
	}
	lb.mend = func(ctx context.Context) error {
		b, err := l.balancer()
		if err != nil {
			return err
		}
		var in []string
		for _, z := range b.AvailabilityZones { // all of which must be said again
			in = append(in, sdk.ToString(z.SubnetId))
		}
		for _, s := range without(b) {
			in = append(in, s.id)
		}
		_, err = a.elb.SetSubnets(ctx, &elb.SetSubnetsInput{LoadBalancerArn: b.LoadBalancerArn, Subnets: in})
		return err
	}
	lb.create = func(ctx context.Context) (string, error) {
		in := &elb.CreateLoadBalancerInput{Name: &name, Type: elbtypes.LoadBalancerTypeEnumNetwork, Scheme: elbtypes.LoadBalancerSchemeEnum(a.aws.LoadBalancer.Scheme),
			SecurityGroups: []string{group.id}, Tags: a.elbTags()} // groups can't be added to one that has none
		for _, s := range w.balanced {
			in.Subnets = append(in.Subnets, s.id)
		}
		out, err := a.elb.CreateLoadBalancer(ctx, in)
		if err != nil {
			return "", err
		}
		return *out.LoadBalancers[0].LoadBalancerArn, nil
	}
	target := &resource{kind: "target-group", name: name, detail: fmt.Sprintf("%d/tcp, https /readyz", port), after: []*resource{w.vpc}}
	target.find = func() (string, []string, error) {
		t, err := l.target()
		switch {
		case t == nil || err != nil:
			return "", nil, err
		case len(t.LoadBalancerArns) == 0: // it gets a listener when its attributes are right
			return *t.TargetGroupArn, []string{"attributes"}, nil
		}
		return *t.TargetGroupArn, nil, nil
	}
	target.create = func(ctx context.Context) (string, error) {
		out, err := a.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: &name, Protocol: elbtypes.ProtocolEnumTcp, Port: &port, VpcId: &w.vpc.id, TargetType: elbtypes.TargetTypeEnumInstance,
			HealthCheckProtocol: elbtypes.ProtocolEnumHttps, HealthCheckPath: sdk.String("/readyz"), HealthCheckIntervalSeconds: sdk.Int32(10), HealthyThresholdCount: sdk.Int32(2), UnhealthyThresholdCount: sdk.Int32(2),
			Tags: a.elbTags()})
		if err != nil {
			return "", err
		}
		return *out.TargetGroups[0].TargetGroupArn, nil
	}
	target.steps = []step{{name: "attributes", do: func(ctx context.Context) error {
		attribute := func(k, v string) elbtypes.TargetGroupAttribute {
			return elbtypes.TargetGroupAttribute{Key: &k, Value: &v}
		}
		_, err := a.elb.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: &target.id, Attributes: []elbtypes.TargetGroupAttribute{
			attribute("preserve_client_ip.enabled", "false"), // a control plane that comes back to itself would not know its own address
			attribute("load_balancing.cross_zone.enabled", "true"),
			attribute("deregistration_delay.timeout_seconds", "30"),
		}})
		return err
	}}}
	listener := &resource{kind: "listener", name: name, detail: fmt.Sprintf("%d/tcp", port), needs: []*resource{lb, target}}
	listener.find = func() (string, []string, error) {
		t, err := l.target()
		if t == nil || err != nil || len(t.LoadBalancerArns) == 0 {
			return "", nil, err
		}
		b, err := l.balancer()
		if b == nil || err != nil {
			return "", nil, err
		}
		if !slices.Contains(t.LoadBalancerArns, *b.LoadBalancerArn) {
			return "", nil, fmt.Errorf("the target group is that of another load balancer, %s: remove it from there", t.LoadBalancerArns[0])
		}
		if b.State != nil && b.State.Code == elbtypes.LoadBalancerStateEnumProvisioning {
			return *b.LoadBalancerArn, []string{"active"}, nil
		}
		return *b.LoadBalancerArn, nil, nil
	}
	listener.create = func(ctx context.Context) (string, error) {
		out, err := a.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: &lb.id, Protocol: elbtypes.ProtocolEnumTcp, Port: &port,
			DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &target.id}}})
		if err != nil {
			return "", err
		}
		return *out.Listeners[0].ListenerArn, nil
	}
	listener.steps = []step{{name: "active", do: func(ctx context.Context) error { return a.active(ctx, lb) }}}
	return []*resource{lb, listener, a.registered(l, target, running, planes)}
}

// active waits until the load balancer is.
func (a *Cloud) active(ctx context.Context, lb *resource) error {
	return a.until(ctx, "the load balancer", 15*time.Minute, func() (bool, string, error) {
		out, err := a.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{LoadBalancerArns: []string{lb.id}})
		if missing(err) || err == nil && len(out.LoadBalancers) == 0 {
			return false, "not there yet", nil
		}
		if err != nil {
			return false, "", err
		}
		b := out.LoadBalancers[0]
		if lb.value = sdk.ToString(b.DNSName); b.State == nil {
			return false, "in no known state", nil
		}
		if b.State.Code == elbtypes.LoadBalancerStateEnumFailed {
			return false, "", fmt.Errorf("it has failed: %s: remove it, and run this again", sdk.ToString(b.State.Reason))
		}
		return b.State.Code != elbtypes.LoadBalancerStateEnumProvisioning, string(b.State.Code), nil
	})
}

// registered are the control planes as targets; those that are terminated leave by themselves.
func (a *Cloud) registered(l *look, target, running *resource, planes []*resource) *resource {
	r := &resource{kind: "targets", name: target.name, after: append([]*resource{target}, planes...), needs: []*resource{running}}
	var names []string
	for _, p := range planes {
		names = append(names, p.name)
	}
	r.detail = strings.Join(names, ", ")
	r.find = func() (string, []string, error) {
		have, err := l.targets()
		if err != nil || len(have) == 0 {
			return "", nil, err
		}
		registered := map[string]bool{}
		for _, t := range have {
			if t.TargetHealth == nil || t.TargetHealth.State != elbtypes.TargetHealthStateEnumDraining {
				registered[sdk.ToString(t.Target.Id)] = true
			}
		}
		var lacks []string
		for _, p := range planes {
			i, err := part(l.instances, ofInstance, p.name)
			if err != nil {
				return "", nil, err
			}
			if i == nil || !registered[*i.InstanceId] {
				lacks = append(lacks, p.name)
			}
		}
		return target.name, lacks, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		in := &elb.RegisterTargetsInput{TargetGroupArn: &target.id}
		for _, p := range planes {
			in.Targets = append(in.Targets, elbtypes.TargetDescription{Id: &p.id})
		}
		_, err := a.elb.RegisterTargets(ctx, in)
		return target.name, err
	}
	r.mend = func(ctx context.Context) error { _, err := r.create(ctx); return err }
	return r
}

func ofInstance(i ec2types.Instance) (string, []ec2types.Tag, bool) {
	return *i.InstanceId, i.Tags, i.State != nil && i.State.Name != ec2types.InstanceStateNameTerminated && i.State.Name != ec2types.InstanceStateNameShuttingDown
}
