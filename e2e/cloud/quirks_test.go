package cloud_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestOnlyWhoHasTheKeyIsLetIn(t *testing.T) {
	right := aws.Credentials{AccessKeyID: cloud.TestKeyID, SecretAccessKey: cloud.TestKey.Secret}
	for name, tt := range map[string]struct {
		credentials aws.Credentials
		ec2, others string
	}{
		"another key":    {aws.Credentials{AccessKeyID: "AKIANOBODY", SecretAccessKey: "x"}, "AuthFailure", "InvalidClientTokenId"},
		"another secret": {aws.Credentials{AccessKeyID: right.AccessKeyID, SecretAccessKey: "x"}, "AuthFailure", "SignatureDoesNotMatch"},
		"a session that the key does not have": {aws.Credentials{AccessKeyID: right.AccessKeyID, SecretAccessKey: right.SecretAccessKey, SessionToken: "x"},
			"AuthFailure", "InvalidClientTokenId"},
		"the right key": {right, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, cloud.New(cloud.Options{}), tt.credentials)
			refused(c.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{}))(t, tt.ec2)
			refused(c.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}))(t, tt.others)
		})
	}
}

func TestAccountsSeeWhatIsTheirs(t *testing.T) {
	both := cloud.New(cloud.Options{Keys: map[string]cloud.Key{"AKIAONE": {Secret: "1", Account: "111111111111"}, "AKIATWO": {Secret: "2", Session: "s", Account: "222222222222"}}})
	one := connect(t, both, aws.Credentials{AccessKeyID: "AKIAONE", SecretAccessKey: "1"})
	two := connect(t, both, aws.Credentials{AccessKeyID: "AKIATWO", SecretAccessKey: "2", SessionToken: "s"})
	vpc, _ := one.vpc(t)
	refused(two.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{VpcIds: []string{vpc}}))(t, "InvalidVpcID.NotFound")
	if id := ok(two.sts.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}))(t); *id.Account != "222222222222" {
		t.Errorf("account %s", *id.Account)
	}
}

func TestATokenMakesOneThingOnce(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	_, subnets := c.vpc(t)
	in := ec2.RunInstancesInput{ClientToken: aws.String("prod-w-1"), ImageId: c.image(t), InstanceType: "t3.medium", SubnetId: &subnets[0], MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
	first := ok(c.ec2.RunInstances(ctx, &in))(t).Instances[0].InstanceId
	again := ok(c.ec2.RunInstances(ctx, &in))(t).Instances[0]
	if *again.InstanceId != *first {
		t.Errorf("a second instance: %s, %s", *first, *again.InstanceId)
	}
	other := in
	other.InstanceType = "t3.large"
	refused(c.ec2.RunInstances(ctx, &other))(t, "IdempotentParameterMismatch")
	// A token outlives what it made, and what is told of that.
	ok(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*first}}))(t)
	if n := len(ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}))(t).Reservations); n != 1 {
		t.Errorf("%d reservations after one was terminated", n)
	}
	refused(c.ec2.RunInstances(ctx, &in))(t, "IdempotentInstanceTerminated")
	c.cloud.Forget()
	refused(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{*first}}))(t, "InvalidInstanceID.NotFound")
	refused(c.ec2.RunInstances(ctx, &in))(t, "IdempotentInstanceTerminated")
}

func TestNewThingsAreNotSeenAtOnce(t *testing.T) {
	c, ctx := start(t, cloud.Options{Lag: 2}), t.Context()
	id := []string{*ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))(t).Vpc.VpcId}
	if n := len(ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: filter("cidr", "10.0.0.0/16")}))(t).Vpcs); n != 0 {
		t.Errorf("%d VPCs at the first look", n)
	}
	refused(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: id}))(t, "InvalidVpcID.NotFound")
	ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: id}))(t)

	doc, name := aws.String(`{"Statement":[]}`), aws.String("r")
	ok(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: doc}))(t)
	refused(c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: name}))(t, "NoSuchEntity")
}

func TestAnswersComeInPages(t *testing.T) {
	c, ctx := start(t, cloud.Options{PageSize: 2}), t.Context()
	_, subnets := c.vpc(t)
	c.run(t, subnets[0], 5)
	var pages, found int
	for p := ec2.NewDescribeInstancesPaginator(c.ec2, &ec2.DescribeInstancesInput{}); p.HasMorePages(); pages++ {
		for _, r := range ok(p.NextPage(ctx))(t).Reservations {
			found += len(r.Instances)
		}
	}
	if pages != 3 || found != 5 {
		t.Errorf("%d instances in %d pages", found, pages)
	}
	for _, name := range []string{"a", "b", "c"} {
		ok(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(`{"Statement":[]}`)}))(t)
	}
	roles := 0
	for p := iam.NewListRolesPaginator(c.iam, &iam.ListRolesInput{}); p.HasMorePages(); {
		roles += len(ok(p.NextPage(ctx))(t).Roles)
	}
	if roles != 3 {
		t.Errorf("%d roles", roles)
	}
}

func TestThrottledCallsAreTriedAgainByTheSDK(t *testing.T) {
	c, ctx := start(t, cloud.Options{Throttle: 2}), t.Context()
	ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t)
	refused(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t, "RequestLimitExceeded")
	ok(c.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{}))(t)
	refused(c.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{}))(t, "Throttling")
	ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t)
	ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}, func(o *ec2.Options) { o.RetryMaxAttempts = 3 }))(t)
}

func TestCredentialsExpire(t *testing.T) {
	c, ctx := start(t, cloud.Options{Expire: 1}), t.Context()
	ok(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t)
	refused(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{}))(t, "RequestExpired")
	refused(c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))(t, "ExpiredToken")
}

func TestStatesTakeTheirTime(t *testing.T) {
	c, ctx := start(t, cloud.Options{Delay: time.Hour}), t.Context()
	_, subnets := c.vpc(t)
	id := []string{*c.run(t, subnets[0], 1).Instances[0].InstanceId}
	state := func() types.InstanceStateName {
		return ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: id}))(t).Reservations[0].Instances[0].State.Name
	}
	if s := state(); s != "pending" {
		t.Errorf("at first: %s", s)
	}
	c.cloud.Change(func(o *cloud.Options) { o.Delay = 0 })
	ok(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: id}))(t)
	if s := state(); s != "terminated" {
		t.Errorf("at last: %s", s)
	}
}

func TestZonesHaveNotEverything(t *testing.T) {
	c, ctx := start(t, cloud.Options{Limits: map[string]int{"vcpu": 4}, NoCapacity: map[string]bool{"t3.small/eu-west-1a": true}, Unsupported: map[string]bool{"t3.micro/eu-west-1a": true}}), t.Context()
	_, subnets := c.vpc(t)
	run := func(kind types.InstanceType, subnet string, n int32) error {
		_, err := c.ec2.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: kind, SubnetId: &subnet, MinCount: &n, MaxCount: &n})
		return err
	}
	for _, tt := range []struct {
		kind   types.InstanceType
		subnet int
		n      int32
		code   string
	}{
		{"t3.small", 0, 1, "InsufficientInstanceCapacity"},
		{"t3.micro", 0, 1, "Unsupported"},
		{"t3.micro", 1, 1, ""},
		{"t3.small", 1, 2, "VcpuLimitExceeded"},
		{"t3.small", 1, 1, ""},
		{"t4g.small", 1, 1, "InvalidParameterValue"}, // another architecture than the image's
	} {
		if code := codeOf(run(tt.kind, subnets[tt.subnet], tt.n)); code != tt.code {
			t.Errorf("%s in subnet %d: %q, want %q", tt.kind, tt.subnet, code, tt.code)
		}
	}
	offered := ok(c.ec2.DescribeInstanceTypeOfferings(ctx, &ec2.DescribeInstanceTypeOfferingsInput{LocationType: "availability-zone", Filters: filter("instance-type", "t3.micro")}))(t)
	if n := len(offered.InstanceTypeOfferings); n != 2 {
		t.Errorf("t3.micro is offered in %d zones", n)
	}
}

func TestCallsFailByScript(t *testing.T) {
	var seen []string
	c, ctx := start(t, cloud.Options{Before: cloud.FailNth("CreateVpc", 2, &cloud.Error{Code: "InternalError", Status: 500}),
		After: func(c cloud.Call) { seen = append(seen, c.Action+c.Code) }}), t.Context()
	in := &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}
	ok(c.ec2.CreateVpc(ctx, in))(t)
	refused(c.ec2.CreateVpc(ctx, in))(t, "InternalError")
	ok(c.ec2.CreateVpc(ctx, in))(t)
	if want := []string{"CreateVpc", "CreateVpcInternalError", "CreateVpc"}; !slices.Equal(seen, want) {
		t.Errorf("calls %v", seen)
	}
	if calls := c.cloud.Calls(); calls[2].N != 3 || calls[2].Params.Get("CidrBlock") != "10.0.0.0/16" || calls[2].End.Before(calls[2].Begin) {
		t.Errorf("calls: %+v", calls)
	}
}

func TestWhatIsNotKnownIsLoud(t *testing.T) {
	var log strings.Builder
	c, ctx := connect(t, cloud.New(cloud.Options{Log: func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) }}), test), t.Context()
	refused(c.ec2.DescribeVpnGateways(ctx, &ec2.DescribeVpnGatewaysInput{}))(t, "InvalidAction")
	if !strings.Contains(log.String(), "DescribeVpnGateways") {
		t.Errorf("log: %s", log.String())
	}
	refused(c.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: filter("colour", "red")}))(t, "InvalidParameterValue")
	ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), AmazonProvidedIpv6CidrBlock: aws.Bool(true)}))(t)
	if !strings.Contains(log.String(), "AmazonProvidedIpv6CidrBlock") {
		t.Errorf("log: %s", log.String())
	}
}

func TestLatencyIsThatOfEachCall(t *testing.T) {
	c := start(t, cloud.Options{Latency: 20 * time.Millisecond})
	ok(c.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{}))(t)
	if call := c.cloud.Calls()[0]; call.End.Sub(call.Begin) < 20*time.Millisecond {
		t.Errorf("took %s", call.End.Sub(call.Begin))
	}
}

// The AWS CLI and curl sign no Content-Length, as the SDK does.
func TestASignatureMayLeaveOutTheLength(t *testing.T) {
	s := httptest.NewServer(cloud.New(cloud.Options{}))
	defer s.Close()
	const body = "Action=DescribeVpcs&Version=2016-11-15"
	r, err := http.NewRequest(http.MethodPost, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), test, r, hex.EncodeToString(sum[:]), "ec2", "eu-west-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%+v, %v", answer, err)
	}
}
