package aws

import (
	"context"
	"fmt"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
)

const (
	policyName = "kubewright"
	iamPath    = "/kubewright/"
)

func (a *Cloud) iamTags(part string, more ...string) (all []iamtypes.Tag) {
	for _, t := range a.tags(part, more...) {
		all = append(all, iamtypes.Tag{Key: t.Key, Value: t.Value})
	}
	return all
}

func iamTag(tags []iamtypes.Tag, key string) string {
	for _, t := range tags {
		if sdk.ToString(t.Key) == key {
			return sdk.ToString(t.Value)
		}
	}
	return ""
}

// profileName is that of the control planes' profile and role; IAM knows no regions.
func (a *Cloud) profileName() string { return a.named(64, planesPool, a.region) }

// place is where all of it is, and whose.
func (a *Cloud) place() place {
	return place{partition: a.partition, region: a.region, account: a.account, cluster: a.name}
}

// profile is what lets control planes call AWS (workers have no need to): an instance profile, with a role of the same name. It says by the digest in a
// tag that its role has the policy it should, so that a look at it is enough.
func (a *Cloud) profile(ctx context.Context, l *look, p pool) *resource {
	if p.InstanceProfile != "" {
		return a.givenProfile(ctx, p)
	}
	part := p.Name
	name, policy := a.profileName(), controlPlanePolicy(a.place(), a.c.Spec.Addons.EBSCSI).JSON()
	digest := token(policy)[:16]
	role := a.role(ctx, part, name, policy, func() bool { _, err := l.profile(); return err == nil })
	r := &resource{kind: "instance-profile", name: name}
	r.find = func() (string, []string, error) {
		out, err := l.profile()
		if codeOf(err) == "NoSuchEntity" {
			return "", nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		p := out.InstanceProfile
		if iamTag(p.Tags, clusterTag) != a.name {
			return "", nil, notOurs(r.kind, name, a.name)
		}
		var lacks []string
		if !hasRole(p, name) {
			if len(p.Roles) > 0 {
				return "", nil, strangeRole(p)
			}
			lacks = append(lacks, "role")
		}
		if len(lacks) > 0 || iamTag(p.Tags, digestTag) != digest {
			lacks = append(lacks, "policy of "+digest)
		}
		return name, lacks, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		_, err := a.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: &name, Path: sdk.String(iamPath), Tags: a.iamTags(part)})
		if codeOf(err) == "EntityAlreadyExists" { // a run that was cut short has made it
			out, e := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
			switch {
			case codeOf(e) == "NoSuchEntity":
				return "", fmt.Errorf("%w: %w", errUnseen, err)
			case e == nil && iamTag(out.InstanceProfile.Tags, clusterTag) != a.name:
				return "", notOurs(r.kind, name, a.name)
			}
			return name, e
		}
		return name, err
	}
	r.steps = []step{
		{name: "role", after: []*resource{role}, do: func(ctx context.Context) error {
			_, err := a.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
			if codeOf(err) == "LimitExceeded" { // one is all that it takes
				return a.ownRole(ctx, name, err)
			}
			return err
		}},
		{name: "policy of " + digest, needs: []*resource{role}, do: func(ctx context.Context) error { // which the role has by now
			_, err := a.iam.TagInstanceProfile(ctx, &iam.TagInstanceProfileInput{InstanceProfileName: &name, Tags: a.iamTags(part, digestTag, digest)})
			return err
		}},
	}
	return r
}

func hasRole(p *iamtypes.InstanceProfile, name string) bool {
	return slices.ContainsFunc(p.Roles, func(r iamtypes.Role) bool { return sdk.ToString(r.RoleName) == name })
}

// ownRole refuses a profile that has another's role.
func (a *Cloud) ownRole(ctx context.Context, name string, full error) error {
	out, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	switch {
	case err != nil:
		return err
	case len(out.InstanceProfile.Roles) == 0:
		return fmt.Errorf("%w: %w", errUnseen, full)
	case hasRole(out.InstanceProfile, name):
		return nil
	}
	return strangeRole(out.InstanceProfile)
}

func strangeRole(p *iamtypes.InstanceProfile) error {
	name, other := sdk.ToString(p.InstanceProfileName), sdk.ToString(p.Roles[0].RoleName)
	return fmt.Errorf("somebody has given it the role %s, and it takes but one: take that out with `aws iam remove-role-from-instance-profile --instance-profile-name %s --role-name %s`, "+
		"and run this again; or name a profile of your own under controlPlane.instanceProfile", other, name, other)
}

// givenProfile is one that is there. It is looked at, as EC2 can't tell one that is misspelt from one that it does not know of yet.
func (a *Cloud) givenProfile(ctx context.Context, p pool) *resource {
	name := p.InstanceProfile
	r := &resource{kind: "instance-profile", name: name}
	r.find = func() (string, []string, error) {
		_, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
		if codeOf(err) == "NoSuchEntity" {
			return "", nil, wrong(p.path+".instanceProfile", "the account %s has no instance profile %s: write another, or none", a.account, name)
		}
		return name, nil, err
	}
	return r
}

// role is looked at only where its profile lacks something, and is taken not to be there where that is not.
func (a *Cloud) role(ctx context.Context, part, name, policy string, may func() bool) *resource {
	r := &resource{kind: "role", name: name}
	look := func() (string, []string, error) {
		out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		if codeOf(err) == "NoSuchEntity" {
			return "", nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		if iamTag(out.Role.Tags, clusterTag) != a.name {
			return "", nil, notOurs(r.kind, name, a.name)
		}
		return name, []string{"policy"}, nil
	}
	r.find = func() (string, []string, error) {
		if !may() {
			return "", nil, nil
		}
		return look()
	}
	r.create = func(ctx context.Context) (string, error) {
		_, err := a.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, Path: sdk.String(iamPath), AssumeRolePolicyDocument: sdk.String(trustPolicy(a.place())),
			Description: sdk.String("of machines of the Kubernetes cluster " + a.name), Tags: a.iamTags(part)})
		if codeOf(err) == "EntityAlreadyExists" {
			id, _, e := look()
			if e == nil && id == "" {
				e = fmt.Errorf("%w: %w", errUnseen, err)
			}
			return id, e
		}
		return name, err
	}
	r.steps = []step{{name: "policy", do: func(ctx context.Context) error {
		_, err := a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: sdk.String(policyName), PolicyDocument: &policy})
		return err
	}}}
	return r
}

// identities are the profiles and roles of the cluster; IAM finds nothing by tags, so they are asked for by name.
func (a *Cloud) identities(ctx context.Context) (all []thing, err error) {
	name := a.profileName()
	profile, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	if codeOf(err) == "AccessDenied" && a.aws.ControlPlane.InstanceProfile != "" {
		return nil, nil // who brings a profile need have no right to look at any, and has made none here
	}
	if err != nil && codeOf(err) != "NoSuchEntity" {
		return nil, err
	}
	if err == nil && iamTag(profile.InstanceProfile.Tags, clusterTag) == a.name {
		all = append(all, thing{"instance-profile", name, "", func(ctx context.Context) error {
			for _, r := range profile.InstanceProfile.Roles {
				if _, err := a.iam.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: &name, RoleName: r.RoleName}); err != nil && !missing(err) {
					return err
				}
			}
			_, err := a.iam.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: &name})
			return err
		}, false})
	}
	role, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil && codeOf(err) != "NoSuchEntity" {
		return nil, err
	}
	if err == nil && iamTag(role.Role.Tags, clusterTag) == a.name {
		all = append(all, thing{"role", name, "", func(ctx context.Context) error { return a.endRole(ctx, name) }, false})
	}
	return all, nil
}

// endRole takes from a role what it has before it goes: others may have given it more than we did.
func (a *Cloud) endRole(ctx context.Context, name string) error {
	inline, err := pages(func(next *string) ([]string, *string, error) {
		out, err := a.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &name, Marker: next})
		if err != nil {
			return nil, nil, err
		}
		return out.PolicyNames, out.Marker, nil
	})
	if err != nil {
		return err
	}
	for _, p := range inline {
		if _, err := a.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &p}); err != nil && !missing(err) {
			return err
		}
	}
	attached, err := pages(func(next *string) ([]iamtypes.AttachedPolicy, *string, error) {
		out, err := a.iam.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: &name, Marker: next})
		if err != nil {
			return nil, nil, err
		}
		return out.AttachedPolicies, out.Marker, nil
	})
	if err != nil {
		return err
	}
	for _, p := range attached {
		if _, err := a.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &name, PolicyArn: p.PolicyArn}); err != nil && !missing(err) {
			return err
		}
	}
	_, err = a.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &name})
	return err
}
