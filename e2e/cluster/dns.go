package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/e2e/lab"
)

// WaitAPI connects to a cluster that somebody else is making, as soon as its API server is ready.
func WaitAPI(ctx context.Context, controlPlane *lab.Host, workers []*lab.Host) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var c *Cluster
	var err error
	for {
		if c == nil {
			c, err = connect(ctx, controlPlane) // a process on the host that is being measured: only until it works
		}
		if c != nil {
			_, err = c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		}
		if err == nil {
			c.Workers = workers
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("API server on %s: %w", controlPlane.Name, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// dnsPod ends well once cluster DNS answers it.
func dnsPod(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "dns-" + node, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			NodeSelector:  map[string]string{corev1.LabelHostname: node},
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "dns", Image: lab.ProbeImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"sh", "-c", "until timeout 1 nslookup kubernetes.default.svc.cluster.local; do sleep 0.1; done"},
			}},
		},
	}
}

// CreateDNSPods makes one for each worker. It may come before the namespace or its service
// account, which the control plane makes at its own pace.
func (c *Cluster) CreateDNSPods(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, w := range c.Workers {
		for {
			_, err := c.Client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, dnsPod(w.Name), metav1.CreateOptions{})
			if err == nil || apierrors.IsAlreadyExists(err) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("make a pod for %s: %w", w.Name, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// WaitDNSPods waits until DNS has answered each of them.
func (c *Cluster) WaitDNSPods(ctx context.Context) error {
	for _, w := range c.Workers {
		_, err := until(ctx, c.Client.CoreV1().RESTClient(), "pods", metav1.NamespaceDefault, "dns-"+w.Name, &corev1.Pod{}, func(p *corev1.Pod) error {
			if p.Status.Phase != corev1.PodSucceeded {
				return errors.New("it is " + string(p.Status.Phase))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
