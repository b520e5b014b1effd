package phases

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// history writes into the journal how long the phases of a run took, in one line each at its
// end, if it changed anything: `kubewright timeline` draws them.
type history struct {
	target *Target
	began  time.Time
	lines  int // of the journal, then

	mu    sync.Mutex
	steps []Step
}

func newHistory(t *Target) *history {
	h := &history{target: t, began: cmp.Or(t.Began, time.Now())}
	if t.Journal != nil {
		h.lines = t.Journal.length()
	}
	return h
}

// hear passes an event on.
func (h *history) hear(e Event) {
	if b, ok := BarOf(e); ok {
		began := h.began.UTC()
		h.mu.Lock()
		h.steps = append(h.steps, Step{Kind: aPhase, Name: b.Phase, After: string(b.State), Seconds: b.Seconds, Run: &began, Time: b.Begin.UTC()})
		h.mu.Unlock()
	}
	if h.target.Report != nil {
		h.target.Report(e)
	}
}

func (h *history) write(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j := h.target.Journal; j == nil || !h.target.Ledger || j.length() == h.lines { // nothing was done
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return h.target.Journal.add(ctx, "", h.steps...)
}

// Bar is a phase as it ran on a host.
type Bar struct {
	Host, Phase string
	Begin       time.Time
	Seconds     float64
	State       State
}

// Bars are the phases of the latest run that changed this host, and when that run began.
func (j *Journal) Bars(host string) (bars []Bar, began time.Time) {
	if j == nil {
		return nil, began
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.phases {
		if s.Run.After(began) {
			began, bars = *s.Run, nil
		}
		if s.Run.Equal(began) {
			bars = append(bars, Bar{Host: host, Phase: s.Name, Begin: s.Time, Seconds: s.Seconds, State: State(s.After)})
		}
	}
	return bars, began
}

// BarOf is an event that ends a phase; false where it does not.
func BarOf(e Event) (Bar, bool) {
	if !slices.Contains([]State{Done, Unchanged, Failed}, e.State) {
		return Bar{}, false
	}
	return Bar{Host: e.Host, Phase: e.Phase, Begin: e.Time.Add(-time.Duration(e.Seconds * float64(time.Second))), Seconds: e.Seconds, State: e.State}, true
}
