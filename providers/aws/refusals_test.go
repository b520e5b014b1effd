package aws

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestAClusterDoesNotMoveToAnotherVPC(t *testing.T) {
	s := start(t, cloud.Options{})
	vpc, subnets := givenNetwork(t, connect(t, parse(t, small)))
	other, others := givenNetwork(t, connect(t, parse(t, small)))
	in := func(vpc, subnet string) string {
		return fmt.Sprintf("network: {vpc: %s, subnets: [%s]}\nloadBalancer: {scheme: internal}\n", vpc, subnet)
	}
	a := made(t, "controlPlane: {count: 1}")
	own, err := ourVPCID(a.look(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, s, in(vpc, subnets[0])+"pools: [{name: w, count: 1, instanceType: t9.huge}]", "spec.provider.aws.pools[0].instanceType", "spec.provider.aws.network.vpc: the cluster has a VPC of its own, "+own,
		"spec.provider.aws.loadBalancer.scheme: the load balancer is internet-facing")
	if _, err := a.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	made(t, in(vpc, subnets[0]))
	refused(t, s, "loadBalancer: {scheme: internal}", "spec.provider.aws.network.vpc: the cluster is in "+vpc+", and can't move: write that")
	refused(t, s, in(other, others[0]), "spec.provider.aws.network.vpc: the cluster is in "+vpc+", and can't move: write that")
}

// What a run has made that was cut short after its VPC is the cluster's, too.
func TestAVPCAloneKeepsTheCluster(t *testing.T) {
	s := start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	vpc, subnets := givenNetwork(t, a)
	w, err := a.network(t.Context(), a.look(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.vpc.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, s, fmt.Sprintf("network: {vpc: %s, subnets: [%s]}\nloadBalancer: {scheme: internal}", vpc, subnets[0]), "spec.provider.aws.network.vpc: the cluster has a VPC of its own")
}

func TestWhatCannotBeChangedIsRefusedBeforeTheRest(t *testing.T) {
	s := start(t, cloud.Options{})
	made(t, "loadBalancer: {from: [192.0.2.0/24]}")
	refused(t, s, "loadBalancer: {scheme: internal, from: [198.51.100.0/24]}", "spec.provider.aws.loadBalancer.scheme: the load balancer is internet-facing")
	before := len(s.Calls())
	d := parse(t, "loadBalancer: {from: [198.51.100.0/24]}")
	d.Spec.ControlPlane.BindPort = 7443
	_, err := connect(t, d).Create(t.Context())
	wants(t, err, "spec.controlPlane.bindPort: the API servers of the cluster are at 6443, and not at 7443")
	for _, c := range s.Calls()[before:] {
		if !strings.HasPrefix(c.Action, "Describe") && !strings.HasPrefix(c.Action, "Get") {
			t.Errorf("it has called %s", c.Action)
		}
	}
}

// One key lets in to all machines, or nobody knew which.
func TestMachinesHaveOneKey(t *testing.T) {
	s := start(t, cloud.Options{})
	a := made(t, "pools: [{name: w, count: 1}]")
	own, mine := a.ownKeyName(), "mine"
	file := filepath.Join(t.TempDir(), "mine")
	public, err := makeKey(file, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: &mine, PublicKeyMaterial: public}); err != nil {
		t.Fatal(err)
	}
	named := fmt.Sprintf("ssh: {keyName: mine, identityFile: %s}\n", file)
	for _, n := range []int{1, 2} {
		refused(t, s, named+fmt.Sprintf("pools: [{name: w, count: %d}]", n), "spec.provider.aws.ssh.keyName: the machines that are there, ", "launched with the key pair "+own, "leave keyName and identityFile out")
	}
	if _, err := a.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := made(t, named+"pools: [{name: w, count: 1}]")
	refused(t, s, "pools: [{name: w, count: 2}]", "spec.provider.aws.ssh.keyName: the machines that are there, ", "launched with the key pair mine", "write ssh.keyName: mine")
	err = connect(t, parse(t, "pools: [{name: w, count: 1}]")).Hosts(t.Context())
	if wants(t, err, "write ssh.keyName: mine"); strings.Contains(err.Error(), "copy") {
		t.Errorf("there is nothing to copy: %v", err)
	}
	if _, err := b.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnIdentityFileThatLetsNobodyIn(t *testing.T) {
	s := start(t, cloud.Options{})
	a, dir, mine := connect(t, parse(t, small)), t.TempDir(), "mine"
	file := filepath.Join(dir, "mine")
	public, err := makeKey(file, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: &mine, PublicKeyMaterial: public}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"mine.pub": public, "agents.pub": public, "mine.ppk": []byte("PuTTY-User-Key-File-3: ssh-ed25519\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	document := func(file string) string { return "ssh: {keyName: mine, identityFile: '" + file + "'}" }
	for file, want := range map[string]string{
		"mine.pub": "mine.pub is the public half: write mine", "~/mine.pub": "write ~/mine", "none": "there is no such file as " + filepath.Join(dir, "none") + ": ",
		"mine.ppk": "is no private key as ssh has them", ".": "is a folder",
	} {
		refused(t, s, document(file), "spec.provider.aws.ssh.identityFile: ", want)
	}
	for _, file := range []string{"mine", "~/mine", "${HOME}/mine", filepath.Join(dir, "mine"), "agents.pub"} {
		if _, err := connect(t, parse(t, document(file))).Plan(t.Context()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		want := filepath.Join(dir, filepath.Base(file))
		if c := connect(t, parse(t, document(file))); c.Identity() != want {
			t.Errorf("%s is %s, and not %s", file, c.Identity(), want)
		}
	}
}

// Whoever looks, or ends the cluster, is told of it no more than needed: some of its machines may let them in.
func TestMachinesOfTwoKeysAreHosts(t *testing.T) {
	s := start(t, cloud.Options{})
	a, d, machines := up(t, "pools: [{name: w, count: 1}]")
	had, mine := machines["w-0"], "mine"
	file := filepath.Join(t.TempDir(), "mine")
	public, err := makeKey(file, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: &mine, PublicKeyMaterial: public}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ec2.RunInstances(t.Context(), &ec2.RunInstancesInput{MinCount: sdk.Int32(1), MaxCount: sdk.Int32(1), SubnetId: had.SubnetId, ImageId: had.ImageId, InstanceType: had.InstanceType,
		KeyName: &mine, TagSpecifications: a.specified(ec2types.ResourceTypeInstance, "w-1")}); err != nil {
		t.Fatal(err)
	}
	for _, ssh := range []string{"", fmt.Sprintf("ssh: {keyName: mine, identityFile: %s}\n", file)} {
		document := ssh + "pools: [{name: w, count: 2}]"
		refused(t, s, document, "spec.provider.aws.ssh.keyName: the machines that are there, ")
		d = parse(t, document)
		if err := connect(t, d).Hosts(t.Context()); err != nil || len(d.Spec.Hosts) != 3 {
			t.Errorf("%d hosts, %v", len(d.Spec.Hosts), err)
		}
	}
}
