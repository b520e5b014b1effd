package host

import (
	"context"
	"fmt"
	"sync"
)

// Recorder is a Host whose reads pass and whose writes are only listed: the door behind
// which phases become a plan.
type Recorder struct {
	Host
	mu    sync.Mutex
	steps []Step
}

// Step is one thing that would have been done.
type Step struct {
	Argv   []string // a command, or
	File   *File    // a file, and
	Action string   // what would be done to it
}

// Run passes commands that read and lists the others, which appear to succeed with no output.
func (r *Recorder) Run(ctx context.Context, c Command) (Output, error) {
	if c.Reads {
		return r.Host.Run(ctx, c)
	}
	r.add(Step{Argv: c.Argv})
	return Output{}, nil
}

// WriteFiles lists the files that differ.
func (r *Recorder) WriteFiles(ctx context.Context, files ...File) ([]Change, error) {
	var changes []Change
	for _, f := range files {
		action, err := Compare(ctx, r.Host, f)
		if err != nil {
			return changes, fmt.Errorf("write %s: %w", f.Path, err)
		}
		if action == "" {
			continue
		}
		changes = append(changes, Change{Path: f.Path, Action: action})
		r.add(Step{File: &f, Action: action})
	}
	return changes, nil
}

// Append does nothing: what is only listed has no journal.
func (r *Recorder) Append(context.Context, string, []byte) error { return nil }

// Lock locks nothing: who only looks is in nobody's way.
func (r *Recorder) Lock(ctx context.Context, _ string) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

// Steps are those so far, in order.
func (r *Recorder) Steps() []Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Step(nil), r.steps...)
}

func (r *Recorder) add(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
}
