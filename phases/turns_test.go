package phases

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

func TestTurnsAreForSoManyAtATime(t *testing.T) {
	for hosts, kubelets := range map[int]int{1: 1, 3: 1, 19: 1, 20: 2, 100: 10} {
		s := NewTurns(hosts, nil)
		if cap(s.controlPlanes) != 1 || cap(s.kubelets) != kubelets {
			t.Errorf("of %d hosts: %d control planes, %d kubelets", hosts, cap(s.controlPlanes), cap(s.kubelets))
		}
	}
}

// readies counts who asked whether the control planes are well.
type readies struct {
	mu    sync.Mutex
	asked []string
	err   error
}

func (r *readies) ready(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, name)
	return r.err
}

func TestAHostKeepsItsTurnUntilItIsDone(t *testing.T) {
	r := &readies{}
	s := NewTurns(3, r.ready)
	first, err := s.take(t.Context(), "cp-1", s.controlPlanes)
	again, err2 := s.take(t.Context(), "cp-1", s.controlPlanes)
	if !first || again || err != nil || err2 != nil {
		t.Fatalf("%t %v, %t %v", first, err, again, err2)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(gone, "cp-2", s.controlPlanes); !errors.Is(err, context.Canceled) {
		t.Errorf("who is interrupted while it waits: %v", err)
	}
	got := make(chan error)
	go func() {
		_, err := s.take(t.Context(), "cp-3", s.controlPlanes)
		got <- err
	}()
	select {
	case <-got:
		t.Fatal("two control planes have a turn")
	default:
	}
	if err := s.done(t.Context(), "cp-1", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := s.done(t.Context(), "w-1", nil); err != nil || !slices.Equal(r.asked, []string{""}) {
		t.Errorf("asked %q after one turn of a control plane and none of a worker: %v", r.asked, err)
	}
}

func TestAfterAFailureNothingMoreIsRestarted(t *testing.T) {
	for name, tt := range map[string]struct {
		ready, phase error
		want         string
	}{
		"a phase failed":      {nil, errors.New("etcd does not start"), "cp-1: etcd does not start"},
		"it did not get well": {errors.New("2 of 3 voters"), nil, "cp-1: 2 of 3 voters"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &readies{err: tt.ready}
			s := NewTurns(3, r.ready)
			if _, err := s.take(t.Context(), "cp-1", s.controlPlanes); err != nil {
				t.Fatal(err)
			}
			if err := s.done(t.Context(), "cp-1", tt.phase); err == nil {
				t.Error("the failure was lost")
			}
			for _, turn := range []chan struct{}{s.controlPlanes, s.kubelets, s.kubelets} { // the last one: a refusal gives its turn back
				_, err := s.take(t.Context(), "cp-2", turn)
				refusedAs(t, err, "nothing is restarted here, as it went wrong before: "+tt.want)
			}
		})
	}
	s := NewTurns(3, (&readies{}).ready) // one that failed without a turn has restarted nothing
	if err := s.done(t.Context(), "w-1", errors.New("disk full")); err == nil {
		t.Error("the failure was lost")
	}
	if _, err := s.take(t.Context(), "cp-1", s.controlPlanes); err != nil {
		t.Error(err)
	}
}

func TestOnlyAStaticPodOfTheControlPlaneTakesItsTurn(t *testing.T) {
	for path, takes := range map[string]bool{
		manifests.Path(manifests.Etcd): true, manifests.Path(manifests.APIServer): true,
		"/etc/kubernetes/manifests/kube-haproxy.yaml": false, "/etc/kubernetes/admin.conf": false, "/srv/etcd.yaml": false,
	} {
		h := newFakeHost(t)
		r := &readies{}
		target := h.target(cluster(), config.ControlPlaneRole)
		target.Turns, target.replaced = NewTurns(3, r.ready), &sync.Map{}
		for _, name := range manifests.Names() {
			h.answers[strings.Join(append(target.crictl(), "ps", "--quiet", "--name", "^"+name+"$"), " ")] = "abc\n"
		}
		if err := target.takeTurn(t.Context(), []host.File{{Path: path}}); err != nil {
			t.Fatal(err)
		}
		if took := len(target.Turns.controlPlanes) == 1; took != takes || took != slices.Equal(r.asked, []string{target.Node.Name}) {
			t.Errorf("%s: it took a turn: %t, and asked %q", path, took, r.asked)
		}
	}
	target := newFakeHost(t).target(cluster(), config.ControlPlaneRole) // of a cluster that is not there yet
	if err := target.takeTurn(t.Context(), []host.File{{Path: manifests.Path(manifests.Etcd)}}); err != nil {
		t.Error(err)
	}
}

// hookedRun runs a list of one phase with hooks, and returns what was done.
func hookedRun(t *testing.T, h *fakeHost, kind string, hooks config.Hooks) (string, error) {
	t.Helper()
	target := h.target(cluster(), config.WorkerRole)
	journal, err := OpenJournal(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	target.Journal = journal
	h.done = nil
	list := hooked([]Phase{{Name: "preflight", Run: func(context.Context, *Target) error { return nil }},
		{Name: "work", After: []string{"preflight"}, Run: func(ctx context.Context, t *Target) error { return t.do(ctx, "work") }}}, kind, hooks)
	err = Run(t.Context(), list, target, nil)
	return strings.Join(h.done, "; "), err
}

func TestAKubeletHasMountedWhatItWants(t *testing.T) {
	line := func(plugin, state, n string) string {
		return `volume_manager_total_volumes{plugin_name="` + plugin + `",state="` + state + `_state_of_world"} ` + n + "\n"
	}
	for metrics, want := range map[string]bool{
		"": false, // it has just begun
		line("kubernetes.io/host-path", "desired", "12"):                                                                                               false,
		line("kubernetes.io/host-path", "actual", "11") + line("kubernetes.io/host-path", "desired", "12"):                                             false,
		line("kubernetes.io/host-path", "actual", "12") + line("kubernetes.io/host-path", "desired", "12"):                                             true,
		line("kubernetes.io/host-path", "actual", "12") + line("kubernetes.io/host-path", "desired", "12") + line("kubernetes.io/csi", "desired", "1"): false,
	} {
		if mounted(metrics) != want {
			t.Errorf("not %v for\n%s", want, metrics)
		}
	}
}

func TestHooksRunOnceBeforeAndAfter(t *testing.T) {
	all := config.Hooks{BeforeInit: []string{"bi"}, AfterInit: []string{"ai"}, BeforeJoin: []string{"bj"}, AfterJoin: []string{"aj", "aj2"}, BeforeReset: []string{"br"}, AfterReset: []string{"ar"}}
	for kind, want := range map[string][2]string{
		"init": {"$ sh -c bi; $ work; $ sh -c ai", "$ work"}, "join": {"$ sh -c bj; $ work; $ sh -c aj; $ sh -c aj2", "$ work"},
		"reset": {"$ sh -c br; $ work; $ sh -c ar", "$ sh -c br; $ work; $ sh -c ar"}, "": {"$ work", "$ work"},
	} {
		h := newFakeHost(t)
		for i := range want {
			if got, err := hookedRun(t, h, kind, all); err != nil || got != want[i] {
				t.Errorf("%q, run %d: %s, %v", kind, i+1, got, err)
			}
		}
	}
	if got, err := hookedRun(t, newFakeHost(t), "join", config.Hooks{}); err != nil || got != "$ work" {
		t.Errorf("no hooks: %s, %v", got, err)
	}
}

func TestHooksAreOfWhatAHostBeganAs(t *testing.T) {
	u := fleet("cp-1", "cp-2", "w-1")
	u.leader = u.Machines[0]
	for i, want := range []string{"init", "join", "join"} {
		if got := u.hookKind(u.Machines[i]); got != want {
			t.Errorf("%s, new: %q", u.Machines[i].Node.Name, got)
		}
	}
	u.members[u.Machines[1]] = true // cp-1 was made anew
	if got := u.hookKind(u.Machines[0]); got != "join" {
		t.Errorf("a leader of a cluster that is there: %q", got)
	}
	u.Machines[2].node = "w-1" // it was a node before it had hooks
	if got := u.hookKind(u.Machines[2]); got != "" {
		t.Errorf("a node: %q", got)
	}
	u.Machines[2].Journal.note(hookMark("join")) // and was cut short
	if got := u.hookKind(u.Machines[2]); got != "join" {
		t.Errorf("a node that has begun with hooks: %q", got)
	}
}
