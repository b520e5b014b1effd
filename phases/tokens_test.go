package phases

import (
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
)

// signerAPI is an API without that token, whose controller manager signs cluster-info after
// some other changes of it, or never.
type signerAPI struct {
	API
	changes []string // keys of cluster-info that appear, one after another
	seen    int
	stored  bool
}

func (a *signerAPI) Get(context.Context, addons.Object) (addons.Object, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, "")
}

func (a *signerAPI) Apply(context.Context, ...addons.Object) ([]string, error) {
	a.stored = true
	return nil, nil
}

func (a *signerAPI) Until(ctx context.Context, o addons.Object, accept func(addons.Object) bool) (addons.Object, error) {
	for _, key := range a.changes {
		a.seen++
		live := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{key: "signature"}}}
		if a.stored && accept(live) {
			return live, nil
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCreateTokenWaitsForItsSignature(t *testing.T) {
	token, err := addons.ParseToken("abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		changes, usages []string
		seen            int
		err             string
	}{
		"signed":               {[]string{"kubeconfig", "jws-kubeconfig-others", "jws-kubeconfig-abcdef", "later"}, addons.TokenUsages(), 3, ""},
		"never signed":         {[]string{"kubeconfig"}, addons.TokenUsages(), 1, "the controller manager did not sign cluster-info"},
		"not made for signing": {nil, []string{"authentication"}, 0, ""},
	} {
		api := &signerAPI{changes: tt.changes}
		ttl := time.Hour
		if tt.err != "" {
			ttl = time.Millisecond // which bounds the wait
		}
		err := CreateToken(t.Context(), api, token, "", ttl, tt.usages, nil)
		if api.seen != tt.seen || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: looked at %d changes of cluster-info, and returned %v", name, api.seen, err)
		}
	}
}
