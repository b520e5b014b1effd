package phases

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubewright/kubewright/addons"
)

const definition = "CustomResourceDefinition"

// order is that of kinds: what others need comes first. A webhook comes last: before its pods run, the API
// server would ask it in vain.
var order = map[string]int{
	"Namespace": 0, definition: 1,
	// 2: accounts, rights, configuration and whatever else
	"Deployment": 3, "DaemonSet": 3, "StatefulSet": 3, "ReplicaSet": 3, "Job": 3, "CronJob": 3, "Pod": 3,
	"ValidatingWebhookConfiguration": 4, "MutatingWebhookConfiguration": 4, "APIService": 4,
}

// stages puts objects in the order in which they need each other. Those of one stage are made side by side.
func stages(objects []addons.Object) [][]addons.Object {
	var out [5][]addons.Object
	for _, o := range objects {
		i, ok := order[o.GetKind()]
		if !ok {
			i = 2
		}
		out[i] = append(out[i], o)
	}
	return out[:]
}

// established waits until the server serves what new definitions define.
func (c *Client) established(ctx context.Context, objects []addons.Object) error {
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		if o.GetKind() != definition {
			continue
		}
		g.Go(func() error {
			last := "nothing was said of it"
			_, err := c.Until(ctx, o, func(live addons.Object) bool {
				last = cmp.Or(conditionMessage(live, "NamesAccepted"), last)
				return condition(live, "Established") == "True"
			})
			if err != nil {
				return fmt.Errorf("%s is not established: %s: %w", describe(o), last, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// resource is where objects of a kind are kept. Kinds of Kubernetes, and definitions of others, have the
// regular plural; of the others the server is asked.
func (c *Client) resource(ctx context.Context, o addons.Object) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	gvr, _ := meta.UnsafeGuessKindToResource(gvk)
	if !scheme.Scheme.Recognizes(gvk) && o.GetKind() != definition && o.GetKind() != "APIService" {
		var err error
		if gvr, err = c.ask(ctx, gvk); err != nil {
			return nil, err
		}
	}
	if ns := o.GetNamespace(); ns != "" {
		return c.dynamic.Resource(gvr).Namespace(ns), nil
	}
	return c.dynamic.Resource(gvr), nil
}

// ask finds the resource of a kind. One that is not served is an [apierrors.IsNotFound]: it may be so yet.
func (c *Client) ask(ctx context.Context, gvk schema.GroupVersionKind) (schema.GroupVersionResource, error) {
	if known, ok := c.kinds.Load(gvk); ok {
		return known.(schema.GroupVersionResource), nil
	}
	none := schema.GroupVersionResource{}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/apis/"+gvk.Group+"/"+gvk.Version, nil)
	if err != nil {
		return none, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return none, err
	}
	var list metav1.APIResourceList
	switch resp.StatusCode {
	case http.StatusOK:
		err = json.Unmarshal(body, &list)
	case http.StatusNotFound: // nobody has defined the group
	case http.StatusServiceUnavailable:
		err = apierrors.NewServiceUnavailable(string(body))
	default:
		err = fmt.Errorf("%s says %s: %s", req.URL, resp.Status, body)
	}
	if err != nil {
		return none, err
	}
	i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == gvk.Kind && !strings.Contains(r.Name, "/") })
	if i < 0 {
		return none, apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, "the definition of this kind")
	}
	gvr := gvk.GroupVersion().WithResource(list.APIResources[i].Name)
	c.kinds.Store(gvk, gvr)
	return gvr, nil
}
