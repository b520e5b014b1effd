package aws

import (
	"cmp"
	"context"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// canonical is the account of Ubuntu's images, by partition.
var canonical = map[string]string{"aws": "099720109477", "aws-cn": "837727238323", "aws-us-gov": "513442679011"}

// canonicalIn is that account for a region, or empty: images are asked for before AWS has said which partition the account is in.
func canonicalIn(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return canonical["aws-cn"]
	case strings.HasPrefix(region, "us-gov-"):
		return canonical["aws-us-gov"]
	case strings.Contains(region, "-iso"), strings.HasPrefix(region, "eusc-"):
		return ""
	}
	return canonical["aws"]
}

func (a *Cloud) lookAtImages(ctx context.Context, l *look) {
	l.types = once(func(next *string) ([]ec2types.InstanceTypeInfo, *string, error) {
		var names []string
		for _, p := range a.allPools() {
			names = append(names, p.InstanceType)
		}
		// By a filter: of a name that it does not know AWS would answer with an error, and with nothing else.
		out, err := a.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{Filters: []ec2types.Filter{filter("instance-type", unique(names)...)}, NextToken: next})
		if err != nil {
			return nil, nil, err
		}
		return out.InstanceTypes, out.NextToken, nil
	})
	l.ubuntu = once(func(next *string) ([]ec2types.Image, *string, error) {
		owner := canonicalIn(a.region)
		if owner == "" {
			return nil, nil, nil
		}
		out, err := a.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{owner}, NextToken: next,
			Filters: []ec2types.Filter{filter("name", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-*-server-*"), filter("state", "available")}})
		if err != nil {
			return nil, nil, err
		}
		return out.Images, out.NextToken, nil
	})
}

// image is what a pool's new machines boot: that of the document, or the newest of Ubuntu's for their architecture. Its
// value is the name of its root device.
func (a *Cloud) image(ctx context.Context, l *look, p pool) *resource {
	r := &resource{name: "image of " + p.Name}
	r.find = func() (string, []string, error) {
		arch, err := a.architecture(l, p)
		if err != nil {
			return "", nil, err
		}
		var image ec2types.Image
		if p.Image != "" {
			image, err = a.givenImage(ctx, p, arch)
		} else {
			image, err = a.ubuntu(l, p, arch)
		}
		if err != nil {
			return "", nil, err
		}
		r.value = cmp.Or(sdk.ToString(image.RootDeviceName), "/dev/sda1")
		return *image.ImageId, nil, nil
	}
	return r
}

// ubuntu is the newest image of Canonical's.
func (a *Cloud) ubuntu(l *look, p pool, arch ec2types.ArchitectureValues) (newest ec2types.Image, err error) {
	all, err := l.ubuntu()
	for _, i := range all {
		if i.Architecture == arch && sdk.ToString(i.CreationDate) > sdk.ToString(newest.CreationDate) {
			newest = i
		}
	}
	if err == nil && newest.ImageId == nil {
		err = wrong(p.path+".image", "there is no Ubuntu 24.04 of Canonical's in %s: name an image", a.region)
	}
	return newest, err
}

// givenImage is one that the document names.
func (a *Cloud) givenImage(ctx context.Context, p pool, arch ec2types.ArchitectureValues) (none ec2types.Image, err error) {
	out, err := a.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{p.Image}})
	switch code := codeOf(err); {
	case strings.HasPrefix(code, "InvalidAMIID."), err == nil && len(out.Images) == 0:
		return none, wrong(p.path+".image", "%s is not in %s, or not for this account: images differ from region to region: name one of this region, or leave image out", p.Image, a.region)
	case err != nil:
		return none, err
	}
	i := out.Images[0]
	switch {
	case i.State != ec2types.ImageStateAvailable:
		return none, wrong(p.path+".image", "%s is %s: name another, or leave image out", p.Image, i.State)
	case i.Architecture != arch:
		return none, wrong(p.path+".image", "%s is for %s, and %s is %s: name an image for that, or choose another instanceType", p.Image, i.Architecture, p.InstanceType, arch)
	}
	return i, nil
}

// architecture is that of a pool's machines.
func (a *Cloud) architecture(l *look, p pool) (ec2types.ArchitectureValues, error) {
	field := p.path + ".instanceType"
	if p.Name == bastionPart {
		field = p.path
	}
	all, err := l.types()
	if err != nil {
		return "", err
	}
	for _, t := range all {
		if string(t.InstanceType) != p.InstanceType || t.ProcessorInfo == nil {
			continue
		}
		for _, arch := range t.ProcessorInfo.SupportedArchitectures {
			if arch == ec2types.ArchitectureTypeArm64 || arch == ec2types.ArchitectureTypeX8664 {
				return ec2types.ArchitectureValues(arch), nil
			}
		}
		return "", wrong(field, "%s is neither x86_64 nor arm64: choose another", p.InstanceType)
	}
	return "", wrong(field, "%s has no instances of type %s: choose another", a.region, p.InstanceType)
}
