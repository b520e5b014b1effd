package phases

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// dialled is a host that notes what is dialled from it, and connects nobody.
type dialled struct {
	host.Host
	name string
	to   *[]string
}

func (d dialled) Dial(_ context.Context, _, addr string) (net.Conn, error) {
	*d.to = append(*d.to, d.name+" "+addr)
	return nil, errors.New("refused")
}

func TestAnotherControlPlaneLeadsWhenTheLeaderGoes(t *testing.T) {
	for name, tt := range map[string]struct {
		are  func(*Up)
		gone int
		led  string
	}{
		"a worker goes":       {func(*Up) {}, 3, "cp-1"},
		"another goes":        {func(*Up) {}, 2, "cp-1"},
		"the leader goes":     {func(*Up) {}, 0, "cp-2"},
		"the next is down":    {func(u *Up) { u.Machines[1].Err = errDown }, 0, "cp-3"},
		"the next is no more": {func(u *Up) { delete(u.members, u.Machines[1]) }, 0, "cp-3"},
		"it was the last":     {func(u *Up) { u.Machines[1].Err, u.Machines[2].Err = errDown, errDown }, 0, "cp-1"},
	} {
		t.Run(name, func(t *testing.T) {
			u := led(t, nil)
			tt.are(u)
			if err := u.follow(u.Machines[tt.gone]); err != nil || u.leader.Node.Name != tt.led {
				t.Errorf("%s leads, %v", u.leader.Node.Name, err)
			}
		})
	}
}

// The cluster's API is asked for by the name that every server's certificate has, at the hosts' own port.
func TestTheAPIOfAnyControlPlaneIsReached(t *testing.T) {
	var to []string
	u := led(t, &to)
	u.Cluster.Spec.ControlPlane.Endpoint = "api.example.org:443"
	u.Machines[1].Err = errDown
	if err := u.connect(); err != nil {
		t.Fatal(err)
	}
	if u.api.config.Host != "https://api.example.org:443" {
		t.Errorf("it is asked for as %s", u.api.config.Host)
	}
	if err := u.api.Ready(t.Context(), "/readyz"); err == nil {
		t.Error("nobody is there, and it answers")
	}
	if got, want := strings.Join(to[:2], ", "), "cp-1 192.0.2.1:6443, cp-3 192.0.2.3:6443"; got != want {
		t.Errorf("dialled: %s, not %s", got, want)
	}
}

// led is a fleet of three members, the first of which leads.
func led(t *testing.T, to *[]string) *Up {
	t.Helper()
	u := fleet("cp-1", "cp-2", "cp-3", "w-1")
	u.secrets = map[*Machine]*pki.Secrets{}
	for _, m := range u.Machines[:3] {
		var err error
		if u.secrets[m], err = pki.New(u.Cluster, m.Node, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		m.Host, u.members[m] = dialled{name: m.Node.Name, to: to}, true
	}
	u.leader = u.Machines[0]
	return u
}

// Those that share a computer with the first control plane of a new cluster begin when its kubelet has etcd to start, or it has come to nothing.
func TestContainersLetTheLeaderBegin(t *testing.T) {
	for name, tt := range map[string]struct {
		provider string
		event    Event
		waits    bool
	}{
		"etcd is written":         {"kind", Event{Phase: "etcd", State: Done}, false},
		"as it was before":        {"kind", Event{Phase: "etcd", State: Skipped}, false},
		"something before":        {"kind", Event{Phase: "images", State: Done}, true},
		"it is being written":     {"kind", Event{Phase: "etcd", State: Started}, true},
		"a machine of its own":    {"hosts", Event{}, false},
		"and what is sent may go": {"hosts", Event{Phase: "images", State: Done}, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := led(t, nil)
			u.members, u.moved, u.ended = nil, make(chan struct{}), make(chan struct{})
			u.Cluster.Spec.Provider.Name = tt.provider
			leader, worker := &Target{}, &Target{}
			end := u.leaderFirst(t.Context(), u.leader, leader)
			leader.Report(tt.event)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			u.leaderFirst(ctx, u.Machines[3], worker)
			if waited := ctx.Err() != nil; waited != tt.waits {
				t.Errorf("a worker waited: %v", waited)
			}
			end()
			if err := worker.Move(t.Context()); err != nil {
				t.Error(err)
			}
			u.leaderFirst(t.Context(), u.Machines[3], worker) // the leader has come to its end
		})
	}
}
