package e2e

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
)

func (n *networks) get(o addons.Object) (addons.Object, error) {
	gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	return n.client.Resource(gvr).Namespace(o.GetNamespace()).Get(n.ctx, o.GetName(), metav1.GetOptions{})
}

// there wants all objects in the API, each with all that was wished for.
func (n *networks) there(objects []addons.Object) {
	n.Helper()
	for _, o := range objects {
		live, err := n.get(o)
		if err != nil {
			n.Errorf("%s: %v", addons.Identity(o), err)
			continue
		}
		for _, missing := range lacks("", o.Object, live.Object) {
			n.Errorf("%s: %s", addons.Identity(o), missing)
		}
	}
}

// lacks says what of a wish is not so. Items of lists go by their name, as the API server merges them.
func lacks(path string, wish, is any) (out []string) {
	switch w := wish.(type) {
	case map[string]any:
		m, _ := is.(map[string]any)
		for key, v := range w {
			out = append(out, lacks(path+"."+key, v, m[key])...)
		}
	case []any:
		l, _ := is.([]any)
		for i, v := range w {
			var found any
			if i < len(l) {
				found = l[i]
			}
			if item, ok := v.(map[string]any); ok && item["name"] != nil {
				for _, other := range l {
					if o, ok := other.(map[string]any); ok && o["name"] == item["name"] && (item["mountPath"] == nil || o["mountPath"] == item["mountPath"]) {
						found = other
					}
				}
			}
			out = append(out, lacks(fmt.Sprintf("%s[%d]", path, i), v, found)...)
		}
		if len(l) != len(w) {
			out = append(out, fmt.Sprintf("%s has %d items, not %d", path, len(l), len(w)))
		}
	default:
		empty := w == nil || reflect.ValueOf(w).IsZero()
		if !reflect.DeepEqual(wish, is) && !(empty && is == nil) {
			out = append(out, fmt.Sprintf("%s is %v, not %v", path, is, wish))
		}
	}
	return out
}

// placed waits until each node has a pod of the DaemonSet.
func (n *networks) placed(name string) {
	n.Helper()
	ds := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
	w, err := n.client.Resource(ds).Namespace("kube-system").Watch(n.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		n.Fatal(err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				n.Fatal("the watch ended")
			}
			o, ok := e.Object.(addons.Object)
			if !ok {
				continue
			}
			of := func(field string) int64 { v, _, _ := unstructured.NestedInt64(o.Object, "status", field); return v }
			if of("observedGeneration") == o.GetGeneration() && of("desiredNumberScheduled") == 1 && of("currentNumberScheduled") == 1 {
				return
			}
		case <-n.ctx.Done():
			n.Fatalf("DaemonSet %s was not placed on the node: %v", name, n.ctx.Err())
		}
	}
}

func established(o addons.Object) bool {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" {
			return m["status"] == "True"
		}
	}
	return false
}
