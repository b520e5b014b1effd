package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// watched says which objects to watch.
type watched struct {
	client    rest.Interface
	resource  string // plural
	namespace string
	name      string // of one object; empty: all
	labels    string // selector; empty: all
}

// await watches objects until look, which gets all of them after every change, says that it is
// so, and at the latest until limit has passed; the error is then what look saw last.
func await[T runtime.Object](ctx context.Context, w watched, limit time.Duration, look func([]T) (ok bool, seen string)) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	lw := cache.NewFilteredListWatchFromClient(w.client, w.resource, w.namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = w.labels
		if w.name != "" {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", w.name).String()
		}
	})
	seen := ""
	var store cache.Store
	lookAt := func() bool {
		var all []T
		for _, o := range store.List() {
			all = append(all, o.(T))
		}
		ok, now := look(all)
		seen = now
		return ok
	}
	var none T
	_, err := watchtools.UntilWithSync(bounded, lw, none,
		func(s cache.Store) (bool, error) { store = s; return lookAt(), nil },
		func(watch.Event) (bool, error) { return lookAt(), nil })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case bounded.Err() == nil:
		return fmt.Errorf("watch %s: %w", w.resource, err)
	}
	return fmt.Errorf("not within %s: %s", limit, cmp.Or(seen, "the API server did not list "+w.resource))
}
