package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/verify/probe"
)

// asks is a probe of the kubelet's, each second, of a state that serve has.
func asks(state string, failures int32) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: failures, ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/is/" + state, Port: intstr.FromInt32(probe.Port)}}}
}

// set changes a state of serve in a pod.
func (c *Cluster) set(ctx context.Context, p *corev1.Pod, text string) error {
	_, errOut, err := c.exec(ctx, p, "", append(probe.Argv("set", nil), text)...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, errOut)
	}
	return nil
}

// tryReadiness takes a pod through its life as an endpoint: not ready, ready, not ready, gone. At each
// step it looks at the EndpointSlice and calls the service.
func (c *Cluster) tryReadiness(ctx context.Context) (string, error) {
	from, err := c.lastProbe()
	if err != nil {
		return "", err
	}
	late := c.pod("late", c.nodes[0].name, "serve", "ready=no")
	late.Spec.Containers[0].ReadinessProbe = asks("ready", 1)
	s, err := c.service(ctx, from.Namespace, "late", corev1.ServiceSpec{Selector: late.Labels})
	if err != nil {
		return "", err
	}
	if err := c.createPod(ctx, from.Namespace, late); err != nil {
		return "", err
	}
	url := who(s.Spec.ClusterIP, 80)
	for _, step := range []struct {
		what  string
		do    func() error
		ready bool // and receives
		seen  func([]discoveryv1.Endpoint) bool
	}{
		{"not ready yet", func() error { return nil }, false, endpointReady(1, false)},
		{"made ready", func() error { return c.set(ctx, late, "ready=yes") }, true, endpointReady(1, true)},
		{"no longer ready", func() error { return c.set(ctx, late, "ready=no") }, false, endpointReady(1, false)},
		{"deleted", func() error {
			return c.client.CoreV1().Pods(late.Namespace).Delete(ctx, late.Name, metav1.DeleteOptions{})
		}, false, endpointReady(0, false)},
	} {
		if err := step.do(); err != nil {
			return "", fmt.Errorf("a pod that is %s: %w", step.what, err)
		}
		if err := c.awaitSlice(ctx, s, step.seen); err != nil {
			return "", fmt.Errorf("a pod that is %s: %w%s", step.what, err, c.why(ctx, late))
		}
		g := probe.Get{URLs: []string{url}, By: []string{late.Name}, Within: rulesLimit}
		if !step.ready {
			g.By, g.Silent = nil, true
		}
		got, err := ask[[]probe.Got](ctx, c, from, "get", g)
		if err != nil {
			return "", err
		}
		if (got[0].Error == "") != step.ready {
			return "", fmt.Errorf("a pod that is %s: its service at %s, called from %s: %s; its EndpointSlice is right; %s", step.what, url, from.Spec.NodeName,
				map[bool]string{true: got[0].Error, false: "it still receives"}[step.ready], c.proxyState(ctx, node{name: from.Spec.NodeName}))
		}
		if late, err = c.client.CoreV1().Pods(from.Namespace).Get(ctx, late.Name, metav1.GetOptions{}); err != nil && step.what != "deleted" {
			return "", fmt.Errorf("get pod: %w", err)
		}
	}
	return "an endpoint was not ready, ready, not ready and gone as its pod was, and received only while it was ready", nil
}

// endpointReady wants so many endpoints, each ready or not.
func endpointReady(n int, ready bool) func([]discoveryv1.Endpoint) bool {
	return func(all []discoveryv1.Endpoint) bool {
		for _, e := range all {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) != ready {
				return false
			}
		}
		return len(all) == n
	}
}

func (c *Cluster) awaitSlice(ctx context.Context, s *corev1.Service, good func([]discoveryv1.Endpoint) bool) error {
	w := watched{c.client.DiscoveryV1().RESTClient(), "endpointslices", s.Namespace, "", discoveryv1.LabelServiceName + "=" + s.Name}
	family := discoveryv1.AddressType(s.Spec.IPFamilies[0])
	return await(ctx, w, startLimit, func(all []*discoveryv1.EndpointSlice) (bool, string) {
		var have []discoveryv1.Endpoint
		seen := "service " + s.Name + " has endpoints"
		for _, slice := range all {
			if slice.AddressType != family {
				continue
			}
			have = append(have, slice.Endpoints...)
			for _, e := range slice.Endpoints {
				seen += fmt.Sprintf(" %s (ready: %t)", words(e.Addresses), e.Conditions.Ready == nil || *e.Conditions.Ready)
			}
		}
		return good(have), seen
	})
}

func endpoints(_ context.Context, c *Cluster) (string, error) { return c.readiness() }

// revival is a container that its kubelet has restarted.
type revival struct {
	before, after *corev1.Pod
	took          time.Duration // from its death
}

// Of the liveness probe of a pod that dies.
const period, threshold = time.Second, 2

// tryLiveness has a container die for its liveness probe.
func (c *Cluster) tryLiveness(ctx context.Context) (r revival, err error) {
	ns, err := c.home()
	if err != nil {
		return r, err
	}
	mortal := c.pod("mortal", c.nodes[len(c.nodes)-1].name, "serve")
	mortal.Spec.Containers[0].LivenessProbe = asks("alive", threshold)
	if err := c.createPod(ctx, ns, mortal); err != nil {
		return r, err
	}
	if r.before, err = c.awaitPod(ctx, ns, mortal.Name); err != nil {
		return r, err
	}
	began := time.Now()
	if err := c.set(ctx, r.before, "alive=no"); err != nil {
		return r, err
	}
	w := watched{c.client.CoreV1().RESTClient(), "pods", ns, mortal.Name, ""}
	err = await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		if len(all) == 0 {
			return false, "pod " + mortal.Name + " is gone"
		}
		r.after = all[0]
		return len(r.after.Status.ContainerStatuses) == 1 && r.after.Status.ContainerStatuses[0].RestartCount > r.before.Status.ContainerStatuses[0].RestartCount && ready(r.after),
			podState(r.after) + ", and its container was not restarted"
	})
	r.took = time.Since(began)
	if err != nil {
		err = fmt.Errorf("a container whose liveness probe fails: %w", err)
	}
	return r, err
}

// healthProbes adds a pod whose startup probe holds the others back: its liveness probe fails from the beginning.
func healthProbes(ctx context.Context, c *Cluster) (string, error) {
	ns, err := c.home()
	if err != nil {
		return "", err
	}
	slow := c.pod("slow", c.nodes[0].name, "serve", "alive=no,started=no")
	slow.Spec.Containers[0].StartupProbe = asks("started", 300)
	slow.Spec.Containers[0].LivenessProbe = asks("alive", 1)
	if err := c.createPod(ctx, ns, slow); err != nil {
		return "", err
	}
	first, err := c.awaitStarted(ctx, slow)
	if err != nil {
		return "", err
	}
	restarts := first.Status.ContainerStatuses[0].RestartCount // of a start that did not succeed, say
	_, errReady := c.readiness()
	r, errAlive := c.liveness()
	if err := lines(errReady, errAlive); err != nil {
		return "", err
	}
	// Meanwhile another one that is as dead was restarted.
	if slow, err = c.awaitStarted(ctx, slow); err != nil {
		return "", err
	}
	if ready(slow) || slow.Status.ContainerStatuses[0].RestartCount > restarts {
		return "", fmt.Errorf("a startup probe that has not succeeded holds the others back, but: %s, ready: %t", podState(slow), ready(slow))
	}
	held := time.Since(slow.Status.ContainerStatuses[0].State.Running.StartedAt.Time)
	if err := c.set(ctx, slow, "alive=yes,started=yes"); err != nil {
		return "", err
	}
	if slow, err = c.awaitPod(ctx, ns, slow.Name); err != nil {
		return "", fmt.Errorf("a pod whose startup probe has succeeded: %w", err)
	}
	if slow.Status.ContainerStatuses[0].RestartCount > restarts {
		return "", fmt.Errorf("a container was restarted though its startup probe had not succeeded: %s", podState(slow))
	}
	return fmt.Sprintf("not ready: no traffic; dead: restarted after %.1fs (%d probes, %s apart); held back by its startup probe for %.0fs, then ready without a restart",
		r.took.Seconds(), threshold, period, held.Seconds()), nil
}

// awaitStarted waits until a pod's container runs, ready or not.
func (c *Cluster) awaitStarted(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	w := watched{c.client.CoreV1().RESTClient(), "pods", p.Namespace, p.Name, ""}
	err := await(ctx, w, startLimit, func(all []*corev1.Pod) (bool, string) {
		if len(all) == 0 {
			return false, "pod " + p.Name + " is gone"
		}
		p = all[0]
		return over(p) || len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil, podState(p)
	})
	if err == nil && over(p) {
		err = errors.New(podState(p))
	}
	return p, err
}
