package providers

import (
	"errors"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
)

func TestAJumpHostIsToldOfOnce(t *testing.T) {
	behind := func(name string, role config.Role, why string) *phases.Machine {
		return &phases.Machine{Node: config.Node{Name: name, Roles: []config.Role{role}}, Err: &ssh.BehindError{Host: name, Err: &host.UnreachableError{Err: errors.New(why)}}}
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
