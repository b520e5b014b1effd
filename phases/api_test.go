package phases

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestNotYetIsWhatAStartingServerSays(t *testing.T) {
	service := func(message string) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "kube-dns", field.ErrorList{
			field.Invalid(field.NewPath("spec", "clusterIPs"), []string{"10.96.0.10"}, "failed to allocate IP 10.96.0.10: "+message)})
	}
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"no namespace":            {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "kube-system"), true},
		"no ServiceCIDR":          {service("the provided network does not match the current range"), true},
		"a ServiceCIDR unseen":    {service("allocator not ready"), true},
		"an address that is used": {service("provided IP is already allocated"), false},
		"not allowed":             {apierrors.NewForbidden(schema.GroupResource{}, "", nil), false},
		"anything else":           {errors.New("odd"), false},
	} {
		if got := notYet(tt.err); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
