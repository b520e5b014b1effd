package aws

import (
	"context"
	"fmt"

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

func (p pool) describe() string {
	s := fmt.Sprintf("%s, %d GiB", p.InstanceType, p.DiskGiB)
	if p.Image != "" {
		s += ", " + p.Image
	}
	if p.InstanceProfile != "" {
		s += ", of the profile " + p.InstanceProfile
	}
	if p.Spot {
		s += ", spot"
	}
	return s
}
