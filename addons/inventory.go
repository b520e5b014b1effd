package addons

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const inventoryKey = "objects" // lines as of Identity, sorted

// Inventory is the ConfigMap that remembers which objects an addon has in the cluster, so that the next version
// can remove what it has no longer.
func Inventory(addon string, of []Object) Object {
	var lines []string
	for _, o := range of {
		lines = append(lines, Identity(o)+"\n")
	}
	slices.Sort(lines)
	return objects(&corev1.ConfigMap{
		ObjectMeta: labelled(kubeSystem, "kubewright-inventory-"+addon, map[string]string{"kubewright.dev/inventory": addon}),
		Data:       map[string]string{inventoryKey: strings.Join(lines, "")},
	})[0]
}

// Inventoried are the objects of an inventory, with nothing but their names in them.
func Inventoried(inventory Object) (all []Object) {
	text, _, _ := unstructured.NestedString(inventory.Object, "data", inventoryKey)
	for line := range strings.Lines(text) {
		if o := Identified(line); o != nil {
			all = append(all, o)
		}
	}
	return all
}
