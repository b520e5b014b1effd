// Package addons makes what a cluster holds in its API: the ConfigMaps, tokens and RBAC of
// the kubeadm contract, kube-proxy, CoreDNS, the pod network, and the addons that are off by default.
//
// In goes the Cluster document; out come objects ready for server-side apply. The package
// touches no cluster. Where an object differs from kubeadm's or flannel's own, [Differences]
// says so, and why; Calico's differ by [calicoPatches].
package addons

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubewright/kubewright/config"
)

// Object is an API object without status: only what is wished for.
type Object = *unstructured.Unstructured

const kubeSystem = metav1.NamespaceSystem

// Material is what a pod network is made of beside the document.
type Material struct {
	Manifest []Object // decoded: of Calico, or of the network that the document brings along
	Password Password // of Weave
}

// CNI returns the pod network that the document chooses; nothing where that is "none".
// Server is the address of the API, as in [ClusterInfo].
func CNI(c *config.Cluster, server string, from Material) ([]Object, error) {
	switch name := c.Spec.Network.CNI.Name; name {
	case "flannel":
		return Flannel(c, server)
	case "calico":
		return Calico(c, server, from.Manifest)
	case "weave":
		return Weave(c, server, from.Password)
	case "manifest":
		if len(from.Manifest) == 0 {
			return nil, fmt.Errorf("the manifest %s is not at hand", c.Spec.Network.CNI.Manifest.Source)
		}
		return slices.Clone(from.Manifest), nil
	case "none":
		return nil, nil
	default:
		return nil, fmt.Errorf("network.cni.name %q is unknown: use one of %s", name, strings.Join(config.CNIs, ", "))
	}
}

// objects turns typed objects into what server-side apply takes: with apiVersion and kind,
// and without the empty fields of Go structs, which would become ours by being applied.
// It panics on a type that client-go's scheme does not know: no input leads there.
func objects(typed ...runtime.Object) []Object {
	out := make([]Object, len(typed))
	for i, o := range typed {
		kinds, _, err := scheme.Scheme.ObjectKinds(o)
		if err != nil {
			panic(err)
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			panic(err)
		}
		delete(content, "status")
		dropEmpty(content)
		out[i] = &unstructured.Unstructured{Object: content}
		out[i].SetGroupVersionKind(kinds[0])
	}
	return out
}

// dropEmpty takes out null and {}. No object here means anything by them, but for a volume that is an empty folder.
func dropEmpty(m map[string]any) {
	for key, value := range m {
		switch v := value.(type) {
		case nil:
			delete(m, key)
		case map[string]any:
			dropEmpty(v)
			if len(v) == 0 && key != "emptyDir" {
				delete(m, key)
			}
		case []any:
			for _, item := range v {
				if child, ok := item.(map[string]any); ok {
					dropEmpty(child)
				}
			}
		}
	}
}

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func labelled(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}
}

// parseAPI reads the address of the API that pods of the network are told.
func parseAPI(server string) (*url.URL, error) {
	api, err := url.Parse(server)
	if err != nil || api.Hostname() == "" {
		return nil, fmt.Errorf("API address %q is no URL with a host", server)
	}
	return api, nil
}

// portOf is the port of an address of the API, which may leave out its scheme's own.
func portOf(api *url.URL) string { return cmp.Or(api.Port(), "443") }
