package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// blockage is what was told of those who use what is to be deleted.
type blockage struct {
	is          func(state string)
	said, users string
	others      []string // at the last look
	looked      time.Time
}

// tellLeft tells what is waited for: what ends by itself, and what something else still uses. When nothing has gone for a while, it tells what that is.
func (a *Cloud) tellLeft(ctx context.Context, levels [][]thing, l *left, b *blockage, since time.Time) {
	var going, how []string
	for _, t := range slices.Concat(levels...) {
		if t.gone {
			going = append(going, t.kind+" "+cmp.Or(t.name, t.id))
		}
	}
	if len(going) > 0 {
		how = append(how, some(going)+" being deleted")
	}
	if len(l.why) > 0 {
		if time.Since(since) > 2*a.Pause && time.Since(b.looked) > 3*a.Pause {
			users, others := a.users(ctx, levels)
			stay := slices.DeleteFunc(slices.Clone(others), func(o string) bool { return !slices.Contains(b.others, o) }) // what is the cluster's may show late as such
			b.users, b.others, b.looked = some(users), others, time.Now()
			if said := strings.Join(stay, ", "); said != "" && said != b.said {
				b.said = said
				a.Warn("in the way of %s, and not of the cluster: %s: remove that; it is waited for until nothing has gone for %s", some(sorted(l.why)), said, a.Patience)
			}
		}
		used := some(sorted(l.why)) + " still used"
		if b.users != "" {
			used += " by " + b.users
		}
		how = append(how, used)
	}
	b.is(strings.Join(how, "; "))
}

// some of many names are enough.
func some(names []string) string {
	if more := len(names) - 3; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), more)
	}
	return strings.Join(names, ", ")
}

// users are what is in the cluster's own VPC, or in its security groups, when all of the cluster is gone that can go. Network interfaces tell: those of load
// balancers, which AWS ends a while after them, apart from others'; and so do others' groups, whose rules name one of the cluster.
func (a *Cloud) users(ctx context.Context, levels [][]thing) (balancers, others []string) {
	var groups []string
	for _, t := range slices.Concat(levels...) {
		if t.kind == "security-group" {
			groups = append(groups, t.id)
		}
	}
	if len(groups) > 0 {
		some, _ := pages(func(next *string) ([]ec2types.SecurityGroup, *string, error) {
			out, err := a.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: []ec2types.Filter{filter("ip-permission.group-id", groups...)}, NextToken: next})
			if err != nil {
				return nil, nil, err
			}
			return out.SecurityGroups, out.NextToken, nil
		})
		for _, g := range some {
			if !slices.Contains(groups, *g.GroupId) {
				others = append(others, fmt.Sprintf("security group %s (%s), whose rules name one of the cluster's", sdk.ToString(g.GroupName), *g.GroupId))
			}
		}
	}
	in := filter("group-id", groups...)
	if a.aws.Network.Own() && len(a.vpcs) > 0 {
		in = filter("vpc-id", a.vpcs...)
	} else if len(groups) == 0 {
		return nil, others
	}
	some, _ := pages(func(next *string) ([]ec2types.NetworkInterface, *string, error) {
		out, err := a.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []ec2types.Filter{in}, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.NetworkInterfaces, out.NextToken, nil
	})
	ours := a.endings(ctx)
	for _, n := range some {
		what := sdk.ToString(n.Description)
		of := what[strings.LastIndex(what, " ")+1:] // as in: Interface for NAT Gateway nat-...
		if n.Attachment != nil && n.Attachment.InstanceId != nil {
			of = *n.Attachment.InstanceId
			what = "instance " + of
		}
		if ours[of] {
			continue
		}
		if what = strings.TrimSpace(*n.NetworkInterfaceId + " " + what); strings.HasPrefix(sdk.ToString(n.Description), "ELB ") {
			balancers = append(balancers, what)
		} else {
			others = append(others, what)
		}
	}
	return balancers, others
}

// endings are the IDs of the cluster's machines and NAT gateways, also of those that have ended: their network interfaces may show for longer.
func (a *Cloud) endings(ctx context.Context) map[string]bool {
	l, ids := a.look(ctx), map[string]bool{}
	machines, _ := l.instances()
	for _, i := range machines {
		ids[*i.InstanceId] = true
	}
	nats, _ := l.nats()
	for _, n := range nats {
		ids[*n.NatGatewayId] = true
	}
	return ids
}
