package aws

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// template is the pool's launch template: all but the image, which is that of the day. It is never changed: other settings make another one, for the
// machines to come.
func (a *Cloud) template(ctx context.Context, l *look, p pool, key, image *resource) *resource {
	r := &resource{kind: "launch-template", name: p.Name, detail: p.describe(), after: p.groups, needs: []*resource{image, key}}
	digest := token(fmt.Sprint(p.InstanceType, p.Image, p.DiskGiB, p.Spot, a.unencapsulated(), p.InstanceProfile, a.aws.SSH.KeyName, hopLimit, p.public))[:16]
	name := a.named(125, p.Name, digest)
	r.find = func() (string, []string, error) {
		all, err := l.templates()
		if err != nil {
			return "", nil, err
		}
		for _, t := range all {
			if sdk.ToString(t.LaunchTemplateName) == name {
				return *t.LaunchTemplateId, nil, nil
			}
		}
		return "", nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		data := &ec2types.RequestLaunchTemplateData{
			InstanceType: ec2types.InstanceType(p.InstanceType), KeyName: sdk.String(key.name),
			MetadataOptions: &ec2types.LaunchTemplateInstanceMetadataOptionsRequest{HttpEndpoint: ec2types.LaunchTemplateInstanceMetadataEndpointStateEnabled,
				HttpTokens: ec2types.LaunchTemplateHttpTokensStateRequired, HttpPutResponseHopLimit: sdk.Int32(hopLimit)},
			BlockDeviceMappings: []ec2types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: sdk.String(image.value),
				Ebs: &ec2types.LaunchTemplateEbsBlockDeviceRequest{VolumeType: ec2types.VolumeTypeGp3, VolumeSize: sdk.Int32(p.DiskGiB), Encrypted: sdk.Bool(true), DeleteOnTermination: sdk.Bool(true)}}},
		}
		if !p.public { // whose network interface has them: AWS takes no groups beside one
			data.SecurityGroupIds = p.groupIDs()
		}
		if p.profile != nil {
			data.IamInstanceProfile = &ec2types.LaunchTemplateIamInstanceProfileSpecificationRequest{Name: sdk.String(p.profile.name)}
		}
		if p.Spot {
			data.InstanceMarketOptions = &ec2types.LaunchTemplateInstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot,
				SpotOptions: &ec2types.LaunchTemplateSpotMarketOptionsRequest{SpotInstanceType: ec2types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: ec2types.InstanceInterruptionBehaviorTerminate}}
		}
		out, err := a.ec2.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: &name, LaunchTemplateData: data,
			TagSpecifications: a.specified(ec2types.ResourceTypeLaunchTemplate, p.Name)})
		if codeOf(err) == "InvalidLaunchTemplateName.AlreadyExistsException" { // a run that was cut short has made it, and we have not been told yet
			again, e := a.ec2.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateNames: []string{name}})
			switch {
			case missing(e), e == nil && len(again.LaunchTemplates) == 0:
				return "", fmt.Errorf("%w: %w", errUnseen, err)
			case e != nil:
				return "", e
			case tagOf(again.LaunchTemplates[0].Tags, clusterTag) != a.name:
				return "", notOurs("launch template", name, a.name)
			}
			return *again.LaunchTemplates[0].LaunchTemplateId, nil
		}
		if err != nil {
			return "", err
		}
		return *out.LaunchTemplate.LaunchTemplateId, nil
	}
	return r
}

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

func (p pool) describe() string {
	s := fmt.Sprintf("%s, %d GiB", p.InstanceType, p.DiskGiB)
	if p.Image != "" {
		s += ", " + p.Image
	}
	if p.Spot {
		s += ", spot"
	}
	return s
}
