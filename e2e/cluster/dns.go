package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
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

// DNSPods are pods that tell us, one from each worker, when cluster DNS has answered them.
// They say so themselves, over the hosts' network, as the API would say it a second later.
type DNSPods struct {
	cluster  *Cluster
	server   *http.Server
	answered chan string
}

// CreateDNSPods makes one for each worker. It may come before the namespace or its service
// account, which the control plane makes at its own pace.
func (c *Cluster) CreateDNSPods(ctx context.Context) (*DNSPods, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// The first address of the hosts' network is this machine.
	gateway := c.ControlPlane.IP[:strings.LastIndex(c.ControlPlane.IP, ".")] + ".1"
	listener, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		return nil, err
	}
	p := &DNSPods{cluster: c, answered: make(chan string, 100)}
	p.server = &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { p.answered <- strings.Trim(r.URL.Path, "/") })}
	go p.server.Serve(listener)
	for _, w := range c.Workers {
		for {
			_, err := c.Client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, dnsPod(w.Name, listener.Addr().String()), metav1.CreateOptions{})
			if err == nil || apierrors.IsAlreadyExists(err) {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("make a pod for %s: %w", w.Name, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return p, nil
}

func dnsPod(node, report string) *corev1.Pod {
	script := `until timeout 1 nslookup kubernetes.default.svc.cluster.local; do sleep 0.1; done
until wget -q -O - http://` + report + `/` + node + `; do sleep 0.1; done`
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "dns-" + node, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			NodeSelector:  map[string]string{corev1.LabelHostname: node},
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "dns", Image: lab.ProbeImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"sh", "-c", script},
			}},
		},
	}
}

// Wait waits until DNS has answered a pod on each worker.
func (p *DNSPods) Wait(ctx context.Context) error {
	defer p.server.Close()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	missing := map[string]bool{}
	for _, w := range p.cluster.Workers {
		missing[w.Name] = true
	}
	for len(missing) > 0 {
		select {
		case name := <-p.answered:
			delete(missing, name)
		case <-ctx.Done():
			return fmt.Errorf("DNS has not answered the pods on %v: %w", slices.Sorted(maps.Keys(missing)), ctx.Err())
		}
	}
	return nil
}
