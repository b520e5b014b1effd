package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-multierror"
)

// resource is one thing in the account: how it is found, made and mended, and what must be there before.
type resource struct {
	kind, name string      // subnet, private-eu-west-1a; no kind: it is only waited for, and not told of
	detail     string      // for people who read a plan
	after      []*resource // that must be there before it is made; their steps may still be under way
	needs      []*resource // that must be done
	// find gives its id, and the names of the steps that it lacks; no id: it is not there. It may look at nothing of
	// what this one needs: that is looked at only where this one lacks something.
	find func() (id string, lacks []string, err error)
	// create makes it, in one call, and gives its id. Whatever needs a second call is a step.
	create func(ctx context.Context) (string, error)
	steps  []step // each may be done again
	mends  []step // likewise, of what a new one never lacks
	// mend does all that find has said is lacking, where this has no names that are known before.
	mend func(ctx context.Context) error

	looked sync.Once
	found  finding
	id     string
	value  string // what others need beside the id: an address, a zone
}

// finding is what find has said.
type finding struct {
	id    string
	lacks []string
	err   error
}

// look is find, but once: what was planned is done.
func (r *resource) look() (id string, lacks []string, err error) {
	r.looked.Do(func() { r.found.id, r.found.lacks, r.found.err = r.find() })
	return r.found.id, r.found.lacks, r.found.err
}

// step is what is done to a thing that is there, when what the step needs is done, and what it comes after is made.
type step struct {
	name         string
	do           func(ctx context.Context) error
	after, needs []*resource
}

// Change is something that would be done, or was.
type Change struct {
	Action string `json:"action"` // create, change, delete
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"`
}

func (c Change) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s %s %s: %s", c.Action, c.Kind, c.Name, c.Detail), ": ")
}

// walk brings resources to be, each after what it needs and beside all others; or only tells what it would do.
type walk struct {
	plan    bool
	say     func(format string, args ...any)
	first   func() error // is called before changes
	settle  func(ctx context.Context, do func() error) error
	mu      sync.Mutex
	visits  map[*resource]*visit
	going   sync.WaitGroup // visits
	changes []Change
	wrong   *multierror.Error // of a plan: all that is wrong with the document
	failed  error             // the first other error: nothing new is begun after it
}

// visit is what comes of a resource in a walk.
type visit struct {
	made, done chan struct{} // closed when it has an id, or never will; when all is done
	err        error
}

var errStopped = errors.New("stopped, as something else has failed")

// begin has resources be brought to be, each once.
func (w *walk) begin(ctx context.Context, list []*resource) (visits []*visit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.visits == nil {
		w.visits = map[*resource]*visit{}
	}
	for _, r := range list {
		v := w.visits[r]
		if v == nil {
			v = &visit{made: make(chan struct{}), done: make(chan struct{})}
			w.visits[r] = v
			w.going.Go(func() {
				defer close(v.done)
				v.err = w.bring(ctx, r, sync.OnceFunc(func() { close(v.made) }))
			})
		}
		visits = append(visits, v)
	}
	return visits
}

// all waits until resources are done; there, until they are made.
func (w *walk) all(ctx context.Context, list []*resource) error {
	var err error
	for _, v := range w.begin(ctx, list) { // what has begun, ends: half of what a call has made would be found, but why look for it
		<-v.done
		err = cmp.Or(err, v.err)
	}
	return err
}

func (w *walk) there(ctx context.Context, list []*resource) error {
	for i, v := range w.begin(ctx, list) {
		<-v.made
		if list[i].id == "" && !w.plan {
			<-v.done
			return cmp.Or(v.err, errStopped)
		}
	}
	return nil
}

// run is all, with the error that came first, or with all that is wrong with the document.
func (w *walk) run(ctx context.Context, list []*resource) ([]Change, error) {
	err := w.all(ctx, list)
	w.going.Wait()
	if w.failed != nil || w.wrong != nil {
		err = wrongs(w.wrong, w.failed)
	}
	slices.SortStableFunc(w.changes, func(x, y Change) int {
		return strings.Compare(x.Kind+"/"+x.Name, y.Kind+"/"+y.Name)
	})
	return w.changes, err
}

func (w *walk) bring(ctx context.Context, r *resource, made func()) error {
	defer made()
	if w.stopped() {
		return errStopped
	}
	id, lacks, err := r.look()
	if err != nil {
		return w.fail(r, err)
	}
	if r.id = id; id != "" && len(lacks) == 0 {
		return nil
	}
	steps := slices.Clone(r.steps)
	if id != "" {
		steps = slices.DeleteFunc(append(steps, r.mends...), func(s step) bool { return !slices.Contains(lacks, s.name) })
	}
	w.begin(ctx, r.needs)
	for _, s := range steps {
		w.begin(ctx, slices.Concat(s.after, s.needs)) // they take their time, too
	}
	if err := cmp.Or(w.there(ctx, r.after), w.all(ctx, r.needs)); err != nil {
		return err
	}
	if w.stopped() {
		return errStopped
	}
	if !w.plan {
		if err := w.first(); err != nil {
			return w.fail(r, err)
		}
	}
	do := r.mend
	if id != "" {
		w.note(Change{"change", r.kind, r.name, strings.Join(lacks, ", ")})
	} else {
		w.note(Change{"create", r.kind, r.name, r.detail})
		do = nil
		if r.create != nil {
			do = func(ctx context.Context) (err error) { r.id, err = r.create(ctx); return err }
		}
	}
	if do != nil && !w.plan {
		if err := w.settle(ctx, func() error { return do(ctx) }); err != nil {
			r.id = id
			return w.fail(r, err)
		}
	}
	made()
	for _, s := range steps {
		if err := cmp.Or(w.there(ctx, s.after), w.all(ctx, s.needs)); err != nil {
			return err
		}
		if w.plan {
			continue
		}
		if err := w.settle(ctx, func() error { return s.do(ctx) }); err != nil {
			return w.fail(r, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return nil
}

func (w *walk) stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed != nil
}

func (w *walk) fail(r *resource, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plan && errors.As(err, new(*DocumentError)) {
		w.wrong = multierror.Append(w.wrong, err)
		return err
	}
	if err = fmt.Errorf("AWS: %s: %w", strings.TrimSpace(r.kind+" "+r.name), explain(err)); w.failed == nil {
		w.failed = err
	}
	return err
}

func (w *walk) note(c Change) {
	if c.Kind == "" {
		return
	}
	w.mu.Lock()
	w.changes = append(w.changes, c)
	w.mu.Unlock()
	if !w.plan && w.say != nil {
		w.say("%s", c)
	}
}
