package aws

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the goldens anew; review them like code")

func TestPoliciesEqualGoldens(t *testing.T) {
	at := place{"aws", "eu-west-1", "123456789012", "prod"}
	for name, p := range map[string]policy{"control-plane": controlPlanePolicy(at, false), "control-plane-volumes": controlPlanePolicy(at, true)} {
		var b bytes.Buffer
		for _, s := range p.Statement {
			document, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "# %s\n%s\n", s.Why, document)
		}
		golden := filepath.Join("testdata", "policy-"+name+".golden")
		if *update {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s (go test -update writes it): %s", name, diff)
		}
		if size := len(p.JSON()); size > 10240 {
			t.Errorf("%s: %d characters are more than a role's own policies may have", name, size)
		}
	}
}

// What is open to all resources lists, and does nothing else. All other rights end at what the cluster has made.
func TestPoliciesHoldNothingButWhatIsNeeded(t *testing.T) {
	at := place{"aws-cn", "cn-north-1", "123456789012", "prod"}
	seen := map[string]bool{}
	for _, s := range controlPlanePolicy(at, true).Statement {
		condition, err := json.Marshal(s.Condition)
		if err != nil {
			t.Fatal(err)
		}
		tagged := strings.Contains(string(condition), "Tag/kubernetes.io/cluster/prod") || strings.Contains(string(condition), ":CreateAction")
		if s.Why == "" || s.Effect != "Allow" {
			t.Errorf("%v: why?", s.Action)
		}
		for _, a := range s.Action {
			_, action, _ := strings.Cut(a, ":")
			lists := strings.HasPrefix(action, "Describe")
			if strings.Contains(a, "*") {
				t.Errorf("%s is more than one right", a)
			}
			if open := slices.Contains(s.Resource, "*"); open != lists || !lists && !tagged {
				t.Errorf("%s on %v if %s", a, s.Resource, condition)
			}
			for _, r := range s.Resource {
				if !lists && !strings.HasPrefix(r, "arn:aws-cn:"+strings.Split(a, ":")[0]+":cn-north-1:123456789012:") {
					t.Errorf("%s on %s, which is elsewhere", a, r)
				}
				if seen[a+r] {
					t.Errorf("%s on %s is there twice", a, r)
				}
				seen[a+r] = true
			}
		}
	}
	if !strings.Contains(trustPolicy(at), `"ec2.amazonaws.com.cn"`) {
		t.Errorf("in China the role is of %s", trustPolicy(at))
	}
}

// The calls are those of cloud-provider-aws v1.37.0 on its ways to nodes and to network load balancers.
func TestTheControllerMayCallWhatItCalls(t *testing.T) {
	var may []string
	for _, s := range controlPlanePolicy(place{}, false).Statement {
		may = append(may, s.Action...)
	}
	for _, call := range strings.Fields(`ec2:DescribeInstances ec2:DescribeAvailabilityZones ec2:DescribeInstanceTopology ec2:DescribeSubnets ec2:DescribeRouteTables
		ec2:DescribeSecurityGroups ec2:AuthorizeSecurityGroupIngress ec2:RevokeSecurityGroupIngress
		elasticloadbalancing:CreateLoadBalancer elasticloadbalancing:DescribeLoadBalancers elasticloadbalancing:DeleteLoadBalancer elasticloadbalancing:DescribeLoadBalancerAttributes
		elasticloadbalancing:ModifyLoadBalancerAttributes elasticloadbalancing:CreateListener elasticloadbalancing:DescribeListeners elasticloadbalancing:ModifyListener
		elasticloadbalancing:DeleteListener elasticloadbalancing:CreateTargetGroup elasticloadbalancing:DescribeTargetGroups elasticloadbalancing:ModifyTargetGroup
		elasticloadbalancing:DeleteTargetGroup elasticloadbalancing:DescribeTargetGroupAttributes elasticloadbalancing:ModifyTargetGroupAttributes
		elasticloadbalancing:RegisterTargets elasticloadbalancing:DeregisterTargets elasticloadbalancing:DescribeTargetHealth`) {
		if !slices.Contains(may, call) {
			t.Errorf("it may not call %s", call)
		}
	}
}
