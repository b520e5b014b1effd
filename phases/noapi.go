package phases

import (
	"context"

	"github.com/kubewright/kubewright/addons"
)

// NoAPI is the API of a cluster that nothing at hand may talk to; everything fails with Err.
type NoAPI struct{ Err error }

func (a NoAPI) Ready(context.Context, string) error { return a.Err }
func (a NoAPI) Apply(context.Context, ...addons.Object) ([]string, error) {
	return nil, a.Err
}
func (a NoAPI) Get(context.Context, addons.Object) (addons.Object, error) { return nil, a.Err }
func (a NoAPI) List(context.Context, addons.Object, string) ([]addons.Object, error) {
	return nil, a.Err
}
func (a NoAPI) Create(context.Context, addons.Object) error { return a.Err }
func (a NoAPI) Update(context.Context, addons.Object) error { return a.Err }
func (a NoAPI) Delete(context.Context, addons.Object) error { return a.Err }
func (a NoAPI) Until(context.Context, addons.Object, func(addons.Object) bool) (addons.Object, error) {
	return nil, a.Err
}
