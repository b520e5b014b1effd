package phases

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/pki"
)

// memory is an API server that keeps what is applied, and by whom.
type memory struct {
	API     // nothing else is asked
	objects map[string]addons.Object
	done    []string
	fail    string // what is refused, once: "delete Role a/b"
}

func (m *memory) step(verb string, o addons.Object) error {
	s := verb + " " + describe(o)
	if s == m.fail {
		m.fail = ""
		return apierrors.NewForbidden(schema.GroupResource{}, o.GetName(), nil)
	}
	m.done = append(m.done, s)
	return nil
}

func (m *memory) Apply(_ context.Context, objects ...addons.Object) (changed []string, err error) {
	for _, stage := range stages(objects) {
		for _, o := range stage {
			live := o.DeepCopy()
			if o.GetKind() != "ServiceAccount" { // the API server lists no manager of an object without fields
				live.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: FieldManager}})
			}
			if same(m.objects[describe(o)], live) {
				continue
			}
			if err := m.step("apply", o); err != nil {
				return changed, err
			}
			m.objects[describe(o)] = live
			changed = append(changed, describe(o))
		}
	}
	return changed, nil
}

func (m *memory) Get(_ context.Context, o addons.Object) (addons.Object, error) {
	if live := m.objects[describe(o)]; live != nil {
		return live, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{}, o.GetName())
}

func (m *memory) Delete(_ context.Context, o addons.Object) error {
	if err := m.step("delete", o); err != nil {
		return err
	}
	delete(m.objects, describe(o))
	return nil
}

func secretsOf(t *testing.T) *pki.Secrets {
	t.Helper()
	secrets, err := pki.New(cluster(), config.Node{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}, Address: "192.0.2.11"}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

func (m *memory) List(_ context.Context, of addons.Object, _ string) (all []addons.Object, err error) {
	for _, o := range m.objects {
		if o.GetKind() == of.GetKind() {
			all = append(all, o)
		}
	}
	return all, nil
}

func (m *memory) Until(ctx context.Context, o addons.Object, accept func(addons.Object) bool) (addons.Object, error) {
	if live := m.objects[describe(o)]; live != nil && accept(live) {
		return live, nil
	}
	return nil, context.DeadlineExceeded
}

func TestANodeThatDoesNotBecomeReadySaysWhichPodsHang(t *testing.T) {
	objects, err := addons.Decode([]byte(`
{apiVersion: v1, kind: Node, metadata: {name: cp-1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: calico-node-x, namespace: kube-system}, spec: {nodeName: cp-1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: calico-node-y, namespace: kube-system}, spec: {nodeName: w-1}}
`))
	if err != nil {
		t.Fatal(err)
	}
	waiting := map[string]any{"initContainerStatuses": []any{map[string]any{"name": "install-cni", "state": map[string]any{
		"waiting": map[string]any{"reason": "ErrImagePull", "message": "quay.io/calico/cni:v3.32.1: not found"}}}}}
	objects[0].Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "False", "message": "container runtime network not ready: NetworkReady=false"}}}
	objects[1].Object["status"], objects[2].Object["status"] = waiting, waiting
	api := &memory{objects: map[string]addons.Object{}}
	for _, o := range objects {
		api.objects[describe(o)] = o
	}
	h := newFakeHost(t)
	target := h.target(cluster(), config.ControlPlaneRole)
	target.API = api
	err = waitNode(t.Context(), target)
	if want := "\nPod kube-system/calico-node-x on cp-1, container install-cni: ErrImagePull: quay.io/calico/cni:v3.32.1: not found"; err == nil ||
		!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "NetworkReady=false") || strings.Contains(err.Error(), "calico-node-y") {
		t.Errorf("got %v", err)
	}
	target.Cluster.Spec.Network.CNI.Name = "none"
	if err := waitNode(t.Context(), target); err != nil {
		t.Errorf("without a network of ours: %v", err)
	}
}

// network runs the phase with the objects of a manifest.
func network(t *testing.T, api API, secrets *pki.Secrets, manifest string) (said []string, err error) {
	t.Helper()
	c := cluster()
	c.Spec.Network.CNI = config.CNI{Name: "manifest", Manifest: config.Manifest{Source: "net.yaml"}}
	objects, err := addons.Decode([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	var heard events
	target := &Target{Cluster: c, Node: config.Node{Name: "cp-1", Address: "192.0.2.11"}, API: api, Secrets: secrets, Report: heard.report, Material: addons.Material{Manifest: objects}}
	err = Run(t.Context(), Select(Init(), "addon/cni"), target, nil)
	return heard.messages(), err
}

const firstVersion = `
{apiVersion: v1, kind: Namespace, metadata: {name: net}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: net}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: relay, namespace: net}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: relay, namespace: net}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: shared, namespace: net}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: routes.net.example}}
---
{apiVersion: policy/v1beta1, kind: PodDisruptionBudget, metadata: {name: agent, namespace: net}}
`

const secondVersion = `
{apiVersion: v1, kind: Namespace, metadata: {name: net}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: net}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: agent, namespace: net}}
`

func TestWhatANewerVersionHasNoLongerIsRemoved(t *testing.T) {
	api, secrets := &memory{objects: map[string]addons.Object{}}, secretsOf(t)
	if _, err := network(t, api, secrets, firstVersion); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"apply ConfigMap kube-system/kubewright-inventory-cni", "apply Namespace net", "apply CustomResourceDefinition routes.net.example",
		"apply ServiceAccount net/relay", "apply ServiceAccount net/shared", "apply PodDisruptionBudget net/agent", "apply ConfigMap net/kube-root-ca.crt",
		"apply DaemonSet net/agent", "apply Deployment net/relay",
	}
	if diff := cmp.Diff(want, api.done); diff != "" {
		t.Error(diff)
	}
	api.done = nil
	if _, err := network(t, api, secrets, firstVersion); err != nil || api.done != nil {
		t.Errorf("the second time %q, %v", api.done, err)
	}

	api.objects["ServiceAccount net/shared"].SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "helm"}})
	api.done, api.fail = nil, "delete ServiceAccount net/relay"
	if _, err := network(t, api, secrets, secondVersion); err == nil || !strings.Contains(err.Error(), "remove ServiceAccount net/relay") {
		t.Errorf("it was refused, and got %v", err)
	}
	said, err := network(t, api, secrets, secondVersion) // goes on
	if err != nil {
		t.Fatal(err)
	}
	want = []string{
		"apply ConfigMap kube-system/kubewright-inventory-cni", // of both
		"apply PodDisruptionBudget net/agent",                  // its other version
		"delete Deployment net/relay",                          // first who needs the others
		"delete ServiceAccount net/relay",
		"apply ConfigMap kube-system/kubewright-inventory-cni",
	}
	if diff := cmp.Diff(want, api.done); diff != "" {
		t.Error(diff)
	}
	slices.Sort(said)
	if len(said) != 2 || !strings.Contains(said[0], "CustomResourceDefinition routes.net.example") || !strings.Contains(said[1], "ServiceAccount net/shared") {
		t.Errorf("said %q", said)
	}
	var names []string
	for _, o := range addons.Inventoried(api.objects["ConfigMap kube-system/kubewright-inventory-cni"]) {
		names = append(names, addons.Identity(o))
	}
	if diff := cmp.Diff([]string{"apps/v1 DaemonSet net/agent", "policy/v1 PodDisruptionBudget net/agent", "v1 Namespace net"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestPlanOfANetworkSaysWhatIsRemoved(t *testing.T) {
	api, secrets := &APIRecorder{}, secretsOf(t)
	if _, err := network(t, api, secrets, secondVersion); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range api.Steps() {
		got += s.String() + "\n"
	}
	if want := "apply ConfigMap kube-system/kubewright-inventory-cni\napply Namespace net\napply PodDisruptionBudget net/agent\napply ConfigMap net/kube-root-ca.crt\napply DaemonSet net/agent\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestTheNetworkOfARunningClusterIsKept(t *testing.T) {
	of := func(name, encapsulation string) *config.Cluster {
		c := &config.Cluster{}
		c.Spec.Network.CNI.Name, c.Spec.Network.CNI.Calico.Encapsulation = name, encapsulation
		c.Default(config.Versions{})
		return c
	}
	ranges := func(name, pods, services string) *config.Cluster {
		c := &config.Cluster{}
		c.Spec.Network = config.Network{PodCIDR: pods, ServiceCIDR: services, CNI: config.CNI{Name: name}}
		c.Default(config.Versions{})
		return c
	}
	for name, tt := range map[string]struct {
		has, wants *config.Cluster
		want       string
	}{
		"the same":        {of("flannel", ""), of("flannel", ""), ""},
		"other pods":      {of("flannel", ""), ranges("flannel", "10.1.0.0/16", ""), `spec.network.podCIDR: the cluster has "10.244.0.0/16" and the document "10.1.0.0/16": each node keeps`},
		"other services":  {of("calico", ""), ranges("calico", "", "10.1.0.0/16"), `spec.network.serviceCIDR: the cluster has "10.96.0.0/12" and the document "10.1.0.0/16": services keep`},
		"pods of none":    {of("none", ""), ranges("flannel", "10.1.0.0/16", ""), ""},
		"from none":       {of("none", ""), of("calico", ""), ""},
		"another":         {of("flannel", ""), of("calico", ""), `spec.network.cni.name: the cluster has "flannel" and the document "calico": pods keep`},
		"none":            {of("flannel", ""), of("none", ""), `spec.network.cni.name: the cluster has "flannel" and the document "none"`},
		"another tunnel":  {of("calico", ""), of("calico", "none"), `spec.network.cni.calico.encapsulation: the cluster has "vxlan" and the document "none": Calico keeps it`},
		"the same tunnel": {of("calico", ""), of("calico", "vxlan"), ""},
	} {
		err := KeptNetwork(tt.has, tt.wants)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The plural of Gateway is not gatewaies: of kinds that are not Kubernetes' own the server is asked, once.
func TestKindsOfOthersAreAskedFor(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/apis/gateway.networking.k8s.io/v1" {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "gateways/status", Kind: "Gateway"}, {Name: "gateways", Kind: "Gateway"}}})
	}))
	defer s.Close()
	c := &Client{http: s.Client(), server: s.URL, kinds: &sync.Map{}}
	for range 2 {
		got, err := c.ask(t.Context(), schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"})
		if err != nil || got.Resource != "gateways" {
			t.Errorf("%v, %v", got, err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	for _, gvk := range []schema.GroupVersionKind{{Group: "a.example", Version: "v1", Kind: "A"}, {Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Road"}} {
		if _, err := c.ask(t.Context(), gvk); !notYet(err) {
			t.Errorf("%s may be defined yet, and got %v", gvk, err)
		}
	}
}
