package aws

import (
	"testing"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// Canonical has other accounts in partitions of their own, where names of all things begin otherwise.
func TestClustersInOtherPartitions(t *testing.T) {
	for region, partition := range map[string]string{"cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov"} {
		t.Run(region, func(t *testing.T) {
			start(t, cloud.Options{})
			t.Setenv("AWS_REGION", region)
			if p := made(t, small).place(); p.partition != partition || p.account == "" {
				t.Errorf("%+v", p)
			}
		})
	}
}

// As https://docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html has them.
func TestPrivateNames(t *testing.T) {
	for region, want := range map[string]string{"us-east-1": "ip-10-0-1-2.ec2.internal", "eu-west-1": "ip-10-0-1-2.eu-west-1.compute.internal"} {
		if got := privateName(region, "10.0.1.2"); got != want {
			t.Errorf("%s: %s", region, got)
		}
	}
}
