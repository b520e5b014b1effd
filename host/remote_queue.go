package host

import (
	"context"
	"io"
	"time"
)

// lane is a kind of operation. Each waits for its own, so that slow ones do not hold up quick ones.
type lane int

const (
	quick  lane = iota // small reads and lines of a journal: all that wait go in one frame
	digest             // of files that may be large; so do these
	query              // commands that only read; and these
	change             // each has a shell of its own as long as it takes
)

// shells that a lane may use at a time. They are started when all that there are have something
// to do. An SSH server allows ten; a lock needs one more.
var shells = [...]int{quick: 1, digest: 1, query: 1, change: 3}

// request is what one caller asks: operations that belong together.
type request struct {
	ctx     context.Context
	ask     [][]string
	payload []byte
	stream  func(to io.WriteCloser) // writes more payload, and closes what it writes to if it cannot

	// Under Remote.mu:
	sent, dropped bool

	// Valid when done is closed:
	done    chan struct{}
	answers []result
	err     error // the machine did not answer them all
}

type result struct {
	Output
	code int
	at   time.Time
}

// do answers a request with what is known, else sends it.
func (r *Remote) do(ctx context.Context, l lane, q *request) error {
	if ctx.Err() == nil && r.foreseen(l, q) {
		return nil
	}
	return r.send(ctx, l, q)
}

// send sends a request and waits for its answers.
func (r *Remote) send(ctx context.Context, l lane, q *request) error {
	q.ctx, q.done = ctx, make(chan struct{})
	if err := ctx.Err(); err != nil {
		q.dropped = true
		return err
	}
	r.mu.Lock()
	r.queue[l] = append(r.queue[l], q)
	if r.serving[l] < shells[l] {
		r.serving[l]++
		go r.serve(context.WithoutCancel(ctx), l)
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		q.dropped = !q.sent
		return ctx.Err()
	}
}

// serve sends what waits in a lane until nothing does. It takes it when it has a shell: while one
// is started, more comes together.
func (r *Remote) serve(ctx context.Context, l lane) {
	a, err := r.take(ctx)
	var last *request
	for {
		batch := r.batch(l, a)
		if last != nil { // who asks again at once finds the shell idle
			close(last.done)
		}
		if len(batch) == 0 {
			return
		}
		if a != nil && a.broken {
			a, err = r.take(ctx)
		}
		if err == nil {
			last = r.exchange(a, batch)
			continue
		}
		last = nil
		for _, q := range batch {
			q.err = err
			close(q.done)
		}
	}
}

// batch takes what goes in the next frame; where that is nothing, the lane is no longer served.
func (r *Remote) batch(l lane, a *agent) []*request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch, later []*request
	for _, q := range r.queue[l] {
		switch {
		case q.dropped:
		case l == change && len(batch) == 1:
			later = append(later, q)
		default:
			q.sent = true
			batch = append(batch, q)
		}
	}
	r.queue[l] = later
	if len(batch) > 0 {
		return batch
	}
	r.serving[l]--
	if a != nil && !a.broken {
		r.idle = append(r.idle, a)
	}
	return nil
}

// take gives a shell that does nothing, or starts one.
func (r *Remote) take(ctx context.Context) (*agent, error) {
	r.mu.Lock()
	if n := len(r.idle); n > 0 {
		a := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		return a, nil
	}
	r.mu.Unlock()
	return startAgent(ctx, r.transport, r.shell, r.run)
}

// exchange sends requests in one frame, and hands out the answers as they come, but for those of
// the last request, which it returns.
func (r *Remote) exchange(a *agent, batch []*request) *request {
	r.trips.Add(1)
	var operations [][]string
	var payload []byte
	for _, q := range batch {
		operations = append(operations, q.ask...)
		payload = append(payload, q.payload...)
	}
	wrote := make(chan struct{})
	go func() { // what is written may be answered before it ends
		defer close(wrote)
		if _, err := a.pipe.In.Write(append(frame(operations), payload...)); err != nil {
			return // the answers end too, and say more
		}
		if stream := batch[0].stream; stream != nil {
			stream(a.pipe.In)
		}
	}()
	for i, q := range batch {
		for range q.ask {
			var answer result
			if answer.Output, answer.code, q.err = a.next(); q.err != nil {
				break
			}
			answer.at = time.Now()
			q.answers = append(q.answers, answer)
		}
		if a.broken {
			a.pipe.Close()
		}
		if i < len(batch)-1 {
			close(q.done)
		}
	}
	<-wrote
	return batch[len(batch)-1]
}
