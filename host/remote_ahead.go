package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"
)

// Read is a question that a Remote was asked, and that changes nothing: a verb of agent.sh and its
// words, or "dial" and a socket. It holds no answer, hence no secret.
type Read []string

// ahead is what a Remote knows without asking: what was asked for at the start, as the run before
// had asked it.
type ahead struct {
	asked   []Read         // as often as it was asked
	times   map[string]int // of asked, by key
	answers map[string]result
	left    map[string]int // how often an answer may yet be given, by key: who asks more often wants to see what has become of it
	dials   map[string][]chan net.Conn
	changes int    // that this run has begun
	stored  string // digest of what Recall has read
}

// often is how many times a question is noted: who asks more often waits for something to change.
const often = 4

// idle is how long a connection that was made ahead may wait for its use.
const idle = 30 * time.Second

// key is that of a question; none if it may change something, or has input.
func key(ask []string) string {
	switch ask[0] {
	case "stat", "sum", "read", "list":
		return strings.Join(ask, "\x00")
	case "query": // the second word is like no other
		if len(ask) > 3 && ask[2] == "" {
			return "query\x00" + strings.Join(ask[3:], "\x00")
		}
	case "dial":
		if len(ask) == 3 && ask[1] == "unix" {
			return strings.Join(ask, "\x00")
		}
	}
	return ""
}

// Reads are the questions of this run so far, each as often as it was asked, in an order that is
// always the same: what the next run may [Remote.Prefetch].
func (r *Remote) Reads() []Read {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(slices.Values(r.ahead.asked), slices.Compare)
}

// Recall reads the questions that the run before has stored, if any.
func (r *Remote) Recall(ctx context.Context, path string) (reads []Read, err error) {
	q := &request{ask: [][]string{{"read", path}}}
	if err := r.send(ctx, quick, q); err != nil {
		return nil, err
	}
	if q.answers[0].code != 0 {
		if err := words(q.answers[0].Output); !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, nil
	}
	r.mu.Lock()
	r.ahead.stored = Digest(q.answers[0].Stdout)
	r.mu.Unlock()
	if json.Unmarshal(q.answers[0].Stdout, &reads) != nil || slices.ContainsFunc(reads, func(x Read) bool { return len(x) == 0 || key(x) == "" }) {
		return nil, nil // of another kubewright, or damaged: nothing is lost but time
	}
	return reads, nil
}

// Remember stores the questions of this run for the next one, where they are others than before.
func (r *Remote) Remember(ctx context.Context, path string) error {
	b, err := json.Marshal(r.Reads())
	if err != nil {
		return err
	}
	r.mu.Lock()
	same := r.ahead.stored == Digest(b)
	r.mu.Unlock()
	if same {
		return nil
	}
	_, _, err = r.put(ctx, []File{{Path: path, Mode: 0o600, Content: Bytes(b)}}, []Change{{Path: path, Action: "update"}})
	return err
}

// Prefetch asks in one frame what a run before has asked. Until this run changes something, each
// answer is given to who asks just that, as often as it was asked then. The questions have
// commands in them: keep them where only their owner can write.
func (r *Remote) Prefetch(ctx context.Context, reads []Read) error {
	q := &request{}
	left := map[string]int{}
	for _, read := range reads {
		if len(read) == 0 || key(read) == "" {
			return fmt.Errorf("%q is no question that changes nothing", read)
		}
		k := key(read)
		if left[k]++; left[k] == 1 && read[0] != "dial" {
			q.ask = append(q.ask, read)
		}
	}
	r.mu.Lock()
	changes := r.ahead.changes
	r.mu.Unlock()
	for _, read := range reads {
		if read[0] == "dial" {
			r.dialAhead(ctx, read)
		}
	}
	if len(q.ask) == 0 {
		return nil
	}
	if err := r.send(ctx, query, q); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ahead.changes != changes {
		return nil
	}
	r.ahead.answers, r.ahead.left = map[string]result{}, left
	for i, a := range q.answers {
		r.ahead.answers[key(q.ask[i])] = a
	}
	return nil
}

// note adds a question to those of this run.
func (a *ahead) note(k string, ask []string) {
	if k == "" || a.times[k] == often || ask[0] == "dial" && a.times[k] == 2 { // a connection costs more than an answer
		return
	}
	if a.times == nil {
		a.times = map[string]int{}
	}
	a.times[k]++
	if ask = slices.Clone(ask); ask[0] == "query" {
		ask[1] = ""
	}
	a.asked = append(a.asked, ask)
}

// foreseen answers a request with what is known, if that is all that it asks.
func (r *Remote) foreseen(l lane, q *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l == change {
		r.ahead.answers = nil
		r.ahead.changes++
		r.forgetDials()
		return false
	}
	all := true
	for _, ask := range q.ask {
		k := key(ask)
		r.ahead.note(k, ask)
		_, ok := r.ahead.answers[k]
		all = all && ok && k != "" && r.ahead.left[k] > 0
	}
	if !all {
		return false
	}
	for _, ask := range q.ask {
		k := key(ask)
		answer := r.ahead.answers[k]
		answer.Earlier = time.Since(answer.at)
		q.answers = append(q.answers, answer)
		if r.ahead.left[k]--; r.ahead.left[k] <= 0 {
			delete(r.ahead.answers, k)
		}
	}
	return true
}

// dialAhead makes a connection for who will ask for it.
func (r *Remote) dialAhead(ctx context.Context, read Read) {
	made := make(chan net.Conn, 1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), idle)
	go func() {
		defer cancel()
		conn, err := r.transport.Dial(ctx, read[1], read[2])
		if err == nil {
			time.AfterFunc(idle, func() { // nobody came
				select {
				case late, there := <-made: // closed, where somebody came
					if there {
						late.Close()
					}
				default:
				}
			})
			made <- conn
		}
		close(made)
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ahead.dials == nil {
		r.ahead.dials = map[string][]chan net.Conn{}
	}
	r.ahead.dials[key(read)] = append(r.ahead.dials[key(read)], made)
}

// dialled gives a connection that was made ahead; nil if there is none.
func (r *Remote) dialled(ctx context.Context, network, addr string) net.Conn {
	read := Read{"dial", network, addr}
	r.mu.Lock()
	k := key(read)
	r.ahead.note(k, read)
	list := r.ahead.dials[k]
	if len(list) == 0 {
		r.mu.Unlock()
		return nil
	}
	r.ahead.dials[k] = list[1:]
	r.mu.Unlock()
	select {
	case conn := <-list[0]:
		return conn
	case <-ctx.Done():
		return nil
	}
}

// forgetDials closes what nobody came for. The caller holds the lock.
func (r *Remote) forgetDials() {
	for _, list := range r.ahead.dials {
		for _, made := range list {
			go func() {
				if conn := <-made; conn != nil {
					conn.Close()
				}
			}()
		}
	}
	r.ahead.dials = nil
}
