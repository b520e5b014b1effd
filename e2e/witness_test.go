package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/e2e/lab"
)

// witness looks on while hosts come and go: the workers stay Ready, their pods run on, and a
// service answers at each of them.
type witness struct {
	f      *fleet
	stop   context.CancelFunc
	gone   sync.WaitGroup
	mu     sync.Mutex
	saw    []string
	looks  int // at nodes
	served int // answers of the service
	pods   string
}

const witnessPort = "30080"

const witnessed = `
apiVersion: v1
kind: Service
metadata: {name: witnessed}
spec: {type: NodePort, selector: {app: witnessed}, ports: [{port: 80, targetPort: 8080, nodePort: ` + witnessPort + `}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: witnessed}
spec:
  selector: {matchLabels: {app: witnessed}}
  template:
    metadata: {labels: {app: witnessed}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: ` + lab.ProbeImage + `
        imagePullPolicy: Never
        command: [sh, -c, "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {periodSeconds: 1, tcpSocket: {port: 8080}}
`

// witness begins to look, at a cluster where all is well.
func (f *fleet) witness() *witness {
	f.t.Helper()
	kubectl := []string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}
	if _, _, err := f.planes[0].Exec(f.ctx, strings.NewReader(witnessed), append(kubectl, "apply", "-f", "-")...); err != nil {
		f.t.Fatal(err)
	}
	run(f.ctx, f.t, f.planes[0], append(kubectl, "rollout", "status", "daemonset/witnessed", "--timeout", "60s")...)
	for _, h := range f.workers {
		f.until(f.t, "the service answers at "+h.Name, func() error { return served(f.ctx, h) })
	}
	ctx, stop := context.WithCancel(f.ctx)
	w := &witness{f: f, stop: stop}
	f.t.Cleanup(stop)
	w.pods = w.running()
	w.gone.Go(func() { w.nodes(ctx) })
	for _, h := range f.workers {
		w.gone.Go(func() { w.service(ctx, h) })
	}
	return w
}

func (w *witness) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saw = append(w.saw, time.Now().Format("15:04:05.0 ")+fmt.Sprintf(format, args...))
}

// nodes looks at the workers. That an API server does not answer is for others to say.
func (w *witness) nodes(ctx context.Context) {
	client, err := w.f.client()
	if err != nil {
		w.say("%v", err)
		return
	}
	for ; ctx.Err() == nil; wait(ctx, time.Second) {
		for _, h := range w.f.workers {
			n, err := client.CoreV1().Nodes().Get(ctx, h.Name, metav1.GetOptions{})
			if err != nil {
				continue
			}
			w.mu.Lock()
			w.looks++
			w.mu.Unlock()
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
					w.say("%s is not ready: %s", h.Name, c.Message)
				}
			}
		}
	}
}

// service asks at one worker, each time anew.
func (w *witness) service(ctx context.Context, h *lab.Host) {
	for ; ctx.Err() == nil; wait(ctx, 200*time.Millisecond) {
		switch err := served(ctx, h); {
		case err == nil:
			w.mu.Lock()
			w.served++
			w.mu.Unlock()
		case ctx.Err() == nil:
			w.say("the service at %s: %v", h.Name, err)
		}
	}
}

// served is one question to the service.
func served(ctx context.Context, h *lab.Host) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.IP+":"+witnessPort+"/", nil)
	if err != nil {
		return err
	}
	request.Close = true
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && string(b) != "served\n" {
		err = fmt.Errorf("%s %q", r.Status, b)
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// running are the pods, and how often each was restarted.
func (w *witness) running() string {
	w.f.t.Helper()
	return run(w.f.ctx, w.f.t, w.f.alive(w.f.planes)[0], "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "pods", "-l", "app=witnessed", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.phase} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
}

// end wants to have seen nothing.
func (w *witness) end() {
	w.f.t.Helper()
	w.stop()
	w.gone.Wait()
	for _, line := range w.saw {
		w.f.t.Error(line)
	}
	if w.looks == 0 || w.served == 0 {
		w.f.t.Error("the witness has seen no node, or no service")
	}
	if now := w.running(); now != w.pods {
		w.f.t.Errorf("pods before:\n%safter:\n%s", w.pods, now)
	}
	w.f.t.Logf("%d looks at workers, %d answers of the service", w.looks, w.served)
}
