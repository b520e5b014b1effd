package phases

import (
	"context"
	"encoding/base64"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
)

// APIRecorder is the API of a cluster that is not there yet: nothing is found in it, and
// what would be applied is listed.
type APIRecorder struct {
	mu    sync.Mutex
	steps []string
}

// Steps are those so far, in order: "apply Kind namespace/name".
func (r *APIRecorder) Steps() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.steps...)
}

func (r *APIRecorder) add(verb string, o addons.Object) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, verb+" "+describe(o))
	return describe(o)
}

func (r *APIRecorder) Ready(context.Context, string) error { return nil }

func (r *APIRecorder) Apply(_ context.Context, objects ...addons.Object) ([]string, error) {
	var changed []string
	for _, stage := range stages(objects) {
		for _, o := range stage {
			changed = append(changed, r.add("apply", o))
		}
	}
	return changed, nil
}

func (r *APIRecorder) Get(_ context.Context, o addons.Object) (addons.Object, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: o.GetKind()}, o.GetName())
}

func (r *APIRecorder) List(context.Context, addons.Object, string) ([]addons.Object, error) {
	return nil, nil
}

func (r *APIRecorder) Create(_ context.Context, o addons.Object) error {
	r.add("create", o)
	return nil
}

func (r *APIRecorder) Update(_ context.Context, o addons.Object) error {
	r.add("update", o)
	return nil
}

func (r *APIRecorder) Delete(_ context.Context, o addons.Object) error {
	r.add("delete", o)
	return nil
}

func (r *APIRecorder) Until(_ context.Context, o addons.Object, _ func(addons.Object) bool) (addons.Object, error) {
	r.add("wait for", o)
	if o.GetKind() == "CertificateSigningRequest" { // what would be signed
		o = o.DeepCopy()
		return o, unstructured.SetNestedField(o.Object, base64.StdEncoding.EncodeToString([]byte("a certificate")), "status", "certificate")
	}
	return o, nil
}
