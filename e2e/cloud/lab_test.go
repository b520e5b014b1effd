package cloud_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/crypto/ssh"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/e2e/lab"
)

// booted is a cloud whose machines are those of a lab of the test's own.
func booted(t *testing.T) (*clients, *cloud.Lab) {
	t.Helper()
	if testing.Short() {
		t.Skip("hosts are booted: not with -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root")
	}
	l, err := lab.New(t.Context(), lab.Options{Name: "cloud-test", Subnet: "10.220.0.0/20", Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	m, err := cloud.NewLab(l, lab.Image{})
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, cloud.Options{Machines: m, Check: 100 * time.Millisecond, Log: t.Logf})
	if err := m.Serve(c.cloud); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, m
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// machine is an instance that runs, and its host.
type machine struct {
	types.Instance
	*lab.Host
}

// sh runs a script on the machine and returns what it prints.
func (m machine) sh(t *testing.T, script string) string {
	t.Helper()
	out, _, err := m.Exec(t.Context(), nil, "sh", "-c", script)
	if err != nil {
		t.Log(err)
	}
	return strings.TrimSpace(out)
}

func TestInstancesAreMachinesBehindAForwarder(t *testing.T) {
	c, m := booted(t)
	ctx := t.Context()
	vpc := ok(c.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.220.0.0/20")}))(t).Vpc.VpcId
	igw := ok(c.ec2.CreateInternetGateway(ctx, &ec2.CreateInternetGatewayInput{}))(t).InternetGateway.InternetGatewayId
	ok(c.ec2.AttachInternetGateway(ctx, &ec2.AttachInternetGatewayInput{InternetGatewayId: igw, VpcId: vpc}))(t)
	subnet := ok(c.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc, CidrBlock: aws.String("10.220.1.0/24")}))(t).Subnet.SubnetId
	nodes, front := c.group(t, *vpc, "nodes"), c.group(t, *vpc, "front")
	key := ok(c.ec2.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("prod"), KeyType: "ed25519"}))(t)
	c.profile(t, "node")
	out := ok(c.ec2.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: c.image(t), InstanceType: "t3.medium", MinCount: aws.Int32(2), MaxCount: aws.Int32(2), KeyName: key.KeyName,
		SubnetId: subnet, SecurityGroupIds: []string{nodes}, IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: aws.String("node")},
		MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpTokens: "required"}}))(t)
	ids := []string{*out.Instances[0].InstanceId, *out.Instances[1].InstanceId}
	if err := ec2.NewInstanceRunningWaiter(c.ec2, func(o *ec2.InstanceRunningWaiterOptions) { o.MinDelay, o.MaxDelay = 1e8, 1e9 }).Wait(ctx, &ec2.DescribeInstancesInput{InstanceIds: ids}, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	var machines []machine
	for _, i := range ok(c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: ids}))(t).Reservations[0].Instances {
		machines = append(machines, machine{i, m.Host(*i.InstanceId)})
	}
	one, two := machines[0], machines[1]
	if got := one.sh(t, "hostname -I; hostname"); !strings.HasPrefix(got, *one.PrivateIpAddress) || !strings.HasSuffix(got, "ip-10-220-1-4") {
		t.Errorf("address and name: %s", got)
	}
	if conn, err := net.DialTimeout("tcp", *one.PrivateIpAddress+":22", 2*time.Second); err == nil {
		conn.Close()
		t.Error("the groups let nobody in, and yet port 22 answers")
	}
	ok(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &nodes, IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}}}))(t)
	login(t, *one.PrivateIpAddress, *key.KeyMaterial)

	t.Run("metadata", func(t *testing.T) {
		const get = `curl() { exec 3<>/dev/tcp/169.254.169.254/80; printf "$1 $2 HTTP/1.0\r\n$3\r\n" >&3; cat <&3; }
			code=$(curl GET /latest/meta-data/instance-id | head -1); echo "$code"
			token=$(curl PUT /latest/api/token "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n" | tail -1)
			for p in instance-id local-ipv4 placement/availability-zone iam/security-credentials/; do
				curl GET /latest/meta-data/$p "X-aws-ec2-metadata-token: $token\r\n" | tail -1; echo
			done`
		lines := strings.Fields(one.sh(t, "bash -c '"+get+"'"))
		if want := []string{"HTTP/1.0", "401", "Unauthorized", ids[0], "10.220.1.4", "eu-west-1a", "node"}; strings.Join(lines, " ") != strings.Join(want, " ") {
			t.Errorf("told %q, want %q", lines, want)
		}
	})
	t.Run("metadata for pods", func(t *testing.T) {
		// A network as a pod's: one hop further.
		one.sh(t, `ip netns add pod; ip link add pod0 type veth peer name eth0 netns pod; ip addr add 10.250.0.1/24 dev pod0; ip link set pod0 up
			ip -n pod addr add 10.250.0.2/24 dev eth0; ip -n pod link set eth0 up; ip -n pod route add default via 10.250.0.1
			sysctl -qw net.ipv4.ip_forward=1; iptables -t nat -A POSTROUTING -s 10.250.0.0/24 -o eth0 -j MASQUERADE`)
		const put = `ip netns exec pod timeout 1 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80; printf "PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n" >&3; head -1 <&3' || echo nothing`
		if got := one.sh(t, put); got != "nothing" {
			t.Errorf("with one hop, a pod was told %q", got)
		}
		ok(c.ec2.ModifyInstanceMetadataOptions(ctx, &ec2.ModifyInstanceMetadataOptionsInput{InstanceId: one.InstanceId, HttpPutResponseHopLimit: aws.Int32(2)}))(t)
		if got := one.sh(t, put); got != "HTTP/1.0 200 OK" {
			t.Errorf("with two hops, a pod was told %q", got)
		}
	})
	t.Run("names", func(t *testing.T) {
		for name, want := range map[string]string{*two.PrivateDnsName: "10.220.1.5", "ip-10-220-1-5": "10.220.1.5", "ip-10-9-9-9.eu-west-1.compute.internal": ""} {
			if got, _, _ := strings.Cut(one.sh(t, "getent ahostsv4 "+name), " "); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
	t.Run("forwarder", func(t *testing.T) { c.forwards(t, *vpc, *subnet, nodes, front, one, two) })

	ok(c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}))(t)
	until(t, "instances terminated", func() bool {
		out, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: filter("instance-state-name", "terminated")})
		return err == nil && len(out.Reservations) == 1 && len(out.Reservations[0].Instances) == 2
	})
}

func (c *clients) profile(t *testing.T, name string) {
	t.Helper()
	ok(c.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(`{"Statement":[]}`)}))(t)
	ok(c.iam.CreateInstanceProfile(t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: &name}))(t)
	ok(c.iam.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name}))(t)
}

// login is ssh with the key pair's private key, and sudo.
func login(t *testing.T, address, material string) {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(material))
	if err != nil {
		t.Fatal(err)
	}
	var s *ssh.Client
	until(t, "ssh", func() bool {
		s, err = ssh.Dial("tcp", address+":22", &ssh.ClientConfig{User: cloud.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Second})
		return err == nil
	})
	defer s.Close()
	session, err := s.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.CombinedOutput("sudo -n id -u"); err != nil || strings.TrimSpace(string(out)) != "0" {
		t.Errorf("sudo: %v: %s", err, out)
	}
}

// forwards tries a load balancer before two machines: who is healthy is asked, security groups count, and a target is
// not led to itself while it would see its own address.
func (c *clients) forwards(t *testing.T, vpc, subnet, nodes, front string, one, two machine) {
	ctx, port := t.Context(), aws.Int32(6443)
	allow := func(group string, p types.IpPermission) {
		p.IpProtocol, p.FromPort, p.ToPort = aws.String("tcp"), port, port
		ok(c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: []types.IpPermission{p}}))(t)
	}
	lb := ok(c.elb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("api"), Type: "network", Subnets: []string{subnet}, SecurityGroups: []string{front}}))(t).LoadBalancers[0]
	tg := ok(c.elb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: aws.String("api"), Port: port, Protocol: "TCP", VpcId: &vpc, HealthCheckProtocol: "TCP",
		HealthyThresholdCount: aws.Int32(2), UnhealthyThresholdCount: aws.Int32(2)}))(t).TargetGroups[0].TargetGroupArn
	ok(c.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: lb.LoadBalancerArn, Port: port, Protocol: "TCP", DefaultActions: []elbtypes.Action{{Type: "forward", TargetGroupArn: tg}}}))(t)
	ok(c.elb.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: tg, Targets: []elbtypes.TargetDescription{{Id: one.InstanceId}, {Id: two.InstanceId}}}))(t)
	health := func(m machine, state elbtypes.TargetHealthStateEnum) func() bool {
		return func() bool {
			h := ok(c.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: tg, Targets: []elbtypes.TargetDescription{{Id: m.InstanceId}}}))(t).TargetHealthDescriptions
			return h[0].TargetHealth.State == state
		}
	}
	ask := func(from machine) string {
		return from.sh(t, "timeout 2 socat -u TCP4:"+*lb.DNSName+":6443,connect-timeout=2 - || echo nothing")
	}
	one.sh(t, "systemd-run --unit=echo socat TCP4-LISTEN:6443,fork,reuseaddr SYSTEM:'echo one'")
	until(t, "unhealthy while the groups let nobody in", health(one, "unhealthy"))
	allow(nodes, types.IpPermission{UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &front}}})
	until(t, "the one that listens is healthy", health(one, "healthy"))
	until(t, "the one that does not is not", health(two, "unhealthy"))
	if got := ask(two); got != "nothing" {
		t.Errorf("the load balancer's group lets nobody in, and yet: %s", got)
	}
	allow(front, types.IpPermission{UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &nodes}}})
	if got := ask(two); got != "one" {
		t.Errorf("from two: %s", got)
	}
	if got := ask(one); got != "nothing" {
		t.Errorf("from one, to itself, its address preserved: %s", got)
	}
	ok(c.elb.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: tg, Attributes: []elbtypes.TargetGroupAttribute{
		{Key: aws.String("preserve_client_ip.enabled"), Value: aws.String("false")}}}))(t)
	if got := ask(one); got != "one" {
		t.Errorf("from one, to itself: %s", got)
	}
	// One that is found unhealthy loses its connections, as it can't be trusted to end them.
	one.sh(t, "systemctl stop echo; systemd-run --unit=mute socat TCP4-LISTEN:6443,fork,reuseaddr EXEC:'sleep 1000'")
	two.sh(t, "systemd-run --unit=held sh -c 'socat -u TCP4:"+*lb.DNSName+":6443 - ; echo $? > /run/held'")
	until(t, "a connection", func() bool { return two.sh(t, "ss -Htn state established dport = :6443") != "" })
	one.sh(t, "iptables -I INPUT -p tcp --dport 6443 -j DROP")
	until(t, "the connection ended", func() bool { return two.sh(t, "cat /run/held") != "" })
	one.sh(t, "iptables -F INPUT; systemctl stop mute")
	two.sh(t, "systemd-run --unit=echo socat TCP4-LISTEN:6443,fork,reuseaddr SYSTEM:'echo two'")
	until(t, "the other one is healthy", health(two, "healthy"))
	until(t, "the first is not", health(one, "unhealthy"))
	if got := ask(one); got != "two" {
		t.Errorf("from one: %s", got)
	}
}
