package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/config"
)

const (
	planesPool  = "control-plane"
	bastionPart = "bastion"
	bastionUser = "ubuntu" // of its image, which is Canonical's always
	hopLimit    = 1        // to the metadata, the role's credentials among them: none but pods on the host's network get there
)

// pool are machines that are alike: control planes, workers, or the bastion.
type pool struct {
	config.AWSPool
	path    string      // in the document, below spec.provider.aws
	groups  []*resource // of security
	subnets []*resource
	profile *resource // nil: none
	public  bool      // its machines get public addresses, whatever their subnet says
}

// machines is how many nodes there are to be.
func (a *Cloud) machines() (n int) {
	for _, p := range a.nodePools() {
		n += p.Number()
	}
	return n
}

func (p pool) parts() (all []string) {
	if p.Name == bastionPart {
		return []string{bastionPart}
	}
	for i := range p.Number() {
		all = append(all, fmt.Sprintf("%s-%d", p.Name, i))
	}
	return all
}

func (p pool) groupIDs() (all []string) {
	for _, g := range p.groups {
		all = append(all, g.id)
	}
	return all
}

// launch is a pool's launch template and its instances.
func (a *Cloud) launch(ctx context.Context, l *look, p pool, key *resource) (instances []*resource) {
	image := a.image(ctx, l, p)
	template := a.template(ctx, l, p, key, image)
	for i, name := range p.parts() {
		instances = append(instances, a.instance(l, p, template, image, key, name, i))
	}
	return instances
}

// instance is one machine. It is in the subnet whose turn it is, or in the next one that has room for it.
func (a *Cloud) instance(l *look, p pool, template, image, key *resource, name string, turn int) *resource {
	r := &resource{kind: "instance", name: name, detail: p.describe() + ", in " + p.subnets[turn%len(p.subnets)].name,
		needs: append([]*resource{template, image, key}, p.subnets...)} // the key, which the template needs, is looked at early
	if p.profile != nil {
		r.needs = append(r.needs, p.profile)
	}
	if p.public {
		r.needs = append(r.needs, p.groups...)
	}
	routed := p.Name == bastionPart || !a.unencapsulated()
	r.find = func() (string, []string, error) {
		i, err := part(l.instances, ofInstance, name)
		if i == nil || err != nil {
			return "", nil, err
		}
		r.needs = nil // a new one does
		var lacks []string
		if i.State.Name == ec2types.InstanceStateNameStopped || i.State.Name == ec2types.InstanceStateNameStopping {
			lacks = append(lacks, "started")
		}
		if !routed && sdk.ToBool(i.SourceDestCheck) {
			lacks = append(lacks, "packets of pods")
		}
		return *i.InstanceId, lacks, nil
	}
	r.create = func(ctx context.Context) (string, error) { return a.runInstance(ctx, p, template, image, name, turn) }
	if !routed {
		r.steps = []step{{name: "packets of pods", do: func(ctx context.Context) error {
			_, err := a.ec2.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &r.id, SourceDestCheck: &ec2types.AttributeBooleanValue{Value: sdk.Bool(false)}})
			return err
		}}}
	}
	r.mends = []step{{name: "started", do: func(ctx context.Context) error {
		return a.until(ctx, "the end of "+name+", which is stopped, and started then", 5*time.Minute, func() (bool, string, error) {
			_, err := a.ec2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{r.id}})
			if codeOf(err) == "IncorrectInstanceState" {
				return false, "stopping", nil
			}
			return err == nil, "", err
		})
	}}}
	return r
}

func (a *Cloud) runInstance(ctx context.Context, p pool, template, image *resource, name string, turn int) (string, error) {
	key, value := a.kubernetes()
	var full []error
	for n := range p.subnets {
		subnet := p.subnets[(turn+n)%len(p.subnets)]
		for ended := 0; ; ended++ { // machines that the same words have made in the last days: AWS knows a token longer than the machine that was made for it
			in := &ec2.RunInstancesInput{MinCount: sdk.Int32(1), MaxCount: sdk.Int32(1), SubnetId: &subnet.id, ImageId: &image.id, LaunchTemplate: &ec2types.LaunchTemplateSpecification{LaunchTemplateId: &template.id}}
			if p.public {
				in.SubnetId, in.NetworkInterfaces = nil, []ec2types.InstanceNetworkInterfaceSpecification{{DeviceIndex: sdk.Int32(0), SubnetId: &subnet.id, Groups: p.groupIDs(),
					AssociatePublicIpAddress: sdk.Bool(true), DeleteOnTermination: sdk.Bool(true)}}
			}
			more := []string{diskTag, strconv.Itoa(int(p.DiskGiB))}
			if p.Name != bastionPart {
				more = append(more, key, value)
			}
			in.TagSpecifications = append(a.specified(ec2types.ResourceTypeInstance, name, more...), a.specified(ec2types.ResourceTypeVolume, name)...)
			said, err := json.Marshal(in) // all of it: AWS refuses a token with other words
			if err != nil {
				return "", err
			}
			in.ClientToken = sdk.String(token(string(said), strconv.Itoa(ended)))
			out, err := a.ec2.RunInstances(ctx, in)
			if elsewhere(err) {
				a.Warn("%s: no room in %s: %s", name, subnet.name, messageOf(err))
				full = append(full, fmt.Errorf("%s: %w", subnet.name, err))
				break
			}
			if codeOf(err) == "IdempotentInstanceTerminated" {
				continue
			}
			if err != nil {
				return "", err
			}
			i := out.Instances[0]
			if _, _, alive := ofInstance(i); alive || i.State == nil {
				return *i.InstanceId, nil
			}
		}
	}
	return "", fmt.Errorf("no zone has room for %s: %w: choose another instanceType, or other zones, or try again later; what was made is kept, and the next run goes on there", p.InstanceType, errors.Join(full...))
}

// running waits until machines are. Those that are found running are not waited for.
func (a *Cloud) running(ctx context.Context, l *look, name string, machines []*resource) *resource {
	r := &resource{name: name, after: machines}
	r.find = func() (string, []string, error) {
		for _, m := range machines {
			i, err := part(l.instances, ofInstance, m.name)
			if err != nil {
				return "", nil, err
			}
			if i == nil || i.State.Name != ec2types.InstanceStateNameRunning {
				return "", nil, nil
			}
		}
		return name, nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		return name, a.until(ctx, name+" to run", 10*time.Minute, func() (bool, string, error) { return a.allRunning(ctx, machines) })
	}
	return r
}

func (a *Cloud) allRunning(ctx context.Context, machines []*resource) (bool, string, error) {
	var ids []string
	for _, m := range machines {
		ids = append(ids, m.id)
	}
	all, err := pages(a.describeInstances(ctx, ec2.DescribeInstancesInput{InstanceIds: ids}))
	if missing(err) || err == nil && len(all) < len(ids) {
		return false, "not there yet", nil
	}
	if err != nil {
		return false, "", err
	}
	for _, i := range all {
		switch name := tagOf(i.Tags, partTag); i.State.Name {
		case ec2types.InstanceStateNameRunning:
		case ec2types.InstanceStateNamePending, ec2types.InstanceStateNameStopped, ec2types.InstanceStateNameStopping:
			return false, string(i.State.Name), nil
		default:
			why := ""
			if i.StateReason != nil {
				why = sdk.ToString(i.StateReason.Message)
			}
			return false, "", fmt.Errorf("%s (%s) is %s: %s: run this again, and another is made", *i.InstanceId, name, i.State.Name, why)
		}
	}
	return true, "", nil
}
