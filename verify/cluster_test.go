package verify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubewright/kubewright/verify/probe"
)

func TestHostsOfAnotherCluster(t *testing.T) {
	run := func(context.Context, ...string) (string, error) { return "", nil }
	for want, hosts := range map[string]map[string]Runner{
		"": {"w-1": run, "w-9": run},
		"the hosts are w-8 w-9, and none of them is a node of the cluster at https://192.0.2.1:6443, which has cp-1 w-1": {"w-8": run, "w-9": run},
	} {
		c := &Cluster{config: &rest.Config{Host: "https://192.0.2.1:6443"}, hosts: hosts, nodes: []node{{name: "cp-1"}, {name: "w-1"}}}
		wantError(t, c.hasHosts(), want)
	}
}

// What can't be undone does not keep the rest from it, and a node that is down does not hold up its pods.
func TestAllThatCanBeUndoneIs(t *testing.T) {
	meta := func(name string, labels, annotations map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}
	}
	left := map[string]string{Label: "true"}
	stuck, marked := corev1.Node{ObjectMeta: meta("stuck", nil, map[string]string{cordonMark: "x"})}, corev1.Node{ObjectMeta: meta("w-1", nil, map[string]string{cordonMark: "x"})}
	marked.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	client := fake.NewClientset(&stuck, &marked, &corev1.Namespace{ObjectMeta: meta("left", left, nil)}, &corev1.Namespace{ObjectMeta: meta("theirs", nil, nil)})
	client.PrependReactor("patch", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		return a.(clienttesting.PatchAction).GetName() == "stuck", nil, errors.New("no")
	})
	c := &Cluster{client: client, nodes: []node{{name: "stuck", is: stuck}, {name: "w-1", is: marked}}}
	names, err := c.remove(t.Context(), Label+"=true")
	wantError(t, err, "cordon node stuck (false): no")
	if !slices.Equal(names, []string{"cordon of node w-1", "left"}) {
		t.Errorf("undone are %q", names)
	}
	namespaces, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(namespaces.Items) != 1 || namespaces.Items[0].Name != "theirs" {
		t.Errorf("there are %v, %v", namespaces, err)
	}
	var atOnce []string
	for _, a := range client.Actions() {
		if d, ok := a.(clienttesting.DeleteCollectionActionImpl); ok && d.DeleteOptions.GracePeriodSeconds != nil && *d.DeleteOptions.GracePeriodSeconds == 0 {
			atOnce = append(atOnce, d.GetListRestrictions().Fields.String())
		}
	}
	if strings.Join(atOnce, " ") != "spec.nodeName=stuck" {
		t.Errorf("pods are removed at once with %q", atOnce)
	}
}

func TestStaticPodsOfAYoungControlPlaneAreWaitedFor(t *testing.T) {
	young := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1", Labels: map[string]string{controlPlane: ""}, CreationTimestamp: metav1.Now()}}
	server := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"component": "kube-apiserver", "tier": "control-plane"}}, Spec: corev1.PodSpec{NodeName: "cp-1", Containers: []corev1.Container{{
		Command: []string{"kube-apiserver", "--etcd-cafile=/ca", "--etcd-certfile=/crt", "--etcd-keyfile=/key", "--etcd-servers=https://192.0.2.1:2379"}}}}}
	client := fake.NewClientset()
	looks := 0
	client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		if looks++; looks == 1 {
			return true, &corev1.PodList{}, nil
		}
		return true, &corev1.PodList{Items: []corev1.Pod{server}}, nil
	})
	c := &Cluster{client: client, nodes: []node{{name: "cp-1", is: young}}}
	if all, err := c.apiServers(t.Context()); err != nil || all["cp-1"] == nil {
		t.Errorf("after %d looks: %v, %v", looks, all, err)
	}
	looks, c.nodes[0].is.CreationTimestamp = 0, metav1.NewTime(time.Now().Add(-time.Hour))
	if all, err := c.apiServers(t.Context()); err != nil || len(all) != 0 || looks != 1 {
		t.Errorf("an old one without static pods: %d looks: %v, %v", looks, all, err)
	}
	looks, c.nodes[0].is.Status.Conditions = 0, []corev1.NodeCondition{{Type: corev1.NodeReady, LastTransitionTime: metav1.Now()}}
	if all, err := c.apiServers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("one that came back just now: %d looks: %v, %v", looks, all, err)
	}
}

func TestEtcdIsLocal(t *testing.T) {
	for url, want := range map[string]bool{"https://127.0.0.1:2379": true, "https://[::1]:2379": true, "https://localhost:2379": true, "https://192.0.2.1:2379": false} {
		if got := (&probe.Etcd{Endpoints: []string{url}}).Local(); got != want {
			t.Errorf("%s: %t", url, got)
		}
	}
	if (*probe.Etcd)(nil).Local() || (&probe.Etcd{Endpoints: []string{"https://127.0.0.1:2379", "https://192.0.2.1:2379"}}).Local() {
		t.Error("none, or several, are local")
	}
}
