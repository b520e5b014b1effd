package aws

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// refused has up and plan say the same, all at once, and make nothing.
func refused(t *testing.T, s *cloud.Cloud, document string, all ...string) {
	t.Helper()
	before := s.Resources()
	_, planned := connect(t, parse(t, document)).Plan(t.Context())
	_, err := connect(t, parse(t, document)).Create(t.Context())
	wants(t, err, all...)
	if planned == nil || err == nil || planned.Error() != err.Error() {
		t.Errorf("plan says %v\nup says %v", planned, err)
	}
	if !errors.As(err, new(*DocumentError)) {
		t.Errorf("it is not said to be the document's: %v", err)
	}
	problems := 0
	for _, s := range all {
		if strings.HasPrefix(s, "spec.") {
			problems++
		}
	}
	if said := strings.Count(fmt.Sprint(err), "spec."); said != problems {
		t.Errorf("there are to be %d: %v", problems, err)
	}
	if after := s.Resources(); !slices.Equal(before, after) {
		t.Errorf("there was %s\nthere is %s", before, after)
	}
}

func TestAllThatIsWrongIsToldBeforeAnythingIsMade(t *testing.T) {
	s := start(t, cloud.Options{})
	file := filepath.Join(t.TempDir(), "key")
	if _, err := makeKey(file, ""); err != nil {
		t.Fatal(err)
	}
	machines := "controlPlane: {instanceType: t9.huge, instanceProfile: nobody}\npools:\n- {name: a, count: 1, image: ami-0123456789abcdef0}\n- {name: b, count: 1, instanceProfile: none-such}\n- {name: c, instanceType: t9.none, count: 0}\n"
	wrong := []string{
		"spec.provider.aws.controlPlane.instanceType: eu-west-1 has no instances of type t9.huge",
		"spec.provider.aws.controlPlane.instanceProfile: the account 111122223333 has no instance profile nobody",
		"spec.provider.aws.pools[0].image: ami-0123456789abcdef0 is not in eu-west-1",
		"spec.provider.aws.pools[1].instanceProfile: the account 111122223333 has no instance profile none-such",
		"spec.provider.aws.ssh.keyName: eu-west-1 has no key pair misspelt",
	}
	refused(t, s, machines+"ssh: {keyName: misspelt, identityFile: "+file+", bastion: t9.nano}", append(wrong, "spec.provider.aws.ssh.bastion: eu-west-1 has no instances of type t9.nano")...)
	key := "ssh: {keyName: misspelt, identityFile: " + file + "}\n"
	refused(t, s, machines+key+"network: {vpc: vpc-0123456789abcdef0, subnets: [subnet-0a]}", append(wrong, "spec.provider.aws.network.vpc: vpc-0123456789abcdef0 is not in eu-west-1")...)
	refused(t, s, machines+key+"network: {zones: [eu-west-1z]}", append(wrong, "spec.provider.aws.network.zones: eu-west-1z is none of eu-west-1")...)
	refused(t, s, "pools:\n- {name: a, count: 1, zones: [eu-west-1y]}\n- {name: b, count: 1, zones: [eu-west-1z]}\n"+strings.Replace(key, file, file+".not", 1),
		"spec.provider.aws.pools[0].zones: eu-west-1y is not all in eu-west-1a", "spec.provider.aws.pools[1].zones: eu-west-1z", "spec.provider.aws.ssh.identityFile: there is no such file", "spec.provider.aws.ssh.keyName: eu-west-1 has no key pair misspelt")
	refused(t, s, "network: {zones: [eu-west-1z]}\n"+strings.Replace(key, file, file+".not", 1), "spec.provider.aws.network.zones: eu-west-1z", "spec.provider.aws.ssh.identityFile: there is no such file",
		"spec.provider.aws.ssh.keyName: eu-west-1 has no key pair misspelt")
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	other, others := givenNetwork(t, connect(t, parse(t, small)))
	refused(t, s, fmt.Sprintf("network: {vpc: %s, subnets: [%s, subnet-0a], publicSubnets: [%s, subnet-0b]}", vpc, subnets[0], others[2]),
		"spec.provider.aws.network.subnets[1]: subnet-0a is not in eu-west-1", "spec.provider.aws.network.publicSubnets[0]: "+others[2]+" is in "+other, "spec.provider.aws.network.publicSubnets[1]: subnet-0b is not in eu-west-1")
}

// Where AWS does not answer, that is what ends the run: the document may be right in all that it would have told.
func TestAnErrorOfAWSIsNoneOfTheDocuments(t *testing.T) {
	denied := &cloud.Error{Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}
	for action, document := range map[string]string{
		"DescribeImages":        "network: {zones: [eu-west-1z]}\npools: [{name: a, count: 1, image: ami-0a}]", // of machines alone
		"DescribeLoadBalancers": "network: {zones: [eu-west-1z]}",                                              // of what can't be changed
	} {
		start(t, cloud.Options{Before: func(c cloud.Call) *cloud.Error {
			if c.Action == action {
				return denied
			}
			return nil
		}})
		_, err := connect(t, parse(t, document)).Plan(t.Context())
		wants(t, err, "UnauthorizedOperation", "lack a permission", "\nand the document is wrong: ", "spec.provider.aws.")
		if errors.As(err, new(*DocumentError)) {
			t.Errorf("%s: it is said to be the document's: %v", action, err)
		}
	}
	w := &walk{plan: true, wrong: multierror.Append(nil, wrong("network", "no"))}
	_, err := w.run(t.Context(), []*resource{{kind: "vpc", find: func() (string, []string, error) {
		return "", nil, &smithy.GenericAPIError{Code: "Throttling", Message: "slow"}
	}}})
	if wants(t, err, "AWS: vpc: Throttling", "\nand the document is wrong: spec.provider.aws.network: no"); errors.As(err, new(*DocumentError)) {
		t.Errorf("it is said to be the document's: %v", err)
	}
}

func TestAnImageIsForTheMachinesThatBootIt(t *testing.T) {
	s := start(t, cloud.Options{})
	all, err := connect(t, parse(t, small)).look(t.Context()).ubuntu()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		for kind, arch := range map[string]string{"t3.medium": "x86_64", "m7g.large": "arm64"} {
			document := fmt.Sprintf("pools: [{name: a, count: 1, instanceType: %s, image: %s}]", kind, *i.ImageId)
			if string(i.Architecture) != arch {
				refused(t, s, document, fmt.Sprintf("spec.provider.aws.pools[0].image: %s is for %s, and %s is %s", *i.ImageId, i.Architecture, kind, arch))
			} else if _, err := connect(t, parse(t, document)).Plan(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
