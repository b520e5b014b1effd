package aws

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Security groups. Each node is in nodes, a control plane in control-plane, too.
const (
	controlPlaneGroup = "control-plane"
	nodesGroup        = "nodes" // the one with the tag of Kubernetes: of two, cloud-controller-manager would not know which to take
	balancerGroup     = "api"
	bastionGroup      = "bastion"
)

func (a *Cloud) hasBastion() bool { return a.aws.SSH.Bastion != "" && a.aws.SSH.Bastion != "none" }

// groups are the security groups, and their rules.
func (a *Cloud) groups(l *look, w *network) (all map[string]*resource, roots []*resource) {
	why := map[string]string{controlPlaneGroup: "control planes", nodesGroup: "all nodes", balancerGroup: "the load balancer of the API servers", bastionGroup: "the way in by SSH"}
	if !a.hasBastion() {
		delete(why, bastionGroup)
	}
	all = map[string]*resource{}
	for _, name := range sorted(why) {
		all[name] = a.group(l, w.vpc, name, why[name])
	}
	rules := a.rules(w)
	for _, name := range sorted(why) {
		var own []rule
		needs := []*resource{all[name]}
		for _, r := range rules {
			if r.Group != name {
				continue
			}
			own = append(own, r)
			if from := all[r.From]; from != nil && !slices.Contains(needs, from) {
				needs = append(needs, from)
			}
			for _, o := range w.outlets {
				if r.From == "elastic-ip "+o.name {
					needs = append(needs, o)
				}
			}
		}
		var routes []*resource
		if name == balancerGroup { // nodes are let in by the addresses that they go out with, until those are others
			for _, r := range w.roots {
				if r.kind == "route" {
					routes = append(routes, r)
				}
			}
		}
		roots = append(roots, a.filled(l, all[name], own, needs, routes))
	}
	return all, roots
}

func (a *Cloud) group(l *look, vpc *resource, name, why string) *resource {
	r := &resource{kind: "security-group", name: name, detail: "of " + why, after: []*resource{vpc}}
	r.find = func() (string, []string, error) {
		g, err := part(a.ourGroups(l), ofGroup, name)
		if g == nil || err != nil {
			return "", nil, err
		}
		return *g.GroupId, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		more := []string{}
		if name == nodesGroup {
			key, value := a.kubernetes()
			more = append(more, key, value)
		}
		out, err := a.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &vpc.id, GroupName: sdk.String(a.named(255, name)), Description: sdk.String("of " + why),
			TagSpecifications: a.specified(ec2types.ResourceTypeSecurityGroup, name, more...)})
		if codeOf(err) == "InvalidGroup.Duplicate" { // a run that was cut short has made it
			return again(a.ourGroups(a.look(ctx)), ofGroup, name, err)
		}
		if err != nil {
			return "", err
		}
		return *out.GroupId, nil
	}
	return r
}

// ourGroups are the groups of the cluster's VPC.
func (a *Cloud) ourGroups(l *look) func() ([]ec2types.SecurityGroup, error) {
	if !a.aws.Network.Own() {
		return l.groups
	}
	return func() (some []ec2types.SecurityGroup, err error) {
		vpc, err := ourVPCID(l)
		if err != nil {
			return nil, err
		}
		all, err := l.groups()
		for _, g := range all {
			if vpc == "" || sdk.ToString(g.VpcId) == vpc {
				some = append(some, g)
			}
		}
		return some, err
	}
}

func ofGroup(g ec2types.SecurityGroup) (string, []ec2types.Tag, bool) {
	return *g.GroupId, g.Tags, true
}

const ownRule = "kubewright: " // how the descriptions of our rules begin; cloud-controller-manager has its own in the group of the nodes

// filled is a group with its rules. Those that are too many go when others are done.
func (a *Cloud) filled(l *look, group *resource, want []rule, needs, others []*resource) *resource {
	r := &resource{kind: "rules", name: group.name, after: needs, detail: listRules(want)}
	ids := func(made bool) (map[string]string, error) { // of what rules are from
		all, err := a.ourGroups(l)()
		m := map[string]string{}
		for _, g := range all {
			m[tagOf(g.Tags, partTag)] = *g.GroupId
		}
		for _, n := range needs {
			switch {
			case n.kind == "security-group" && made:
				m[n.name] = n.id
			case n.kind == "elastic-ip" && made:
				m["elastic-ip "+n.name] = n.value + "/32"
			case n.kind == "elastic-ip":
				e, e2 := ourAddress(l, n.name)
				if err = cmp.Or(err, e2); e != nil {
					m["elastic-ip "+n.name] = sdk.ToString(e.PublicIp) + "/32"
				}
			}
		}
		return m, err
	}
	compare := func(made bool) (add, drop []ec2types.IpPermission, err error) {
		g, err := part(a.ourGroups(l), ofGroup, group.name)
		if err != nil {
			return nil, nil, err
		}
		from, err := ids(made)
		if err != nil {
			return nil, nil, err
		}
		have := map[string]bool{}
		if g != nil {
			for _, p := range each(g.IpPermissions) {
				have[keyOf(p)] = true
			}
		}
		wanted := map[string]bool{}
		for _, x := range want {
			p := x.permission(from)
			if !have[keyOf(p)] && !wanted[keyOf(p)] { // a range may be written twice
				add = append(add, p)
			}
			wanted[keyOf(p)] = true
		}
		if g != nil {
			for _, p := range each(g.IpPermissions) {
				if !wanted[keyOf(p)] && strings.HasPrefix(describe(p), ownRule) {
					drop = append(drop, p)
				}
			}
		}
		return add, drop, nil
	}
	r.find = func() (string, []string, error) {
		g, err := part(a.ourGroups(l), ofGroup, group.name)
		if g == nil || err != nil {
			return "", nil, err
		}
		add, drop, err := compare(false)
		if err != nil {
			return "", nil, err
		}
		var lacks []string
		for _, p := range add {
			lacks = append(lacks, "+"+short(p))
		}
		for _, p := range drop {
			lacks = append(lacks, "-"+short(p))
		}
		if len(drop) > 0 {
			r.mends = []step{{name: lacks[len(add)], needs: others, do: func(ctx context.Context) error {
				_, drop, err := compare(true)
				if err == nil && len(drop) > 0 {
					_, err = a.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &group.id, IpPermissions: drop})
				}
				return err
			}}}
		}
		return *g.GroupId, lacks, nil
	}
	r.mend = func(ctx context.Context) error {
		add, _, err := compare(true) // now that what they are from is there
		if err != nil || len(add) == 0 {
			return err
		}
		return a.allow(ctx, group.id, add)
	}
	r.create = func(ctx context.Context) (string, error) { return group.id, r.mend(ctx) }
	return r
}

func (a *Cloud) allow(ctx context.Context, id string, add []ec2types.IpPermission) error {
	_, err := a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &id, IpPermissions: add})
	if codeOf(err) != "InvalidPermission.Duplicate" {
		return err
	}
	err = nil // a run that was cut short came so far, and we have not been told yet
	for _, p := range add {
		_, e := a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &id, IpPermissions: []ec2types.IpPermission{p}})
		if codeOf(e) != "InvalidPermission.Duplicate" {
			err = errors.Join(err, e)
		}
	}
	return err
}
