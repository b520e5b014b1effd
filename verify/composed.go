package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/verify/probe"
)

// What the composed pod finds in its Secret and its ConfigMap.
const secretWord, configWord = "of a Secret", "of a ConfigMap"

// compose makes a pod with all that a pod can have: volumes of three kinds, an init container that fails once, and two
// containers.
func (c *Cluster) compose(ctx context.Context) (*corev1.Pod, error) {
	ns, err := c.home()
	if err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Name: "composed"}
	if _, err := c.client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"word": secretWord}}, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("create Secret: %w", err)
	}
	if _, err := c.client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"word": configWord}}, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("create ConfigMap: %w", err)
	}
	p := c.pod(meta.Name, c.nodes[len(c.nodes)-1].name, "serve")
	p.Spec.Containers = append(p.Spec.Containers, c.container("beside", "wait"))
	p.Spec.InitContainers = []corev1.Container{c.container("first", "twice", "/shared/began")}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: meta.Name}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: meta.Name}}}},
		{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	for _, in := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range in {
			for _, v := range p.Spec.Volumes {
				in[i].VolumeMounts = append(in[i].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
			}
		}
	}
	if err := c.createPod(ctx, ns, p); err != nil {
		return nil, err
	}
	return c.awaitPod(ctx, ns, p.Name)
}

// sharedPod has one container ask the other over loopback, and read what it wrote.
func sharedPod(ctx context.Context, c *Cluster) (string, error) {
	pod, err := c.composed()
	if err != nil {
		return "", err
	}
	one, other := pod.Spec.Containers[0].Name, pod.Spec.Containers[1].Name
	got, err := askIn[[]probe.Got](ctx, c, pod, other, "get", probe.Get{URLs: []string{who("127.0.0.1", probe.Port)}, By: []string{pod.Name}, Within: rulesLimit})
	if err != nil {
		return "", err
	}
	if err := judgeGot(got); err != nil {
		return "", fmt.Errorf("container %s does not reach %s over loopback: %w", other, one, err)
	}
	const file, text = "/shared/note", "written by the other"
	if _, err := askIn[int](ctx, c, pod, one, "write", probe.Write{Path: file, Text: text}); err != nil {
		return "", err
	}
	read, err := askIn[map[string]string](ctx, c, pod, other, "files", []string{file})
	if err != nil {
		return "", err
	}
	if read[file] != text {
		return "", fmt.Errorf("container %s wrote %q to a shared volume, container %s reads %q", one, text, other, read[file])
	}
	var have [][]string
	for _, container := range []string{one, other} {
		w, err := askIn[probe.Ways](ctx, c, pod, container, "paths", probe.Paths{})
		if err != nil {
			return "", err
		}
		slices.Sort(w.Addresses)
		have = append(have, w.Addresses)
	}
	if !slices.Equal(have[0], have[1]) || !slices.Contains(have[0], pod.Status.PodIP) {
		return "", fmt.Errorf("containers of one pod have addresses %s and %s, and its IP is %s", words(have[0]), words(have[1]), pod.Status.PodIP)
	}
	return fmt.Sprintf("two containers of a pod on %s meet at 127.0.0.1, share a file, and both have %s", pod.Spec.NodeName, pod.Status.PodIP), nil
}

// beginnings are what the init container of the composed pod has noted, each time.
func (c *Cluster) beginnings(ctx context.Context) (*corev1.Pod, []probe.Beginning, error) {
	pod, err := c.composed()
	if err != nil {
		return nil, nil, err
	}
	got, err := ask[map[string]string](ctx, c, pod, "files", []string{"/shared/began"})
	if err != nil {
		return nil, nil, err
	}
	began, err := probe.Beginnings(got["/shared/began"])
	return pod, began, err
}

// initContainers: one that failed was run again, and the others waited.
func initContainers(ctx context.Context, c *Cluster) (string, error) {
	pod, began, err := c.beginnings(ctx)
	if err != nil {
		return "", err
	}
	return judgeBeginnings(pod, began)
}

func judgeBeginnings(pod *corev1.Pod, began []probe.Beginning) (string, error) {
	if len(began) != 2 {
		return "", fmt.Errorf("the init container was to run twice, and ran %d times", len(began))
	}
	if len(pod.Status.InitContainerStatuses) != 1 || pod.Status.InitContainerStatuses[0].RestartCount < 1 {
		return "", errors.New("the pod's status does not say that its init container was run again once")
	}
	ended := pod.Status.InitContainerStatuses[0].State.Terminated
	if ended == nil {
		return "", fmt.Errorf("the containers run, and the init container has not ended: %+v", pod.Status.InitContainerStatuses[0].State)
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running == nil || s.State.Running.StartedAt.Before(&ended.FinishedAt) {
			return "", fmt.Errorf("container %s did not wait for the init container", s.Name)
		}
	}
	return fmt.Sprintf("an init container failed, was run again after %.1fs, and the containers started after it", began[1].At.Sub(began[0].At).Seconds()), nil
}

// podIP: the init container had the pod's IP already, and a container that was restarted has it still.
func podIP(ctx context.Context, c *Cluster) (string, error) {
	pod, began, err := c.beginnings(ctx)
	if err != nil {
		return "", err
	}
	for _, b := range began {
		if !slices.Contains(b.Addresses, pod.Status.PodIP) {
			return "", fmt.Errorf("before its containers started, pod %s had %s, later %s", pod.Name, words(b.Addresses), pod.Status.PodIP)
		}
	}
	r, err := c.liveness()
	if err != nil {
		return "", err
	}
	if before, after := podIPs(r.before), podIPs(r.after); !slices.Equal(before, after) {
		return "", fmt.Errorf("the container of pod %s was restarted, and its IPs went from %s to %s", r.after.Name, words(before), words(after))
	}
	return fmt.Sprintf("init containers have their pod's IP already; %s is that of a pod before and after its container was restarted", strings.Join(podIPs(r.after), " ")), nil
}

func podIPs(p *corev1.Pod) []string {
	var ips []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if ips == nil {
		ips = []string{p.Status.PodIP}
	}
	return ips
}
