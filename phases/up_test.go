package phases

import (
	"context"
	"errors"

	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// fleet is Up over hosts that nobody has looked at: what they are like, the tests say. A name
// that begins with cp is a control plane.
func fleet(names ...string) *Up {
	u := &Up{Cluster: cluster(), shared: map[string][]byte{}, members: map[*Machine]bool{}}
	for i, name := range names {
		m := &Machine{Node: config.Node{Name: name, Roles: []config.Role{config.WorkerRole}, Address: "192.0.2." + string(rune('1'+i))}}
		if strings.HasPrefix(name, "cp") {
			m.Node.Roles = []config.Role{config.ControlPlaneRole}
		}
		m.Facts = config.Facts{Hostname: name, Machine: "amd64", Present: map[string]bool{}}
		m.Journal = &Journal{latest: map[string]Step{}}
		u.Machines = append(u.Machines, m)
	}
	return u
}

var errDown = errors.New("no route to host")

func TestAClusterIsBegunOnlyWhereThereIsNone(t *testing.T) {
	for name, tt := range map[string]struct {
		are  func(*Up)
		want string
	}{
		"bare hosts":               {func(*Up) {}, ""},
		"a worker is down":         {func(u *Up) { u.Machines[3].Err = errDown }, ""},
		"a control plane is down":  {func(u *Up) { u.Machines[1].Err = errDown }, "cp-2 cannot be asked: it may have one, and a second one is not made beside it; bring it up, or take it out of the document: no route to host"},
		"two are":                  {func(u *Up) { u.Machines[1].Err, u.Machines[2].Err = errDown, errDown }, "cp-2, cp-3 cannot be asked"},
		"data, and no CA anywhere": {func(u *Up) { u.Machines[0].data = etcdData{Member: 1} }, "cp-1 was part of a cluster whose certificate authority is on no control plane here"},
		"a kubelet's, and no CA":   {func(u *Up) { u.Machines[2].Facts.Present[pki.KubeletConf] = true }, "cp-3 was part of"},
		"a manifest, and no CA":    {func(u *Up) { u.Machines[2].Facts.Present[manifests.Path(manifests.APIServer)] = true }, "cp-3 was part of"},
		"cut short, with the CA": {func(u *Up) {
			u.shared[pki.CA+".crt"] = []byte("x")
			u.Machines[0].Existing = map[string][]byte{pki.CA + ".crt": []byte("x")}
		}, ""},
		"with the CA, and one is down": {func(u *Up) { u.shared[pki.CA+".crt"] = []byte("x"); u.Machines[1].Err = errDown }, "cp-2 cannot be asked"},
		"an external etcd's": {func(u *Up) {
			u.Cluster.Spec.Etcd.External = &config.ExternalEtcd{CAFile: "/etc/etcd/ca.crt"}
			u.Machines[0].Existing = map[string][]byte{"/etc/etcd/ca.crt": []byte("x")}
		}, ""},
		"one is down, of machines that are made": {func(u *Up) {
			u.Cluster.Spec.Provider.Name, u.Machines[1].Err = "aws", errDown
		}, "bring it up, or if it has none, terminate it in EC2, and `kubewright up` makes another: no route to host"},
		"their jump host is down": {func(u *Up) {
			u.Cluster.Spec.Provider.Name, u.Machines[1].Err = "aws", &host.BehindError{Host: "cp-2", Err: errDown}
		}, "a second one is not made beside it; see to the jump host, or to what leads to it, first: cp-2: jump host: no route to host"},
		"one is not there":                   {func(u *Up) { u.Machines = u.Machines[1:] }, "2 control planes: etcd on an even number"},
		"one is not there, and will be made": {func(u *Up) { u.Machines, u.Cluster.Spec.Provider.Name = u.Machines[1:], "aws" }, ""},
		"traces on a worker say little":      {func(u *Up) { u.Machines[3].Facts.Present[pki.KubeletConf] = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := fleet("cp-1", "cp-2", "cp-3", "w-1")
			tt.are(u)
			refusedAs(t, u.mayBegin(), tt.want)
		})
	}
}

// refusedAs wants an error with these words; none: no error.
func refusedAs(t *testing.T, err error, words string) {
	t.Helper()
	if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
		t.Errorf("%v, not %q", err, words)
	}
}

// Where no etcd answers, whoever has its data is taken for a member.
func TestMembersAreFoundByTheirData(t *testing.T) {
	for name, tt := range map[string]struct {
		are          func(*Up)
		members, led string
	}{
		"none":          {func(*Up) {}, "", ""},
		"the first":     {func(u *Up) { u.Machines[0].data = etcdData{1, 9} }, "cp-1", "cp-1"},
		"not the first": {func(u *Up) { u.Machines[1].data, u.Machines[2].data = etcdData{2, 9}, etcdData{3, 9} }, "cp-2 cp-3", "cp-2"},
		"one is down": {func(u *Up) {
			u.Machines[0].data, u.Machines[1].data, u.Machines[0].Err = etcdData{1, 9}, etcdData{2, 9}, errDown
		}, "cp-2", "cp-2"},
		"only manifests": {func(u *Up) { u.Machines[0].Facts.Present[manifests.Path(manifests.APIServer)] = true }, "", ""},
		"of an external etcd": {func(u *Up) {
			u.Cluster.Spec.Etcd.External = &config.ExternalEtcd{}
			u.Machines[1].Facts.Present[manifests.Path(manifests.APIServer)] = true
		}, "cp-2", "cp-2"},
	} {
		t.Run(name, func(t *testing.T) {
			u := fleet("cp-1", "cp-2", "cp-3", "w-1")
			tt.are(u)
			var alive []*Machine
			for _, m := range u.controlPlanes() {
				if m.Err == nil {
					alive = append(alive, m)
				}
			}
			if err := u.findMembers(t.Context(), alive); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range u.Machines {
				if u.members[m] {
					got = append(got, m.Node.Name)
				}
			}
			led := ""
			if u.leader != nil {
				led = u.leader.Node.Name
			}
			if strings.Join(got, " ") != tt.members || led != tt.led {
				t.Errorf("members %v, led by %q", got, led)
			}
		})
	}
}

func TestWhatAClusterKeepsForItsLife(t *testing.T) {
	for field, change := range map[string]func(*config.Cluster){
		"spec.kubernetesVersion":     func(c *config.Cluster) { c.Spec.KubernetesVersion = "v1.99.0" },
		"metadata.name":              func(c *config.Cluster) { c.Metadata.Name = "other" },
		"spec.network.podCIDR":       func(c *config.Cluster) { c.Spec.Network.PodCIDR = "10.99.0.0/16" },
		"spec.network.serviceCIDR":   func(c *config.Cluster) { c.Spec.Network.ServiceCIDR = "10.99.0.0/16" },
		"spec.network.dnsDomain":     func(c *config.Cluster) { c.Spec.Network.DNSDomain = "other.local" },
		"spec.controlPlane.endpoint": func(c *config.Cluster) { c.Spec.ControlPlane.Endpoint = "other:6443" },
		"spec.pki.algorithm":         func(c *config.Cluster) { c.Spec.PKI.Algorithm = "RSA-2048" },
		"": func(c *config.Cluster) {
			c.Spec.APIServer.ExtraArgs = append(c.Spec.APIServer.ExtraArgs, config.Arg{Name: "v", Value: "4"})
		},
	} {
		t.Run(field, func(t *testing.T) {
			u := fleet("cp-1", "w-1")
			u.live = &Discovery{Cluster: cluster()}
			change(u.Cluster)
			err := u.kept()
			refusedAs(t, err, field)
			if field != "" && strings.Count(err.Error(), "the cluster has") != 1 {
				t.Errorf("more than one thing was refused: %v", err)
			}
		})
	}
	u := fleet("cp-1", "w-1")
	u.Machines[1].node = "worker-one" // as its certificate says
	refusedAs(t, u.kept(), `the cluster has "worker-one" and the document "w-1"`)
	u.Machines[1].Err = errDown // what is not seen is not judged
	refusedAs(t, u.kept(), "")
}

func TestControlPlanesMustAgreeOnWhatTheyShare(t *testing.T) {
	u := fleet("cp-1", "cp-2")
	u.Machines[0].Existing = map[string][]byte{"/a": []byte("1"), "/b": []byte("2"), "/own": []byte("3")}
	u.Machines[1].Existing = map[string][]byte{"/b": []byte("2"), "/own": []byte("4")}
	all, err := shared(u.Machines, []string{"/a", "/b", "/c"})
	if err != nil || len(all) != 2 || string(all["/a"]) != "1" {
		t.Errorf("%v, %v", all, err)
	}
	_, err = shared(u.Machines, []string{"/own"})
	refusedAs(t, err, "/own is not the same on cp-1 and on cp-2")
}

// The facts are faked: no lab has hosts of two architectures, or clocks of their own.
func TestHostsAreJudgedByEachOther(t *testing.T) {
	plain := testBundle(t, cluster())
	for name, tt := range map[string]struct {
		are  func(m []*Machine)
		want []string // a finding each, "! " before a warning
	}{
		"all different": {func([]*Machine) {}, nil},
		"addresses":     {func(m []*Machine) { m[2].Node.Address = m[0].Node.Address }, []string{"DuplicateAddress cp-1 and w-2 have the same address, 192.0.2.1"}},
		"host names":    {func(m []*Machine) { m[2].Facts.Hostname = "cp-1" }, []string{"DuplicateHostname cp-1 and w-2"}},
		"machine-ids":   {func(m []*Machine) { m[0].Facts.MachineID, m[1].Facts.MachineID, m[2].Facts.MachineID = "x", "x", "x" }, []string{"DuplicateMachineID cp-1 and w-1 and w-2 have the same machine-id, x"}},
		"no uuid":       {func(m []*Machine) { m[0].Facts.ProductUUID, m[1].Facts.ProductUUID = "", "" }, nil},
		"uuids":         {func(m []*Machine) { m[0].Facts.ProductUUID, m[1].Facts.ProductUUID = "u", "u" }, []string{"DuplicateProductUUID cp-1 and w-1"}},
		"its own twice": {func(m []*Machine) { m[0].Facts.MACs = []string{"aa", "aa"} }, nil}, // a bridge and its port
		"MACs":          {func(m []*Machine) { m[0].Facts.MACs, m[1].Facts.MACs = []string{"aa", "bb"}, []string{"bb"} }, []string{"DuplicateMAC cp-1 and w-1 have the same MAC address, bb"}},
		"one is down": {func(m []*Machine) {
			m[1].Err, m[0].Facts.MachineID, m[1].Facts.MachineID = errDown, "x", "x"
		}, nil},
		"all ahead of ours": {func(m []*Machine) {
			m[0].Facts.Clock, m[1].Facts.Clock, m[2].Facts.Clock = time.Hour, time.Hour, time.Hour
		}, nil},
		"a clock ahead":      {func(m []*Machine) { m[1].Facts.Clock = 3 * time.Second }, []string{"! Clock the clock of w-1 is 3s ahead of"}},
		"a clock far behind": {func(m []*Machine) { m[2].Facts.Clock = -time.Hour }, []string{"Clock the clock of w-2 is 1h0m0s behind that of the others"}},
		"almost the same":    {func(m []*Machine) { m[2].Facts.Clock = 900 * time.Millisecond }, nil},
		"another platform":   {func(m []*Machine) { m[1].Facts.Machine = "arm64" }, []string{"Architecture w-1 is linux/arm64, and the bundle is for linux/amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := fleet("cp-1", "w-1", "w-2")
			u.Bundle = plain
			tt.are(u.Machines)
			got := u.checkAll()
			if len(got) != len(tt.want) {
				t.Fatalf("%v, not %v", got, tt.want)
			}
			for i, f := range got {
				text := f.Name + " " + f.Message
				if f.Warning {
					text = "! " + text
				}
				if !strings.HasPrefix(text, tt.want[i]) {
					t.Errorf("%q, not %q", text, tt.want[i])
				}
			}
		})
	}
}

func TestWhoLosesAHostGoesOnWithTheOthers(t *testing.T) {
	u := fleet("cp-1", "w-1", "w-2")
	lease, lose := context.WithCancelCause(t.Context())
	u.Machines[1].Lease = lease
	taken := errors.New("another run has taken it over")
	lose(taken)
	for i, want := range []error{nil, taken, nil} {
		ctx, end := u.Machines[i].within(t.Context())
		if want != nil {
			<-ctx.Done()
		}
		if got := context.Cause(ctx); got != want {
			t.Errorf("%s: %v", u.Machines[i].Node.Name, got)
		}
		end()
	}
}

func TestWhoLosesAllControlPlanesStops(t *testing.T) {
	u := fleet("cp-1", "cp-2", "cp-3", "w-1")
	u.leader, u.members[u.Machines[1]] = u.Machines[0], true
	var lose []context.CancelCauseFunc
	for _, m := range u.Machines {
		lease, cancel := context.WithCancelCause(t.Context())
		m.Lease, lose = lease, append(lose, cancel)
	}
	ctx, end := u.whileReached(t.Context())
	defer end()
	for _, i := range []int{3, 2, 1} { // a worker, one that only joins, a member
		lose[i](errDown)
		<-u.Machines[i].Lease.Done()
	}
	if ctx.Err() != nil {
		t.Fatal("the leader is there")
	}
	lose[0](errDown)
	<-ctx.Done()
	refusedAs(t, context.Cause(ctx), "no control plane is reached any more: no route to host")
}

func TestPlanDigestIsOfAllThatAPlanIsMadeFrom(t *testing.T) {
	plans := []HostPlan{{Host: "cp-1", Phases: []Planned{{Phase: "certs", Steps: []Change{{Kind: "file", Name: "/x", Diff: "+ a"}}}}}}
	digest := func(document, version, lock string, plans []HostPlan) string {
		d, err := PlanDigest(document, version, lock, plans)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	own := digest("d", "v", "l", plans)
	if digest("d", "v", "l", plans) != own {
		t.Error("the same plan has two digests")
	}
	for what, other := range map[string]string{
		"the document":  digest("e", "v", "l", plans),
		"the version":   digest("d", "w", "l", plans),
		"the lock":      digest("d", "v", "m", plans),
		"a diff":        digest("d", "v", "l", []HostPlan{{Host: "cp-1", Phases: []Planned{{Phase: "certs", Steps: []Change{{Kind: "file", Name: "/x", Diff: "+ b"}}}}}}),
		"a host's name": digest("d", "v", "l", []HostPlan{{Host: "cp-2", Phases: plans[0].Phases}}),
		"an error":      digest("d", "v", "l", []HostPlan{{Host: "cp-1", Error: "down", Phases: plans[0].Phases}}),
		"no host":       digest("d", "v", "l", nil),
	} {
		if other == own {
			t.Errorf("%s does not matter to the digest", what)
		}
	}
}

// A worker of a cluster that is only being made waits for its API server, but not in a plan of it.
func TestAWorkerAwaitsTheAPIServerThatIsBeingMade(t *testing.T) {
	for name, tt := range map[string]struct {
		are    func(*Up)
		awaits bool
	}{
		"it is being made":  {func(*Up) {}, true},
		"it is planned":     {func(u *Up) { u.planning = true }, false},
		"it has been there": {func(u *Up) { u.members[u.leader] = true }, false},
	} {
		u := fleet("cp-1", "w-1")
		u.leader = u.Machines[0]
		tt.are(u)
		if worker, _ := u.bare(u.Machines[1]); (worker.Await != nil) != tt.awaits {
			t.Errorf("%s: it waits: %v", name, worker.Await != nil)
		}
	}
}
