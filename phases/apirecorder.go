package phases

import (
	"context"
	"encoding/base64"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
)

// APIRecorder is an API whose reads pass and whose writes are only listed. What would be
// applied is asked of the API server, which answers without storing it.
type APIRecorder struct {
	Live *Client // nil: the cluster is not there yet, and nothing is found in it

	mu    sync.Mutex
	steps []APIStep
}

// APIStep is one thing that would have been done to an object.
type APIStep struct {
	Verb          string // apply, create, update, delete, wait for
	Object        addons.Object
	Before, After addons.Object // as the API has it, and would have it; nil: not there
}

func (s APIStep) String() string { return s.Verb + " " + describe(s.Object) }

// Steps are those so far, in order.
func (r *APIRecorder) Steps() []APIStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]APIStep(nil), r.steps...)
}

func (r *APIRecorder) add(s APIStep) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
	return describe(s.Object)
}

func (r *APIRecorder) Ready(context.Context, string) error { return nil }

func (r *APIRecorder) Apply(ctx context.Context, objects ...addons.Object) ([]string, error) {
	var changed []string
	for _, stage := range stages(objects) {
		for _, o := range stage {
			s := APIStep{Verb: "apply", Object: o, After: o}
			if r.Live != nil {
				var err error
				s.Before, s.After, err = r.Live.applyOnce(ctx, o, metav1.DryRunAll)
				switch {
				case isNotFound(err): // its namespace would be made before
					s.After = o
				case err != nil:
					return changed, err
				case same(s.Before, s.After):
					continue
				}
			}
			changed = append(changed, r.add(s))
		}
	}
	return changed, nil
}

func (r *APIRecorder) Get(ctx context.Context, o addons.Object) (addons.Object, error) {
	if r.Live != nil {
		return r.Live.Get(ctx, o)
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: o.GetKind()}, o.GetName())
}

func (r *APIRecorder) List(ctx context.Context, o addons.Object, selector string) ([]addons.Object, error) {
	if r.Live != nil {
		return r.Live.List(ctx, o, selector)
	}
	return nil, nil
}

func (r *APIRecorder) Create(_ context.Context, o addons.Object) error {
	r.add(APIStep{Verb: "create", Object: o, After: o})
	return nil
}

func (r *APIRecorder) Update(ctx context.Context, o addons.Object) error {
	s := APIStep{Verb: "update", Object: o, After: o}
	if before, err := r.Get(ctx, o); err == nil {
		s.Before = before
	}
	r.add(s)
	return nil
}

func (r *APIRecorder) Delete(ctx context.Context, o addons.Object) error {
	before, err := r.Get(ctx, o)
	if r.Live != nil && isNotFound(err) {
		return nil
	}
	r.add(APIStep{Verb: "delete", Object: o, Before: before})
	return nil
}

// Until takes what is there, or what would be there, for what is waited for.
func (r *APIRecorder) Until(ctx context.Context, o addons.Object, accept func(addons.Object) bool) (addons.Object, error) {
	if live, err := r.Get(ctx, o); err == nil && accept(live) {
		return live, nil
	}
	for _, s := range slices.Backward(r.Steps()) {
		if s.Verb == "apply" && describe(s.Object) == describe(o) { // as it would be, with all that the API gives it
			o = s.After.DeepCopy()
			if o.GetKind() == "Secret" && o.GetUID() == "" {
				o.SetUID("00000000-0000-0000-0000-000000000000")
			}
			break
		}
	}
	r.add(APIStep{Verb: "wait for", Object: o})
	if o.GetKind() == "CertificateSigningRequest" { // what would be signed
		o = o.DeepCopy()
		return o, unstructured.SetNestedField(o.Object, base64.StdEncoding.EncodeToString([]byte("a certificate")), "status", "certificate")
	}
	return o, nil
}
