package aws

import (
	"os"
	"strings"
	"testing"

	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestAnAddressThatIsAnothersHasAnotherKey(t *testing.T) {
	start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	machine := func(id, ip string) ec2types.Instance {
		return ec2types.Instance{InstanceId: &id, PrivateIpAddress: &ip, State: &ec2types.InstanceState{Name: ec2types.InstanceStateNameRunning}}
	}
	see := func(want string, all ...ec2types.Instance) {
		t.Helper()
		if err := a.forgetHostKeys(all); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(a.knownHosts())
		if err != nil || strings.Join(strings.Fields(string(b)), " ") != want {
			t.Errorf("known are %q, not %q: %v", b, want, err)
		}
	}
	if err := writeLines(a.knownHosts(), []string{"10.0.0.4 k4", "10.0.0.5 k5", "10.0.0.45 k45"}); err != nil {
		t.Fatal(err)
	}
	all := "10.0.0.4 k4 10.0.0.5 k5 10.0.0.45 k45"
	see(all, machine("i-1", "10.0.0.4"), machine("i-2", "10.0.0.5"))
	see(all, machine("i-2", "10.0.0.5"))
	see(all, machine("i-1", "10.0.0.4"), machine("i-2", "10.0.0.5"))
	see(all, machine("i-2", "10.0.0.5"))
	see("10.0.0.5 k5 10.0.0.45 k45", machine("i-3", "10.0.0.4"), machine("i-2", "10.0.0.5"))
}
