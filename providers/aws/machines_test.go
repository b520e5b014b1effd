package aws

import (
	"slices"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

// up makes what a document asks for, and gives the document as it is then, and the machines by their parts.
func up(t *testing.T, document string) (*Cloud, *config.Cluster, map[string]ec2types.Instance) {
	t.Helper()
	d := parse(t, document)
	a := connect(t, d)
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := a.look(t.Context()).instances()
	if err != nil {
		t.Fatal(err)
	}
	machines := map[string]ec2types.Instance{}
	for _, i := range all {
		if _, tags, alive := ofInstance(i); alive {
			machines[tagOf(tags, partTag)] = i
		}
	}
	return a, d, machines
}

// AWS tells of a terminated machine for an hour, and remembers its token for a day.
func TestAMachineIsReplacedHoweverLongItIsGone(t *testing.T) {
	s := start(t, cloud.Options{})
	_, _, before := up(t, small)
	for _, forgotten := range []bool{true, false, true} {
		a := connect(t, parse(t, small))
		if _, err := a.terminate(t.Context(), *before["workers-1"].InstanceId); err != nil {
			t.Fatal(err)
		}
		if forgotten {
			s.Forget()
		}
		_, _, after := up(t, small)
		if i := after["workers-1"]; i.InstanceId == nil || *i.InstanceId == *before["workers-1"].InstanceId || len(after) != len(before) {
			t.Fatalf("%v, and after it was terminated %v", before["workers-1"].InstanceId, i.InstanceId)
		}
		before = after
	}
}

// What others have deleted of the network is made again, though AWS knows the tokens of what it was.
func TestWhatOthersHaveDeletedIsMadeAgain(t *testing.T) {
	s := start(t, cloud.Options{})
	up(t, small)
	want := kinds(s)
	a := connect(t, parse(t, small))
	all, err := a.things(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range all {
		for _, x := range level {
			if x.kind == "nat-gateway" || x.kind == "route-table" {
				if err := x.end(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s.Forget()
	up(t, small)
	if have := kinds(s); !slices.Equal(have, want) {
		t.Errorf("there is %v, not %v", have, want)
	}
}

func TestANewMachineBootsTheImageOfTheDay(t *testing.T) {
	s := start(t, cloud.Options{})
	_, _, before := up(t, "pools: [{name: w, count: 1}]")
	s.Publish(canonical["aws"], "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20991231", "x86_64", "2099-12-31")
	if plan := planned(t, "pools: [{name: w, count: 1}]"); plan != "nothing\n" {
		t.Errorf("for a new image it would %s", plan)
	}
	_, _, after := up(t, "pools: [{name: w, count: 2}]")
	if *before["w-0"].InstanceId != *after["w-0"].InstanceId || *after["w-0"].ImageId == *after["w-1"].ImageId {
		t.Errorf("w-0 boots %s, and w-1 %s", *after["w-0"].ImageId, *after["w-1"].ImageId)
	}
}

// Machines that came up after others were told of as too many have left no cluster.
func TestThoseAloneAreEndedThatHaveLeftTheCluster(t *testing.T) {
	start(t, cloud.Options{})
	up(t, "pools: [{name: w, count: 3}]")
	a, _, _ := up(t, "pools: [{name: w, count: 1}]")
	_, _, before := up(t, "pools: [{name: w, count: 4}]")
	if _, err := a.terminate(t.Context(), *before["w-1"].InstanceId); err != nil { // somebody was faster
		t.Fatal(err)
	}
	if changes, err := a.Shrink(t.Context()); err != nil || len(changes) != 2 {
		t.Errorf("%v, %v", changes, err)
	}
	if _, _, after := up(t, "pools: [{name: w, count: 4}]"); *after["w-3"].InstanceId != *before["w-3"].InstanceId || *after["w-2"].InstanceId == *before["w-2"].InstanceId {
		t.Error("w-3 was ended, and not w-2")
	}
}

// Of two machines that are the same part, one is a host, and the other is to leave.
func TestTheSecondOfTwoMachinesLeaves(t *testing.T) {
	start(t, cloud.Options{})
	a, d, machines := up(t, "pools: [{name: w, count: 1}]")
	had := machines["w-0"]
	if _, err := a.ec2.RunInstances(t.Context(), &ec2.RunInstancesInput{MinCount: sdk.Int32(1), MaxCount: sdk.Int32(1), SubnetId: had.SubnetId, ImageId: had.ImageId, InstanceType: had.InstanceType,
		TagSpecifications: a.specified(ec2types.ResourceTypeInstance, "w-0")}); err != nil {
		t.Fatal(err)
	}
	a, d, _ = up(t, "pools: [{name: w, count: 1}]")
	if extra := a.Surplus(); len(d.Spec.Hosts) != 2 || len(extra) != 1 || extra[0].ProviderID == d.Spec.Hosts[1].ProviderID {
		t.Errorf("hosts %+v, and %+v are to leave", d.Spec.Hosts, extra)
	}
}

func TestAWSSaysWhichMachinesAreGone(t *testing.T) {
	s := start(t, cloud.Options{})
	a, d, machines := up(t, "pools: [{name: w, count: 3}]")
	if all := a.Young(time.Hour); len(all) != 4 {
		t.Errorf("young are %v", all)
	}
	if all := a.Young(0); len(all) != 0 {
		t.Errorf("young are %v", all)
	}
	for n, part := range []string{"w-0", "w-1"} {
		if _, err := a.terminate(t.Context(), *machines[part].InstanceId); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			s.Forget()
		}
	}
	nodes := slices.Clone(d.Spec.Hosts)
	nodes = append(nodes, config.Node{Name: "by-hand"}, config.Node{Name: "elsewhere", ProviderID: "aws:///us-east-1a/i-0123456789abcdef0"}, config.Node{Name: "kind", ProviderID: "kind://docker/a/b"})
	names, err := a.Gone(t.Context(), nodes)
	want := []string{d.Spec.Hosts[1].Name, d.Spec.Hosts[2].Name}
	slices.Sort(want)
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("gone are %v, not %v: %v", names, want, err)
	}
}
