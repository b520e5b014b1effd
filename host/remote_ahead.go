package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Read is a question that a Remote was asked, and that changes nothing: a verb of agent.sh and its
// words. It holds no answer, hence no secret.
type Read []string

// ahead is what a Remote knows without asking: what was asked for at the start, as the run before
// had asked it.
type ahead struct {
	asked   []Read
	known   map[string]bool   // of asked, by key
	answers map[string]result // by key; each is given once: who asks again wants to see what has become of it
	changes int               // that this run has begun
}

// key is that of a question; none if it may change something, or has input.
func key(ask []string) string {
	switch ask[0] {
	case "stat", "sum", "read", "list":
		return strings.Join(ask, "\x00")
	case "query": // the second word is like no other
		if ask[2] == "" {
			return "query\x00" + strings.Join(ask[3:], "\x00")
		}
	}
	return ""
}

// Reads are the questions of this run so far, each once: what the next one may [Remote.Prefetch].
func (r *Remote) Reads() []Read {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ahead.asked)
}

// Prefetch asks in one frame what a run before has asked. Until this run changes something, each
// answer is given once to who asks just that. The questions have commands in them: keep them
// where only their owner can write.
func (r *Remote) Prefetch(ctx context.Context, reads []Read) error {
	q := &request{}
	for _, read := range reads {
		if len(read) == 0 || read[0] == "query" && len(read) < 4 || key(read) == "" {
			return fmt.Errorf("%q is no question that changes nothing", read)
		}
		q.ask = append(q.ask, read)
	}
	if len(q.ask) == 0 {
		return nil
	}
	r.mu.Lock()
	changes := r.ahead.changes
	r.mu.Unlock()
	if err := r.send(ctx, query, q); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ahead.changes != changes {
		return nil
	}
	r.ahead.answers = map[string]result{}
	for i, a := range q.answers {
		r.ahead.answers[key(q.ask[i])] = a
	}
	return nil
}

// foreseen answers a request with what is known, if that is all that it asks.
func (r *Remote) foreseen(l lane, q *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l == change {
		r.ahead.answers = nil
		r.ahead.changes++
		return false
	}
	all := true
	for _, ask := range q.ask {
		k := key(ask)
		if k != "" && !r.ahead.known[k] {
			if r.ahead.known == nil {
				r.ahead.known = map[string]bool{}
			}
			r.ahead.known[k] = true
			r.ahead.asked = append(r.ahead.asked, ask)
		}
		_, ok := r.ahead.answers[k]
		all = all && ok && k != ""
	}
	if !all {
		return false
	}
	for _, ask := range q.ask {
		q.answers = append(q.answers, r.ahead.answers[key(ask)])
	}
	for _, ask := range q.ask {
		delete(r.ahead.answers, key(ask))
	}
	return true
}
