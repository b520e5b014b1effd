package phases

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func podOf(name, kind string, phase corev1.PodPhase) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID("uid of " + name)}, Status: corev1.PodStatus{Phase: phase}}
	if kind == "static" {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	} else if kind != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "x", Controller: &yes}}
	}
	return p
}

func TestWhichPodsHaveToGoElsewhere(t *testing.T) {
	going := podOf("going", "", corev1.PodRunning)
	going.DeletionTimestamp = &metav1.Time{}
	pods, alone := evictable([]corev1.Pod{
		podOf("web", "ReplicaSet", corev1.PodRunning), podOf("proxy", "DaemonSet", corev1.PodRunning), podOf("kube-apiserver", "static", corev1.PodRunning),
		podOf("lonely", "", corev1.PodRunning), podOf("finished", "", corev1.PodSucceeded), podOf("failed", "DaemonSet", corev1.PodFailed), going,
	})
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "web lonely finished failed going" {
		t.Errorf("evicted are %s", got)
	}
	if !slices.Equal(alone, []string{"n/lonely"}) {
		t.Errorf("alone are %v", alone)
	}
}

func TestEvictWaitsUntilThePodIsGone(t *testing.T) {
	web := podOf("web", "StatefulSet", corev1.PodRunning)
	client := fake.NewClientset(&web)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
	looks := 0
	client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		if looks++; looks == 1 { // it is still ending
			return true, &web, nil
		}
		next := podOf("web", "StatefulSet", corev1.PodRunning)
		next.UID = "of a StatefulSet's next one"
		return true, &next, nil
	})
	if err := evict(t.Context(), client, web, time.Minute); err != nil || looks != 2 {
		t.Errorf("looked %d times: %v", looks, err)
	}
}

func TestEvictSaysWhatForbidsIt(t *testing.T) {
	web := podOf("web", "ReplicaSet", corev1.PodRunning)
	client := fake.NewClientset(&web)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewTooManyRequests("the disruption budget web needs 2 healthy pods", 1)
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, context.DeadlineExceeded)
	defer cancel()
	err := evict(ctx, client, web, 0)
	for _, part := range []string{"n/web", "the disruption budget web needs 2 healthy pods"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v lacks %q", err, part)
		}
	}
}
