package aws

import (
	"slices"
	"testing"

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
	all, err := a.things(t.Context())
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
	s.Publish(canonical, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20991231", "x86_64", "2099-12-31")
	if plan := planned(t, "pools: [{name: w, count: 1}]"); plan != "nothing\n" {
		t.Errorf("for a new image it would %s", plan)
	}
	_, _, after := up(t, "pools: [{name: w, count: 2}]")
	if *before["w-0"].InstanceId != *after["w-0"].InstanceId || *after["w-0"].ImageId == *after["w-1"].ImageId {
		t.Errorf("w-0 boots %s, and w-1 %s", *after["w-0"].ImageId, *after["w-1"].ImageId)
	}
}
