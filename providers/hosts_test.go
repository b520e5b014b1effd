package providers

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/waits"
)

func TestAJumpHostIsToldOfOnce(t *testing.T) {
	behind := func(name string, role config.Role, why string) *phases.Machine {
		return &phases.Machine{Node: config.Node{Name: name, Roles: []config.Role{role}}, Err: &host.BehindError{Host: name, Err: &host.UnreachableError{Err: errors.New(why)}}}
	}
	all := []*phases.Machine{behind("w-1", config.WorkerRole, "refused"), behind("cp-1", config.ControlPlaneRole, "refused"), behind("w-2", config.WorkerRole, "no route"), {}}
	TellOnce(all)
	for i, want := range []string{"w-1: its jump host is that of cp-1, and not reached either", "cp-1: jump host: refused", "w-2: jump host: no route"} {
		var down *host.UnreachableError
		if err := all[i].Err; err.Error() != want || !errors.As(err, &down) {
			t.Errorf("%v, not %s", err, want)
		}
	}
}

// Who looks on reads for whom it is waited, and why.
func TestNewMachinesAreWaitedForAloud(t *testing.T) {
	w := &waits.List{}
	client, err := ssh.New(ssh.Options{Config: "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	all := []*phases.Machine{{Node: config.Node{Name: "w-1", SSH: &config.SSH{Address: "127.0.0.1", Port: 1}}, Err: &host.UnreachableError{Err: errors.New("refused")}}, {Node: config.Node{Name: "w-2"}}}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		Await(ctx, client, all, time.Minute, w)
	}()
	limit := time.Now().Add(time.Minute)
	for words := []string(nil); len(words) == 0 || !strings.HasPrefix(words[0], "SSH of new machines (") || !strings.Contains(words[0], "refused"); runtime.Gosched() {
		if _, words = w.Long(time.Now().Add(6 * time.Second)); time.Now().After(limit) {
			t.Errorf("it says %q", words)
			break
		}
	}
	cancel()
	<-over
	if _, words := w.Long(time.Now().Add(6 * time.Second)); len(words) > 0 {
		t.Errorf("afterwards: %q", words)
	}
}
