package verify

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubewright/kubewright/apiclient"
)

func TestAPodWithoutItsImageNamesWhatToDo(t *testing.T) {
	waiting := func(reason string) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Image: "example.com/kubewright:v1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
	for _, c := range []struct {
		status corev1.PodStatus
		want   bool
	}{
		{corev1.PodStatus{ContainerStatuses: waiting("ImagePullBackOff")}, true},
		{corev1.PodStatus{InitContainerStatuses: waiting("ErrImagePull"), ContainerStatuses: waiting("PodInitializing")}, true},
		{corev1.PodStatus{ContainerStatuses: waiting("CrashLoopBackOff")}, false},
	} {
		got := unpulled(&corev1.Pod{Status: c.status})
		if c.want != (strings.Contains(got, "example.com/kubewright:v1") && strings.Contains(got, "--image")) || !c.want && got != "" {
			t.Errorf("%+v: %q", c.status, got)
		}
	}
}

// A pod that its node has refused stays so.
func TestAPodThatHasFailedIsNotWaitedFor(t *testing.T) {
	refused := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "pod-1", Namespace: "x"},
		Spec: corev1.PodSpec{NodeName: "w-1"}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node had condition: [DiskPressure]."}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch q := r.URL.Query(); {
		case r.URL.Path == "/api/v1/namespaces/x/pods" && q.Get("watch") == "":
			json.NewEncoder(w).Encode(corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.Pod{refused}})
		case q.Get("sendInitialEvents") != "": // as a server that knows no streamed lists
			w.WriteHeader(http.StatusUnprocessableEntity)
			json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
		case q.Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	config := &rest.Config{Host: s.URL}
	client, err := apiclient.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{config: config, client: client}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit/2) // only where it is waited for
	defer cancel()
	_, err = c.awaitPod(ctx, "x", "pod-1")
	wantError(t, err, "pod pod-1 on w-1 is Failed: The node had condition: [DiskPressure].")
	_, started := c.awaitStarted(ctx, &refused)
	wantError(t, started, "pod pod-1 on w-1 is Failed")
	if ctx.Err() != nil {
		t.Errorf("it was waited for: %v", err)
	}
}

func TestPressuresOfNodes(t *testing.T) {
	of := func(name string, disk, memory corev1.ConditionStatus) node {
		return node{name: name, is: corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "kubelet is posting ready status"},
			{Type: corev1.NodeDiskPressure, Status: disk, Message: "kubelet has disk pressure"}, {Type: corev1.NodeMemoryPressure, Status: memory, Message: "kubelet has insufficient memory available"}}}}}
	}
	wantError(t, pressures([]node{of("cp-1", "False", "Unknown"), of("w-1", "True", "False")}), "node w-1 has DiskPressure: kubelet has disk pressure")
	wantError(t, pressures([]node{of("cp-1", "False", "False")}), "")
}
