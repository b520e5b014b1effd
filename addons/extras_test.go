package addons

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/config"
)

func TestExtrasAreWhatTheDocumentAsksFor(t *testing.T) {
	c := &config.Cluster{}
	c.Default(config.Versions{})
	if got, err := Extras(c); err != nil || len(got) > 0 {
		t.Fatalf("by default there are %v: %v", got, err)
	}
	c.Spec.Addons = config.Addons{MetricsServer: true, LocalPath: true, Ingress: "traefik", DefaultDeny: []string{"shop"},
		CloudController: config.CloudController{Name: "aws"}, EBSCSI: true}
	objects, err := Extras(c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.GetKind()+" "+o.GetName())
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		for _, container := range containers {
			if image := container.(map[string]any)["image"].(string); !slices.Contains(Images(c), image) {
				t.Errorf("%s runs %s, which no bundle would hold", o.GetName(), image)
			}
		}
		volumes, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "volumes")
		for _, v := range volumes {
			if len(v.(map[string]any)) != 2 {
				t.Errorf("%s: the volume %v is none", o.GetName(), v)
			}
		}
		if kind, _, _ := unstructured.NestedString(o.Object, "spec", "type"); kind == "LoadBalancer" && o.GetAnnotations()[balancerKind] != "nlb" {
			t.Errorf("%s asks for a classic load balancer", o.GetName())
		}
		if o.GetKind() == "NetworkPolicy" {
			if pods, ok, _ := unstructured.NestedMap(o.Object, "spec", "podSelector"); !ok || len(pods) > 0 {
				t.Errorf("the policy selects %v", pods)
			}
		}
		if helper, _, _ := unstructured.NestedString(o.Object, "data", "helperPod.yaml"); strings.Contains(helper, "image:") {
			if !slices.ContainsFunc(Images(c), func(i string) bool { return strings.Contains(helper, "image: "+i+"\n") }) {
				t.Errorf("no bundle would hold the image of %s", helper)
			}
		}
	}
	for _, want := range []string{"APIService v1beta1.metrics.k8s.io", "StorageClass local-path", "IngressClass traefik", "NetworkPolicy default-deny", "Namespace shop",
		"DaemonSet aws-cloud-controller-manager", "StorageClass gp3", "CSIDriver ebs.csi.aws.com", "MutatingAdmissionPolicy network-load-balancers.kubewright.dev"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no %s among %q", want, names)
		}
	}
	c.Spec.KubernetesVersion = "v1.35.4" // where the API server has no such policies by default
	if objects, err = Extras(c); err != nil || slices.ContainsFunc(objects, func(o Object) bool { return strings.HasPrefix(o.GetKind(), "Mutating") }) {
		t.Errorf("%v; Kubernetes 1.35 is given policies that it does not take", err)
	}
}
