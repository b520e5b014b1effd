package phases

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// Turns are what hosts of a running cluster wait for before they restart something: one
// control plane at a time, and a tenth of all hosts for kubelets and container runtimes. A
// host keeps its turn until all of its phases are done. Control planes take theirs last, so
// nobody waits in a circle.
type Turns struct {
	controlPlanes, kubelets chan struct{}
	// Ready is asked before a control plane's turn and at the end of it.
	Ready func(ctx context.Context, name string) error

	mu     sync.Mutex
	has    map[string][]chan struct{} // by host
	broken error
}

// NewTurns is for a cluster of so many hosts.
func NewTurns(hosts int, ready func(ctx context.Context, name string) error) *Turns {
	return &Turns{controlPlanes: make(chan struct{}, 1), kubelets: make(chan struct{}, max(1, hosts/10)), Ready: ready, has: map[string][]chan struct{}{}}
}

// take waits for a turn, unless the host has it already.
func (s *Turns) take(ctx context.Context, name string, turn chan struct{}) (taken bool, err error) {
	s.mu.Lock()
	for _, have := range s.has[name] {
		if have == turn {
			s.mu.Unlock()
			return false, nil
		}
	}
	s.mu.Unlock()
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		<-turn
		return false, fmt.Errorf("nothing is restarted here, as it went wrong before: %w", s.broken)
	}
	s.has[name] = append(s.has[name], turn)
	return true, nil
}

// done ends the turns of a host. One that failed in its turn keeps the others from theirs.
func (s *Turns) done(ctx context.Context, name string, err error) error {
	s.mu.Lock()
	turns := s.has[name]
	delete(s.has, name)
	s.mu.Unlock()
	for _, turn := range turns {
		if turn == s.controlPlanes && err == nil {
			err = s.Ready(ctx, "")
		}
	}
	for _, turn := range turns {
		if err != nil {
			s.mu.Lock()
			s.broken = fmt.Errorf("%s: %w", name, err)
			s.mu.Unlock()
		}
		<-turn
	}
	return err
}

// takeTurn waits until this host may have its static pods restarted, if that is what writing
// these files would do.
func (t *Target) takeTurn(ctx context.Context, restarts []host.File) error {
	if t.Turns == nil {
		return nil
	}
	for _, f := range restarts {
		name := strings.TrimSuffix(path.Base(f.Path), ".yaml")
		if !slices.Contains(manifests.Names(), name) || f.Path != manifests.Path(name) {
			continue
		}
		taken, err := t.Turns.take(ctx, t.Node.Name, t.Turns.controlPlanes)
		if err != nil {
			return err
		}
		if taken {
			if err := t.Turns.Ready(ctx, t.Node.Name); err != nil {
				return err
			}
		}
		if err := t.remember(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// settling bounds the wait for a kubelet that may be what is to be mended.
const settling = 15 * time.Second

// settle waits until the kubelet of a control plane has mounted what the pods need that it found when it
// was started. A static pod whose manifest changes sooner runs on for two minutes: the kubelet waits for
// volumes that it has forgotten with the old manifest, and only then ends the old pod.
func (u *Up) settle(ctx context.Context, name string) {
	i := slices.IndexFunc(u.Machines, func(m *Machine) bool { return m.Node.Name == name })
	if i < 0 {
		return
	}
	client, err := u.clientOn(u.Machines[i])
	if err != nil {
		return
	}
	until(ctx, settling, "the kubelet's volumes", func(ctx context.Context) error {
		metrics, err := client.get(ctx, "/api/v1/nodes/"+name+"/proxy/metrics")
		if err == nil && !mounted(metrics) {
			err = errors.New("it has not mounted all that it wants to")
		}
		return err
	})
}

var volumes = regexp.MustCompile(`(?m)^volume_manager_total_volumes\{plugin_name="([^"]+)",state="(actual|desired)_state_of_world"\} (\S+)$`)

// mounted tells by a kubelet's metrics whether it has all volumes that it wants, and wants some.
func mounted(metrics string) bool {
	wanted := map[string]string{}
	found := volumes.FindAllStringSubmatch(metrics, -1)
	for _, m := range found {
		if m[2] == "desired" {
			wanted[m[1]] = m[3]
		}
	}
	for _, m := range found {
		if m[2] == "actual" && wanted[m[1]] == m[3] {
			delete(wanted, m[1])
		}
	}
	return len(found) > 0 && len(wanted) == 0
}

// remember notes the containers that are about to be replaced.
func (t *Target) remember(ctx context.Context, name string) error {
	ids, err := t.containers(ctx, name)
	if err != nil {
		return err
	}
	t.replaced.Store(name, ids)
	return nil
}

// containers are the running ones of that name.
func (t *Target) containers(ctx context.Context, name string) (string, error) {
	out, err := t.Host.Run(ctx, host.Query(append(t.crictl(), "ps", "--quiet", "--name", "^"+name+"$")...))
	return strings.TrimSpace(string(out.Stdout)), err
}

// isReplaced is nil when the container of a static pod whose manifest was changed in this run
// is another one than before: the old one answers for a moment.
func (t *Target) isReplaced(ctx context.Context, name string) error {
	if t.replaced == nil {
		return nil
	}
	old, _ := t.replaced.Load(name)
	was, _ := old.(string)
	if was == "" {
		return nil
	}
	now, err := t.containers(ctx, name)
	if err == nil && (now == "" || strings.Contains(now, was)) {
		err = fmt.Errorf("the kubelet has not replaced the container of %s yet", name)
	}
	if err == nil {
		t.replaced.Delete(name)
	}
	return err
}
