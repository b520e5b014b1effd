package aws

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"
)

// refusals are all that the document wants otherwise than it is there, and that can't be changed; what is of a VPC's ranges is told by [unchanged], when the
// zones are known. They are told before the first change.
func (a *Cloud) refusals(ctx context.Context, l *look) []error {
	return []error{a.otherVPC(ctx, l), a.otherScheme(l), a.otherPort(l), a.otherKey(l), a.noIdentity()}
}

const endFirst = "or end this cluster first with `kubewright down`"

// otherVPC refuses to make a cluster again in another VPC than the one in which its security groups are.
func (a *Cloud) otherVPC(ctx context.Context, l *look) error {
	vpcs, err := l.vpcs()
	if err != nil {
		return err
	}
	groups, err := l.groups()
	if err != nil {
		return err
	}
	strange := slices.IndexFunc(groups, func(g ec2types.SecurityGroup) bool {
		return !slices.ContainsFunc(vpcs, func(v ec2types.Vpc) bool { return *v.VpcId == sdk.ToString(g.VpcId) })
	})
	own, where := a.aws.Network.Own(), a.mine() // a VPC of the cluster's own is made before its groups
	switch {
	case strange >= 0:
		where = []ec2types.Filter{filter("vpc-id", sdk.ToString(groups[strange].VpcId))}
	case own || len(groups) > 0:
		return nil
	}
	out, err := a.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: where})
	if err != nil || len(out.Vpcs) == 0 {
		return err
	}
	is, ours := *out.Vpcs[0].VpcId, tagOf(out.Vpcs[0].Tags, clusterTag) == a.name
	switch {
	case ours && own: // it is not seen yet
		return nil
	case ours:
		return wrong("network.vpc", "the cluster has a VPC of its own, %s, and can't move: leave vpc and subnets out, %s", is, endFirst)
	}
	return wrong("network.vpc", "the cluster is in %s, and can't move: write that, and subnets of it, %s", is, endFirst)
}

func (a *Cloud) otherScheme(l *look) error {
	b, err := l.balancer()
	if b == nil || err != nil || string(b.Scheme) == a.aws.LoadBalancer.Scheme {
		return err
	}
	return wrong("loadBalancer.scheme", "the load balancer is %s, which can't be changed: write loadBalancer.scheme: %s, %s", b.Scheme, b.Scheme, endFirst)
}

func (a *Cloud) otherPort(l *look) error {
	t, err := l.target()
	if t == nil || err != nil || sdk.ToInt32(t.Port) == a.port() {
		return err
	}
	return &DocumentError{fmt.Errorf("spec.controlPlane.bindPort: the API servers of the cluster are at %d, and not at %d, which can't be changed: write that, %s", sdk.ToInt32(t.Port), a.port(), endFirst)}
}

// otherKey refuses another key pair than that with which the machines were launched: there is one way to log in to all of them.
func (a *Cloud) otherKey(l *look) error {
	all, err := l.instances()
	for _, i := range all {
		has := sdk.ToString(i.KeyName)
		if _, _, alive := ofInstance(i); !alive || has == "" || has == a.keyName() {
			continue
		}
		next := fmt.Sprintf("write ssh.keyName: %s, and its private key under ssh.identityFile", has)
		if has == a.ownKeyName() {
			next = "that is the cluster's own: leave keyName and identityFile out"
		}
		return wrong("ssh.keyName", "the machines that are there, %s (%s) among them, were launched with the key pair %s, and not with %s: %s, %s", *i.InstanceId, tagOf(i.Tags, partTag), has, a.keyName(), next, endFirst)
	}
	return err
}

// noIdentity refuses an identityFile with which nobody can log in, whatever the key pair is. A file that is there and can't be read is believed: an agent may
// have the key; so may it that of a public half.
func (a *Cloud) noIdentity() error {
	named := a.aws.SSH.IdentityFile
	if named == "" {
		return nil
	}
	const field, next = "ssh.identityFile", "write where the private key of ssh.keyName is, from the root, from ~/ or from the folder where you are"
	path := atHome(named)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		whole, _ := filepath.Abs(path)
		return wrong(field, "there is no such file as %s: %s", whole, next)
	}
	if err == nil && info.IsDir() {
		return wrong(field, "%s is a folder: %s", path, next)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey(b); err == nil {
		private := strings.TrimSuffix(named, ".pub")
		if _, err := os.Stat(atHome(private)); err == nil && private != named {
			return wrong(field, "%s is the public half: write %s", named, private)
		}
		return nil
	}
	if block, _ := pem.Decode(b); block == nil {
		return wrong(field, "%s is no private key as ssh has them: %s", path, next)
	}
	return nil
}

// unchanged refuses a network whose subnets are others than those that are there: nodes can't move.
func unchanged(l *look, cidr string, ranges map[string]string) error {
	const fixed = "network.zones can only grow, at the end, and neither cidr nor `nat: none` can change: write what they were, " + endFirst
	vpc, err := ourVPC(l)
	if err != nil {
		return explain(err)
	}
	if vpc != nil && sdk.ToString(vpc.CidrBlock) != cidr {
		return wrong("network.cidr", "the VPC of the cluster is %s, and not %s: %s", sdk.ToString(vpc.CidrBlock), cidr, fixed)
	}
	all, err := l.subnets()
	for _, s := range all {
		if name := tagOf(s.Tags, partTag); ranges[name] != sdk.ToString(s.CidrBlock) {
			return wrong("network", "the cluster has a subnet %s, %s, for which the document has no place any more: %s", name, sdk.ToString(s.CidrBlock), fixed)
		}
	}
	return explain(err)
}
