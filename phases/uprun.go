package phases

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/config"
)

// Run changes what has to be changed. The error holds those of all hosts that failed.
func (u *Up) Run(ctx context.Context) error {
	if err := u.preflight(ctx, true); err != nil {
		return err
	}
	if len(u.members) > 0 {
		u.turns = NewTurns(len(u.Machines), u.ready)
	}
	ctx, end := u.whileReached(ctx)
	defer end()
	if url, moved := u.hasMoved(ctx); moved {
		if err := u.moveAlone(ctx, url); err != nil {
			return fmt.Errorf("%s: %w", u.leader.Node.Name, err)
		}
	}
	u.ended, u.moved, u.uploads = make(chan struct{}), make(chan struct{}), make(chan struct{}, uploads)
	places := make(chan struct{}, cmp.Or(u.Concurrency, AtATime))
	var mu sync.Mutex
	failures := map[*Machine]error{}
	var wg sync.WaitGroup
	for _, m := range u.order() {
		if !u.chosen(m) {
			continue
		}
		select {
		case places <- struct{}{}: // the leader first: the others wait for its API server
		case <-ctx.Done():
			mu.Lock()
			failures[m] = fmt.Errorf("not begun: %w", context.Cause(ctx))
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, end := m.within(ctx)
			defer end()
			t, list := u.target(m)
			list = without(list, "preflight")
			defer u.leaderFirst(ctx, m, t)()
			err := Run(ctx, list, t, u.skips(list))
			if u.turns != nil {
				err = u.turns.done(ctx, m.Node.Name, err)
			}
			if err == nil {
				m.rest(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			failures[m] = err
			if m == u.leader {
				u.leaderErr = err
				close(u.ended)
			}
		})
	}
	if !u.chosen(u.leader) {
		close(u.ended)
	}
	wg.Wait()
	if u.chosen(u.leader) && !u.PrepareOnly && !slices.ContainsFunc(slices.Collect(maps.Values(failures)), func(err error) bool { return err != nil }) {
		t, _ := u.bare(u.leader)
		last := u.last()
		failures[u.leader] = Run(ctx, last, t, u.skips(last))
	}
	u.nameStrangers(ctx)
	var all *multierror.Error
	for _, m := range u.Machines {
		if err := failures[m]; err != nil {
			all = multierror.Append(all, fmt.Errorf("%s: %w", m.Node.Name, err))
		}
	}
	for _, m := range u.Machines {
		if m.Err != nil {
			all = multierror.Append(all, fmt.Errorf("%s was left as it is: %w", m.Node.Name, m.Err))
		}
	}
	return config.Errors(all)
}

// leaderFirst has the hosts of a new cluster wait with what is sent to them until the leader has all
// of it: its API server is what they will wait for. Those that share a computer with it wait with all they do until
// its kubelet starts etcd, which leaves them time enough. It returns what is to be done at the end of m's phases.
func (u *Up) leaderFirst(ctx context.Context, m *Machine, t *Target) (end func()) {
	shared := u.Cluster.Spec.Provider.Name == "kind"
	switch {
	case len(u.members) > 0 || u.PrepareOnly: // nobody waits for an API server
		return func() {}
	case m != u.leader:
		wait := func(ctx context.Context) error {
			select {
			case <-u.moved:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if t.Move = wait; shared {
			wait(ctx)
		}
		return func() {}
	}
	last := "images"
	if shared {
		last = "etcd"
	}
	moved, report := sync.OnceFunc(func() { close(u.moved) }), t.Report
	t.Report = func(e Event) {
		if _, ended := BarOf(e); e.Phase == last && (ended || e.State == Skipped) {
			moved()
		}
		if report != nil {
			report(e)
		}
	}
	return moved
}

// whileReached is a context that ends when the last of those is lost through whom the API is asked: nobody
// connects to them again, so the others would wait for an answer until their time is over.
func (u *Up) whileReached(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var stops []func() bool
	doors := slices.DeleteFunc(u.answering(), func(m *Machine) bool { return m != u.leader && !u.members[m] })
	left := atomic.Int64{}
	left.Store(int64(len(doors)))
	for _, m := range doors {
		if m.Lease == nil {
			continue
		}
		stops = append(stops, context.AfterFunc(m.Lease, func() {
			if left.Add(-1) == 0 {
				cancel(fmt.Errorf("no control plane is reached any more: %w", context.Cause(m.Lease)))
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// skips are those phases of Skip that a list has: workers have no etcd.
func (u *Up) skips(list []Phase) []string {
	return slices.DeleteFunc(slices.Clone(u.Skip), func(name string) bool { return len(Select(list, name)) == 0 })
}

// Changes is how much was changed so far, on all hosts and in the API.
func (u *Up) Changes() int { return int(u.changes.Load()) }

// UpPhases are those of all hosts, each name once.
func UpPhases() []Phase {
	var all []Phase
	for _, list := range [][]Phase{Init(), JoinControlPlane(), Join()} {
		for _, p := range list {
			if !slices.ContainsFunc(all, func(have Phase) bool { return have.Name == p.Name }) {
				all = append(all, p)
			}
			if p.Name == "preflight" && len(Select(all, Reach.Name)) == 0 {
				all = append(all, Reach)
			}
		}
	}
	return all
}

// order has the leader first, then the other control planes.
func (u *Up) order() []*Machine {
	all := slices.Clone(u.Machines)
	rank := func(m *Machine) int {
		switch {
		case m == u.leader:
			return 0
		case m.controlPlane():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *Machine) int { return rank(a) - rank(b) })
	return all
}
