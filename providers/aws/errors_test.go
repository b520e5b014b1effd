package aws

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

func wants(t *testing.T, err error, all ...string) {
	t.Helper()
	for _, s := range all {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
}

func TestWhoeverCannotBeginIsToldWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		env      map[string]string
		document string
		wants    []string
	}{
		"no region":         {map[string]string{"AWS_REGION": ""}, small, []string{"no region", "AWS_REGION"}},
		"no credentials":    {map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, small, []string{"no credentials", "AWS_PROFILE"}},
		"wrong credentials": {map[string]string{"AWS_SECRET_ACCESS_KEY": "no"}, small, []string{"does not take the credentials"}},
		"another account":   {nil, "account: '444455556666'\n" + small, []string{"111122223333", "444455556666"}},
		"a document":        {nil, "controlPlane: {count: 2}", []string{"controlPlane.count", "odd"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, cloud.Options{})
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			a, err := New(t.Context(), parse(t, c.document), nil)
			if err == nil {
				_, err = a.Create(t.Context())
			}
			wants(t, err, c.wants...)
			if left := s.Resources(); len(left) > 0 {
				t.Errorf("it has made %s", left)
			}
		})
	}
}

// Whatever ends a run, nothing of it is orphaned: down finds it all, and the next run goes on.
func TestWhatEndsARunIsToldAndNothingIsOrphaned(t *testing.T) {
	zones := []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"}
	none := map[string]bool{}
	for _, z := range zones {
		none["t3.medium/"+z] = true
	}
	for name, c := range map[string]struct {
		options  cloud.Options
		document string
		wants    []string
	}{
		"quota":       {cloud.Options{Limits: map[string]int{"elastic-ip": 0}}, small, []string{"elastic-ip nat: ", "AddressLimitExceeded", "Service Quotas"}},
		"vcpus":       {cloud.Options{Limits: map[string]int{"vcpu": 4}}, small, []string{"VcpuLimitExceeded", "Service Quotas"}},
		"no capacity": {cloud.Options{NoCapacity: none}, small, []string{"no zone has room for t3.medium", "private-eu-west-1a", "private-eu-west-1c", "choose another instanceType"}},
		"unsupported": {cloud.Options{Unsupported: none}, small, []string{"no zone has room for t3.medium"}},
		"expired":     {cloud.Options{Expire: 40}, small, []string{"have expired", "run this again"}},
		"no type":     {cloud.Options{}, "controlPlane: {instanceType: t9.huge}", []string{"no instances of type t9.huge"}},
		"no profile":  {cloud.Options{}, "controlPlane: {instanceProfile: misspelt}", []string{"no instance profile misspelt", "write another"}},
		"no key":      {cloud.Options{}, "ssh: {keyName: misspelt, identityFile: /dev/null}", []string{"misspelt", "ssh.keyName"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c.options)
			a := connect(t, parse(t, c.document))
			_, err := a.Create(t.Context())
			wants(t, err, c.wants...)
			s.Change(func(o *cloud.Options) { o.Limits, o.NoCapacity, o.Unsupported, o.Expire = nil, nil, nil, 0 })
			if _, err := a.Delete(t.Context()); err != nil {
				t.Error(err)
			}
			if left := s.Resources(); len(left) > 0 {
				t.Errorf("left: %s", left)
			}
		})
	}
}

func TestAZoneWithoutRoomIsPassedOver(t *testing.T) {
	start(t, cloud.Options{NoCapacity: map[string]bool{"t3.medium/eu-west-1a": true}, Unsupported: map[string]bool{"t3.medium/eu-west-1b": true}})
	d := parse(t, small)
	if _, err := connect(t, d).Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range d.Spec.Hosts {
		if !strings.Contains(h.ProviderID, "/eu-west-1c/") {
			t.Errorf("%s is %s", h.Name, h.ProviderID)
		}
	}
}

func TestPoolsGrowAndShrinkAndAreReplaced(t *testing.T) {
	s := start(t, cloud.Options{Lag: 1})
	up := func(pools string) (*Cloud, *config.Cluster, []Change) {
		d := parse(t, pools)
		a := connect(t, d)
		changes, err := a.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return a, d, changes
	}
	a, d, _ := up("pools: [{name: a, count: 3}, {name: b, count: 1}]")
	gone := d.Spec.Hosts[2]
	if _, err := a.terminate(t.Context(), idOf(gone.ProviderID)); err != nil {
		t.Fatal(err)
	}
	if _, d, changes := up("pools: [{name: a, count: 3}, {name: b, count: 2}]"); len(changes) != 2 || len(d.Spec.Hosts) != 6 || changes[0].Name != "a-1" || changes[1].Name != "b-1" {
		t.Errorf("one was terminated, one is new: %v, %d hosts", changes, len(d.Spec.Hosts))
	}
	a, d, changes := up("pools: [{name: a, count: 1}]")
	if len(changes) != 0 || len(d.Spec.Hosts) != 2 || len(a.Surplus()) != 4 {
		t.Errorf("four are too many: %v, %d hosts, %d too many", changes, len(d.Spec.Hosts), len(a.Surplus()))
	}
	if _, err := a.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, changes := up("pools: [{name: a, count: 1}]"); len(changes) != 0 {
		t.Errorf("after that: %v", changes)
	}
	if n := strings.Count(strings.Join(s.Resources(), "\n"), "instance i-"); n != 3 { // with the bastion
		t.Errorf("%d machines", n)
	}
}

func idOf(providerID string) string { return providerID[strings.LastIndex(providerID, "/")+1:] }

func TestDownLeavesWhatIsNotOurs(t *testing.T) {
	start(t, cloud.Options{})
	one, two := parse(t, small), parse(t, small)
	two.Metadata.Name = "other"
	a, b := connect(t, one), connect(t, two)
	for _, x := range []*Cloud{a, b} {
		if _, err := x.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := parse(t, small)
	again.Metadata.Name = "other"
	if changes, err := connect(t, again).Plan(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("the other cluster lacks %v, %v", changes, err)
	}
}

// EKS, kops and others give what is theirs the same tag of Kubernetes', and may have a cluster of the same name.
func TestDownLeavesAStrangersOfTheSameName(t *testing.T) {
	c := start(t, cloud.Options{})
	a, b := connect(t, parse(t, small)), connect(t, parse(t, strings.Replace(small, "pools", "network: {cidr: 10.9.0.0/16}\npools", 1)))
	b.name, b.c.Metadata.Name = "stranger", "stranger"
	if _, err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, value := a.kubernetes()
	all := c.Resources()
	var ids []string
	for _, r := range all {
		if f := strings.Fields(r); f[0] == "security-group" {
			ids = append(ids, f[1])
		}
	}
	if _, err := b.ec2.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: ids, Tags: []ec2types.Tag{{Key: &key, Value: &value}}}); err != nil || len(ids) == 0 {
		t.Fatal(ids, err)
	}
	l, err := b.look(t.Context()).balancer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.elb.AddTags(t.Context(), &elb.AddTagsInput{ResourceArns: []string{*l.LoadBalancerArn}, Tags: []elbtypes.Tag{{Key: &key, Value: &value}}}); err != nil {
		t.Fatal(err)
	}
	zone := "eu-west-1a"
	if _, err := b.ec2.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: &zone, Size: sdk.Int32(1), TagSpecifications: []ec2types.TagSpecification{
		{ResourceType: ec2types.ResourceTypeVolume, Tags: []ec2types.Tag{{Key: &key, Value: &value}}}}}); err != nil {
		t.Fatal(err)
	}
	before := c.Resources()
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if after := c.Resources(); !slices.Equal(before, after) {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
}

func TestThrottlingIsNoQuota(t *testing.T) {
	for code, want := range map[string]string{
		"RequestLimitExceeded": "at this rate", "Throttling": "at this rate", "TooManyRequestsException": "at this rate",
		"MaxSpotInstanceCountExceeded": "Service Quotas", "VcpuLimitExceeded": "Service Quotas", "TooManyLoadBalancers": "Service Quotas", "LimitExceeded": "Service Quotas",
	} {
		wants(t, explain(&smithy.GenericAPIError{Code: code, Message: "no"}), code, want)
	}
}

// Where AWS is not reached, or says what nobody has foreseen, the SDK's own words about attempts and requests are left out.
func TestErrorsOfTheSDKAreReadable(t *testing.T) {
	wants(t, explain(&smithy.OperationError{ServiceID: "EC2", OperationName: "DescribeVpcs", Err: &smithy.GenericAPIError{Code: "Odd", Message: "never heard of"}}), "Odd: never heard of: so EC2 answers DescribeVpcs")
	wants(t, explain(fmt.Errorf("no zone has room: %w", &smithy.GenericAPIError{Code: "InsufficientInstanceCapacity", Message: "full"})), "no zone has room")
	start(t, cloud.Options{})
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	a := connect(t, parse(t, small))
	_, err := a.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}, func(o *sts.Options) { o.Retryer = sdk.NopRetryer{} })
	if err = explain(err); strings.Contains(err.Error(), "RequestID") || strings.Contains(err.Error(), "operation error") {
		t.Error(err)
	}
	wants(t, err, "AWS is not reached: ", "connection refused", "AWS_ENDPOINT_URL")
	unknown := &smithy.OperationError{Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "sts.eu-wst-1.amazonaws.com", IsNotFound: true}}}
	if r := retryer(&backoff{}, noHost); !noHost(unknown) || r.IsErrorRetryable(unknown) || !r.IsErrorRetryable(&smithy.GenericAPIError{Code: "Throttling"}) || noHost(err) {
		t.Error("a misspelt region is tried again, or what should be is not")
	}
}

func TestAProfileThatHasAnotherRoleIsLeftAlone(t *testing.T) {
	s := start(t, whims())
	a := connect(t, parse(t, small))
	name, other := a.profileName(), "others"
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &other, AssumeRolePolicyDocument: sdk.String(`{"Statement":[]}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.iam.RemoveRoleFromInstanceProfile(t.Context(), &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: &name, RoleName: &name}); err != nil {
		t.Fatal(err)
	}
	if err := a.settle(t.Context(), func() error {
		_, err := a.iam.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &other})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err := connect(t, parse(t, strings.Replace(small, "count: 2", "count: 3", 1))).Create(t.Context())
	wants(t, err, "the role others", "aws iam remove-role-from-instance-profile --instance-profile-name "+name)
	if n := count(s, "instance"); n != 6 {
		t.Errorf("it has made a machine before: there are %d", n)
	}
}

func TestOneThatHasGoneHidesNoOthers(t *testing.T) {
	start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := a.look(t.Context()).balancer()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		arns := slices.Repeat([]string{*b.LoadBalancerArn + "0"}, 5)
		arns[n] = *b.LoadBalancerArn
		if all, err := a.tagged(t.Context(), arns, nil, nil, func(arn string) thing { return thing{id: arn} }); err != nil || len(all) != 1 || all[0].id != *b.LoadBalancerArn {
			t.Errorf("of %v: %v, %v", arns, all, err)
		}
	}
}
