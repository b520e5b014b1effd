package cloud_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// asRole are the clients of an instance with that policy: its metadata has the credentials.
func (c *clients) asRole(t *testing.T, subnet, policy string) *clients {
	t.Helper()
	ctx, name := t.Context(), aws.String("node")
	ok(c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(`{"Statement":[]}`)}))(t)
	ok(c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: name, PolicyDocument: &policy}))(t)
	ok(c.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}))(t)
	ok(c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))(t)
	i := ok(c.ec2.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: "t3.medium", SubnetId: &subnet, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: name}}))(t).Instances[0]
	var key struct{ AccessKeyId, SecretAccessKey, Token string }
	text := metadata(t, c.cloud, *i.PrivateIpAddress, http.MethodGet, "/latest/meta-data/iam/security-credentials/node", nil)
	if err := json.Unmarshal([]byte(text.body), &key); err != nil {
		t.Fatalf("%v: %+v", err, text)
	}
	return connect(t, c.cloud, aws.Credentials{AccessKeyID: key.AccessKeyId, SecretAccessKey: key.SecretAccessKey, SessionToken: key.Token})
}

type told struct {
	code int
	body string
}

// metadata asks as the instance of that address does.
func metadata(t *testing.T, c *cloud.Cloud, from, method, path string, header http.Header) told {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = from + ":40000"
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	cloud.Metadata(c).ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return told{w.Code, string(body)}
}

func TestARoleMayDoWhatItsPolicySays(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	vpc, subnets := c.vpc(t)
	ours, theirs := c.group(t, vpc, "ours"), c.group(t, vpc, "theirs")
	tag := types.Tag{Key: aws.String("kubernetes.io/cluster/prod"), Value: aws.String("owned")}
	ok(c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{ours}, Tags: []types.Tag{tag}}))(t)
	role := c.asRole(t, subnets[0], `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
		{"Effect": "Deny", "Action": ["ec2:DescribeVolumes"], "Resource": ["*"]},
		{"Effect": "Allow", "Action": ["ec2:AuthorizeSecurityGroupIngress"], "Resource": ["arn:aws:ec2:eu-west-1:111122223333:security-group/*"],
			"Condition": {"StringEquals": {"aws:ResourceTag/kubernetes.io/cluster/prod": "owned"}}},
		{"Effect": "Allow", "Action": ["elasticloadbalancing:CreateTargetGroup"], "Resource": ["arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/*"],
			"Condition": {"Null": {"aws:RequestTag/service": "false"}}},
		{"Effect": "Allow", "Action": ["elasticloadbalancing:CreateListener"], "Resource": ["*"]},
		{"Effect": "Allow", "Action": ["elasticloadbalancing:AddTags"], "Resource": ["*"], "Condition": {"StringEquals": {"elasticloadbalancing:CreateAction": ["CreateTargetGroup"]}}}]}`)
	ok(role.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}))(t)
	refused(role.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{}))(t, "UnauthorizedOperation")
	refused(role.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))(t, "UnauthorizedOperation")
	rule := func(group string) *ec2.AuthorizeSecurityGroupIngressInput {
		return &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: []types.IpPermission{{IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8")}}}}}
	}
	ok(role.ec2.AuthorizeSecurityGroupIngress(ctx, rule(ours)))(t)
	refused(role.ec2.AuthorizeSecurityGroupIngress(ctx, rule(theirs)))(t, "UnauthorizedOperation")

	in := &elb.CreateTargetGroupInput{Name: aws.String("web"), Port: aws.Int32(80), Protocol: "TCP", VpcId: &vpc}
	refused(role.elb.CreateTargetGroup(ctx, in))(t, "AccessDenied")
	in.Tags = []elbtypes.Tag{{Key: aws.String("service"), Value: aws.String("default/web")}}
	arn := *ok(role.elb.CreateTargetGroup(ctx, in))(t).TargetGroups[0].TargetGroupArn
	// To create something with tags needs a right to tags, too.
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("web"), Type: "network", Subnets: subnets}))(t).LoadBalancers[0].LoadBalancerArn
	listener := &elb.CreateListenerInput{LoadBalancerArn: lb, Port: aws.Int32(80), Protocol: "TCP", DefaultActions: []elbtypes.Action{{Type: "forward", TargetGroupArn: &arn}}, Tags: in.Tags}
	refused(role.elb.CreateListener(ctx, listener))(t, "AccessDenied")
	listener.Tags = nil
	ok(role.elb.CreateListener(ctx, listener))(t)
	refused(role.elb.AddTags(ctx, &elb.AddTagsInput{ResourceArns: []string{arn}, Tags: in.Tags}))(t, "AccessDenied")
}

func TestMetadataIsForWhoHasAToken(t *testing.T) {
	c, ctx := start(t, cloud.Options{}), t.Context()
	_, subnets := c.vpc(t)
	run := func(tokens types.HttpTokensState) string {
		out := ok(c.ec2.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: "t3.medium", SubnetId: &subnets[0], MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			UserData: aws.String("I2Nsb3VkLWNvbmZpZwo="), MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpTokens: tokens, InstanceMetadataTags: "enabled"}, TagSpecifications: tagged("instance", "w-1")}))(t)
		return *out.Instances[0].PrivateIpAddress
	}
	strict, lax := run("required"), run("optional")
	header := func(name, v string) http.Header { return http.Header{"X-Aws-Ec2-Metadata-Token" + name: {v}} }
	token := metadata(t, c.cloud, strict, http.MethodPut, "/latest/api/token", header("-Ttl-Seconds", "60")).body
	for _, tt := range []struct {
		what, from, method, path string
		header                   http.Header
		want                     told
	}{
		{"no token", strict, "GET", "/latest/meta-data/local-ipv4", nil, told{401, ""}},
		{"no token, where none is required", lax, "GET", "/latest/meta-data/local-ipv4", nil, told{200, lax}},
		{"another one's token", lax, "GET", "/latest/meta-data/local-ipv4", header("", token), told{401, ""}},
		{"a token", strict, "GET", "/latest/meta-data/local-ipv4", header("", token), told{200, strict}},
		{"a folder", strict, "GET", "/latest/meta-data/placement/", header("", token), told{200, "availability-zone\navailability-zone-id\nregion"}},
		{"tags", strict, "GET", "/latest/meta-data/tags/instance/Name", header("", token), told{200, "w-1"}},
		{"user data", strict, "GET", "/latest/user-data", header("", token), told{200, "#cloud-config\n"}},
		{"what is not there", strict, "GET", "/latest/meta-data/spot", header("", token), told{404, ""}},
		{"a token for too long", strict, "PUT", "/latest/api/token", header("-Ttl-Seconds", "21601"), told{400, ""}},
		{"nobody", "10.0.9.9", "GET", "/latest/meta-data/", nil, told{404, "no instance has the address 10.0.9.9"}},
	} {
		if got := metadata(t, c.cloud, tt.from, tt.method, tt.path, tt.header); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.what, got, tt.want)
		}
	}
}
