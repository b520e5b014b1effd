// Package waits holds what a run waits for at the moment, and tells whoever looks on.
package waits

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// List is what is waited for now. It may be nil: then nobody looks on.
type List struct {
	mu  sync.Mutex
	all map[string]*wait
}

type wait struct {
	what, state  string
	since, until time.Time // until: zero, as nobody knows
}

// Begin notes that something is waited for, until end is called; is tells how it is.
func (l *List) Begin(what string) (is func(state string), end func()) {
	if l == nil {
		return func(string) {}, func() {}
	}
	w := l.note(what, "", time.Time{})
	return func(state string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			w.state = state
		}, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.all[what] == w {
				delete(l.all, what)
			}
		}
}

// For notes that something is waited for until then; again: it goes on.
func (l *List) For(what, state string, until time.Time) {
	if l != nil {
		l.note(what, state, until)
	}
}

func (l *List) note(what, state string, until time.Time) *wait {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &wait{what, state, time.Now(), until}
	if old := l.all[what]; old != nil && !until.IsZero() && time.Now().Before(old.until.Add(patience)) {
		w.since = old.since
	}
	if l.all == nil {
		l.all = map[string]*wait{}
	}
	l.all[what] = w
	return w
}

const (
	patience = 5 * time.Second  // what does not take longer is not spoken of
	again    = 30 * time.Second // what was said is said again after so long
)

// Tell says at each tick what takes longer than a moment, where that is something new or nothing was said for long. It ends when done is closed.
func (l *List) Tell(done <-chan struct{}, ticks <-chan time.Time, say func(format string, args ...any)) {
	var said []string
	var at time.Time
	for {
		select {
		case <-done:
			return
		case now := <-ticks:
			whats, words := l.Long(now)
			more := slices.ContainsFunc(whats, func(what string) bool { return !slices.Contains(said, what) })
			if len(whats) > 0 && (more || now.Sub(at) >= again) {
				say("waiting for %s", strings.Join(words, "; "))
				at = now
				said = whats
			}
		}
	}
}

// Long is what is waited for longer than a moment, the longest first; in words, how it is and for how long, too.
func (l *List) Long(now time.Time) (whats, words []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*wait
	for _, w := range l.all {
		if now.Sub(w.since) >= patience && (w.until.IsZero() || now.Before(w.until)) {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(x, y *wait) int {
		if c := x.since.Compare(y.since); c != 0 {
			return c
		}
		return strings.Compare(x.what, y.what)
	})
	for _, w := range all {
		how := now.Sub(w.since).Round(time.Second).String()
		if w.state != "" {
			how = w.state + ", " + how
		}
		whats, words = append(whats, w.what), append(words, fmt.Sprintf("%s (%s)", w.what, how))
	}
	return whats, words
}
