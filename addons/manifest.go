package addons

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Decode reads a manifest: YAML or JSON documents of API objects, and lists of them. Each comes once,
// as it is but for its status. An error names the document, counted from one.
func Decode(manifest []byte) ([]Object, error) {
	var all []Object
	seen := map[string]bool{}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		objects, err := decodeOne(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		for _, o := range objects {
			id := Identity(o)
			if seen[id] {
				return nil, fmt.Errorf("document %d: %s is there twice", n, id)
			}
			seen[id] = true
		}
		all = append(all, objects...)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no object")
	}
	return all, nil
}

func decodeOne(document []byte) ([]Object, error) {
	j, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	if string(j) == "null" { // comments alone
		return nil, nil
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(j); err != nil {
		return nil, err
	}
	if !o.IsList() {
		return []Object{o}, wish(o)
	}
	list, err := o.ToList()
	if err != nil {
		return nil, err
	}
	var all []Object
	for i := range list.Items {
		all = append(all, &list.Items[i])
		if err := wish(&list.Items[i]); err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	return all, nil
}

// global are the kinds of Kubernetes that are in no namespace. Of others' kinds only the API server knows.
var global = []string{"Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "RuntimeClass",
	"StorageClass", "VolumeAttachment", "VolumeAttributesClass", "CSIDriver", "CSINode", "IngressClass", "FlowSchema", "PriorityLevelConfiguration",
	"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "CertificateSigningRequest", "ClusterTrustBundle", "ServiceCIDR", "IPAddress",
	"DeviceClass", "ResourceSlice"}

// wish takes from an object what nobody can wish for.
func wish(o Object) error {
	if o.GetAPIVersion() == "" || o.GetKind() == "" || o.GetName() == "" {
		return fmt.Errorf("%q %q %q lacks one of apiVersion, kind and metadata.name: kubewright applies objects by their names", o.GetAPIVersion(), o.GetKind(), o.GetName())
	}
	if o.GetNamespace() == "" && scheme.Scheme.Recognizes(o.GroupVersionKind()) && !slices.Contains(global, o.GetKind()) {
		return fmt.Errorf("%s %s has no namespace: write metadata.namespace", o.GetKind(), o.GetName())
	}
	unstructured.RemoveNestedField(o.Object, "status")
	for _, field := range []string{"managedFields", "creationTimestamp", "resourceVersion", "uid"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	return nil
}

// Identity is what an object is known by in an inventory: "apiVersion Kind namespace/name".
func Identity(o Object) string {
	return o.GetAPIVersion() + " " + o.GetKind() + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

// Identified is an object of that identity, with nothing in it; nil where the text is none.
func Identified(id string) Object {
	words := strings.Fields(id)
	if len(words) != 3 {
		return nil
	}
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(words[0])
	o.SetKind(words[1])
	namespace, name, ok := strings.Cut(words[2], "/")
	if !ok {
		namespace, name = "", namespace
	}
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// ImagesOf lists the images of all containers of some objects, each once, sorted.
func ImagesOf(objects []Object) []string {
	var images []string
	for _, o := range objects {
		imagesIn(o.Object, &images)
	}
	slices.Sort(images)
	return slices.Compact(images)
}

// imagesIn finds pods wherever they are: each kind of workload has them elsewhere.
func imagesIn(v any, images *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			if list, ok := child.([]any); ok && (key == "containers" || key == "initContainers") {
				for _, item := range list {
					container, _ := item.(map[string]any)
					if image, ok := container["image"].(string); ok {
						*images = append(*images, image)
					}
				}
			}
			imagesIn(child, images)
		}
	case []any:
		for _, child := range v {
			imagesIn(child, images)
		}
	}
}
