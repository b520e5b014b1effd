package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"github.com/kubewright/kubewright/verify/probe"
)

// startLimit is for a pod to be scheduled, its image pulled, its container running.
const startLimit = 45 * time.Second

// pod is one that runs a command of the probe, on the node where one is named, whatever that is kept free for.
func (c *Cluster) pod(name, node, command string, args ...string) *corev1.Pod {
	// A cluster may consist of control planes. Other taints, as that of a cordoned node, count.
	tolerated := corev1.Toleration{Key: controlPlane, Operator: corev1.TolerationOpExists}
	if node != "" {
		tolerated.Key = ""
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Tolerations:                   []corev1.Toleration{tolerated},
			Containers:                    []corev1.Container{c.container("probe", command, args...)},
		},
	}
}

func (c *Cluster) container(name, command string, args ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: append(probe.Argv(command, nil), args...),
		Env: []corev1.EnvVar{
			{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			// A command is over before there is garbage worth its collection: a quarter of the time that it takes.
			{Name: "GOGC", Value: "off"}, {Name: "GOMEMLIMIT", Value: "64MiB"},
		},
	}
}

// createPod makes a pod that ends after an hour by itself: nobody may come to clean up after a run that was killed.
func (c *Cluster) createPod(ctx context.Context, namespace string, p *corev1.Pod) error {
	p.Namespace = namespace
	p.Spec.ActiveDeadlineSeconds = ptr.To[int64](3600)
	if _, err := c.client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create pod %s: %w", p.Name, err)
	}
	return nil
}

// awaitPod waits until a pod is ready, and returns it as it is then. One that has ended, as its node refused it, say,
// will not be ready any more.
func (c *Cluster) awaitPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var last *corev1.Pod
	w := watched{c.client.CoreV1().RESTClient(), "pods", namespace, name, ""}
	err := await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		if len(all) == 0 {
			return false, "pod " + name + " is not there"
		}
		last = all[0]
		return ready(last) || over(last), podState(last)
	})
	if err == nil && over(last) {
		err = errors.New(podState(last))
	}
	if err != nil && last != nil {
		err = fmt.Errorf("%w%s%s", err, c.why(ctx, last), unpulled(last))
	}
	return last, err
}

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// podState says how a pod is, in one line.
func podState(p *corev1.Pod) string {
	s := "pod " + p.Name
	if p.Spec.NodeName != "" {
		s += " on " + p.Spec.NodeName
	}
	s += " is " + string(cmp.Or(p.Status.Phase, "new"))
	if p.DeletionTimestamp != nil {
		s += ", being deleted"
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			s += ": " + c.Reason + ": " + c.Message
		}
	}
	if p.Status.Message != "" {
		s += ": " + p.Status.Message
	}
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			s += ": " + strings.TrimSuffix(c.State.Waiting.Reason+": "+c.State.Waiting.Message, ": ")
		case c.State.Terminated != nil:
			s += fmt.Sprintf(": ended with code %d, %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		}
		if last := c.LastTerminationState.Terminated; last != nil {
			s += fmt.Sprintf(", restarted %d times, the last time after it ended with code %d, %s %s", c.RestartCount, last.ExitCode, last.Reason, last.Message)
		}
	}
	return s
}

// unpulled says what to do about a pod whose image its node does not have and does not get: its kubelet may have
// removed the image, which no pod has used for a while, to gain space. It begins with "; ", or is empty.
func unpulled(p *corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.State.Waiting != nil && slices.Contains([]string{"ErrImagePull", "ImagePullBackOff"}, s.State.Waiting.Reason) {
			return fmt.Sprintf("; bring %s along with `kubewright up --bundle` (one of this version of kubewright), or name a copy that nodes can pull with --image", s.Image)
		}
	}
	return ""
}

// why says what else is known about a pod that doesn't start: that its node is not ready, or
// the newest warning. It begins with "; ", and is empty where there is nothing to add.
func (c *Cluster) why(ctx context.Context, p *corev1.Pod) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if n, err := c.client.CoreV1().Nodes().Get(ctx, p.Spec.NodeName, metav1.GetOptions{}); p.Spec.NodeName != "" && err == nil {
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status != corev1.ConditionTrue {
				return fmt.Sprintf("; node %s is not ready: %s", n.Name, cond.Message)
			}
		}
	}
	if p.Spec.NodeName == "" || slices.ContainsFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.State.Waiting != nil && s.State.Waiting.Message != ""
	}) {
		return "" // the events say what the state says
	}
	events, err := c.client.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.Set{
		"involvedObject.uid": string(p.UID), "type": corev1.EventTypeWarning}.String()})
	if err != nil || len(events.Items) == 0 {
		return ""
	}
	e := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	return fmt.Sprintf("; event %s: %s", e.Reason, strings.TrimSpace(e.Message))
}

// eventTime: which field holds it depends on who wrote the event.
func eventTime(e corev1.Event) time.Time {
	t := e.CreationTimestamp.Time
	for _, other := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time} {
		if other.After(t) {
			t = other
		}
	}
	return t
}
