package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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

// image is what a pool's new machines boot: that of the document, or the newest of Ubuntu's for their architecture. Its
// value is the name of its root device.
func (a *Cloud) image(ctx context.Context, p pool) *resource {
	r := &resource{name: "image of " + p.Name}
	r.find = func() (string, []string, error) {
		in := &ec2.DescribeImagesInput{ImageIds: []string{p.Image}}
		if p.Image == "" {
			arch, err := a.architecture(ctx, p.InstanceType)
			if err != nil {
				return "", nil, err
			}
			owner := canonical[a.partition]
			if owner == "" {
				return "", nil, fmt.Errorf("Canonical publishes no image in %s: name one under image", a.region)
			}
			name := map[string]string{"arm64": "arm64", "x86_64": "amd64"}[arch]
			in = &ec2.DescribeImagesInput{Owners: []string{owner}, Filters: []ec2types.Filter{filter("name", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-"+name+"-server-*"),
				filter("architecture", arch), filter("state", "available")}}
		}
		all, err := pages(func(next *string) ([]ec2types.Image, *string, error) {
			in.NextToken = next
			out, err := a.ec2.DescribeImages(ctx, in)
			if err != nil {
				return nil, nil, err
			}
			return out.Images, out.NextToken, nil
		})
		if err != nil {
			return "", nil, err
		}
		if len(all) == 0 {
			return "", nil, fmt.Errorf("there is none of Ubuntu 24.04 in %s: name one under image", a.region)
		}
		newest := slices.MaxFunc(all, func(x, y ec2types.Image) int {
			return strings.Compare(sdk.ToString(x.CreationDate), sdk.ToString(y.CreationDate))
		})
		r.value = cmp.Or(sdk.ToString(newest.RootDeviceName), "/dev/sda1")
		return *newest.ImageId, nil, nil
	}
	return r
}

func (a *Cloud) architecture(ctx context.Context, instanceType string) (string, error) {
	out, err := a.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []ec2types.InstanceType{ec2types.InstanceType(instanceType)}})
	if codeOf(err) == "InvalidInstanceType" || err == nil && len(out.InstanceTypes) == 0 {
		return "", fmt.Errorf("%s has no instances of type %s: choose another instanceType", a.region, instanceType)
	}
	if err != nil {
		return "", err
	}
	if i := out.InstanceTypes[0].ProcessorInfo; i != nil {
		for _, arch := range i.SupportedArchitectures {
			if arch == ec2types.ArchitectureTypeArm64 || arch == ec2types.ArchitectureTypeX8664 {
				return string(arch), nil
			}
		}
	}
	return "", fmt.Errorf("%s is neither x86_64 nor arm64: choose another instanceType", instanceType)
}

func (p pool) describe() string {
	s := p.InstanceType
	if p.DiskGiB != 0 {
		s += fmt.Sprintf(", %d GiB", p.DiskGiB)
	}
	if p.Image != "" {
		s += ", " + p.Image
	}
	if p.Spot {
		s += ", spot"
	}
	return s
}
