package providers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/waits"
)

// Hosts are the machines that a document lists. They are there, and reached over SSH; all
// are connected to, at some at a time. One that cannot be reached says why in its Err.
func Hosts(ctx context.Context, c *config.Cluster, client *ssh.Client) []*phases.Machine {
	machines := make([]*phases.Machine, len(c.Spec.Hosts))
	var g errgroup.Group
	g.SetLimit(phases.AtATime)
	for i, n := range c.Spec.Hosts {
		m := &phases.Machine{Node: n}
		machines[i] = m
		g.Go(func() error {
			connect(ctx, client, m)
			return nil
		})
	}
	g.Wait()
	return machines
}

func connect(ctx context.Context, client *ssh.Client, m *phases.Machine) {
	var to config.SSH
	if m.Node.SSH != nil {
		to = *m.Node.SSH
	}
	if to.Address == "" {
		to.Address = m.Node.Address
	}
	t, err := client.Connect(ctx, m.Node.Name, to)
	if m.Err = err; err == nil {
		m.Host = host.NewRemote(t)
	}
}

func booting(err error) bool {
	var down *host.UnreachableError
	var denied *ssh.DeniedError
	return errors.As(err, &down) || errors.As(err, &denied)
}

// Await goes on trying to reach machines that have just been made, for so long: they boot, and get to know whom to
// let in a moment after they have begun to listen. What else is in the way stays so. Who looks on reads in w who is waited for.
func Await(ctx context.Context, client *ssh.Client, machines []*phases.Machine, limit time.Duration, w *waits.List) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	is, over := w.Begin("SSH of new machines")
	defer over()
	var mu sync.Mutex
	left := map[string]error{}
	tell := func(m *phases.Machine) {
		mu.Lock()
		defer mu.Unlock()
		if left[m.Node.Name] = m.Err; !booting(m.Err) {
			delete(left, m.Node.Name)
		}
		is(silent(left))
	}
	var g errgroup.Group
	g.SetLimit(phases.AtATime)
	for _, m := range machines {
		tell(m)
	}
	for _, m := range machines {
		g.Go(func() error {
			for booting(m.Err) {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Second):
				}
				if why := m.Err; ctx.Err() == nil {
					if connect(ctx, client, m); m.Err != nil && ctx.Err() != nil {
						m.Err = why
					}
				}
				tell(m)
			}
			return nil
		})
	}
	g.Wait()
}

// silent are those who do not let us in, and why the first of them does not.
func silent(left map[string]error) string {
	names := slices.Sorted(maps.Keys(left))
	switch len(names) {
	case 0:
		return ""
	case 1:
		return left[names[0]].Error()
	}
	return fmt.Sprintf("%d of them; %v", len(names), left[names[0]])
}

// TellOnce has but one of the machines behind a jump host say why that is not reached, a control plane where there is one:
// the others name it.
func TellOnce(machines []*phases.Machine) {
	first := map[string]string{}
	for _, planes := range []bool{true, false} {
		for _, m := range machines {
			var behind *host.BehindError
			if m.Node.Has(config.ControlPlaneRole) != planes || !errors.As(m.Err, &behind) {
				continue
			}
			if name := first[behind.Err.Error()]; name != "" {
				m.Err = &toldError{fmt.Sprintf("%s: its jump host is that of %s, and not reached either", behind.Host, name), m.Err}
			} else {
				first[behind.Err.Error()] = m.Node.Name
			}
		}
	}
}

// toldError is one of which more is said elsewhere.
type toldError struct {
	words string
	error
}

func (e *toldError) Error() string { return e.words }
func (e *toldError) Unwrap() error { return e.error }
