package verify

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
)

// lines joins errors to one with a line for each; nil where there is none.
func lines(errs ...error) error {
	all := &multierror.Error{ErrorFormat: func(errs []error) string {
		var s []string
		for _, err := range errs {
			s = append(s, err.Error())
		}
		return strings.Join(s, "\n")
	}}
	all = multierror.Append(all, slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
	return all.ErrorOrNil()
}

// words are texts as a person writes them in a row.
func words(all []string) string { return cmp.Or(strings.Join(all, " "), "none") }

// onEach calls f for each item, some at the same time, and returns their errors as lines.
func onEach[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	// Each call is an exec or a connection, which costs the API server and the node.
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = f(item)
		})
	}
	wg.Wait()
	return lines(errs...)
}

// until looks again and again until look returns nil, and at the latest until limit has
// passed; then it returns what look last said. It is for what can't be watched.
func until(ctx context.Context, limit time.Duration, look func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	deadline, _ := bounded.Deadline()
	tick := time.NewTicker(200 * time.Millisecond) // every look is an exec
	defer tick.Stop()
	var last error
	for {
		err := look(bounded)
		if err == nil {
			return nil
		}
		// A look that was cut off by the deadline, which a connection may notice first, saw nothing new.
		if last == nil || bounded.Err() == nil && time.Until(deadline) > 50*time.Millisecond {
			last = err
		}
		select {
		case <-bounded.Done():
			return last
		case <-tick.C:
		}
	}
}
