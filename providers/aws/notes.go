package aws

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Notes tell, when the document has its hosts, what it says that machines which are there will not get: a machine is never made into another one.
func (a *Cloud) Notes() []string { return a.remarks }

func (a *Cloud) settings(l *look) (notes []string, err error) {
	for _, p := range a.allPools() {
		var others []string
		for _, name := range p.parts() {
			i, err := part(l.instances, ofInstance, name)
			if err != nil {
				return nil, err
			}
			if i == nil {
				continue
			}
			if is := p.unlike(*i); len(is) > 0 {
				others = append(others, name+" is "+strings.Join(is, ", "))
			}
		}
		if len(others) > 0 {
			next := "terminate those that are there, one at a time, and `kubewright up` makes others"
			if p.Name == planesPool && p.Number() == 1 {
				next = "there is but one control plane, with which the cluster would go"
			}
			notes = append(notes, fmt.Sprintf("%s, and stays so; %s applies to new machines only: %s", strings.Join(others, "; "), p.describe(), next))
		}
	}
	return notes, nil
}

// unlike is what a machine is that it would not be if it were made now. Of the image that is the one that the document names.
func (p pool) unlike(i ec2types.Instance) (is []string) {
	if have := string(i.InstanceType); have != p.InstanceType {
		is = append(is, have)
	}
	if have := tagOf(i.Tags, diskTag); p.DiskGiB != 0 && have != "" && have != strconv.Itoa(int(p.DiskGiB)) {
		is = append(is, have+" GiB")
	}
	if have := sdk.ToString(i.ImageId); p.Image != "" && have != p.Image {
		is = append(is, have)
	}
	if i.IamInstanceProfile != nil && p.InstanceProfile != "" {
		if arn := sdk.ToString(i.IamInstanceProfile.Arn); path.Base(arn) != p.InstanceProfile {
			is = append(is, "of the profile "+path.Base(arn))
		}
	} else if i.IamInstanceProfile == nil && p.InstanceProfile != "" {
		is = append(is, "without a profile")
	}
	switch spot := i.InstanceLifecycle == ec2types.InstanceLifecycleTypeSpot; {
	case spot && !p.Spot:
		is = append(is, "spot")
	case !spot && p.Spot:
		is = append(is, "not spot")
	}
	return is
}
