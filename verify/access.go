package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/exec"

	"github.com/kubewright/kubewright/verify/probe"
)

// execs sends something in, and wants both streams and the code back.
func execs(ctx context.Context, c *Cluster) (string, error) {
	err := c.onEveryNode(func(p *pair) error {
		pod, err := p.pod()
		if err != nil {
			return err
		}
		out, errOut, err := c.exec(ctx, pod, "said", probe.Argv("echo", nil)...)
		var code exec.ExitError
		if !errors.As(err, &code) {
			return fmt.Errorf("node %s: want exit code 3: %w", p.node.name, errors.Join(err, errors.New("got 0")))
		}
		if out != "said" || errOut != "complained\n" || code.ExitStatus() != 3 {
			return fmt.Errorf("node %s: stdout %q, stderr %q, exit code %d", p.node.name, out, errOut, code.ExitStatus())
		}
		return nil
	})
	return "stdin, stdout, stderr and exit code come through on " + c.nodeNames(), err
}

func logs(ctx context.Context, c *Cluster) (string, error) {
	err := c.onEveryNode(func(p *pair) error {
		pod, err := p.pod()
		if err != nil {
			return err
		}
		want := "probe " + pod.Name + "\n"
		// The container is called running before its first line is written.
		return until(ctx, 10*time.Second, func(ctx context.Context) error {
			b, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
			if err != nil {
				return fmt.Errorf("node %s: logs of %s: %w", p.node.name, pod.Name, err)
			}
			if string(b) != want {
				return fmt.Errorf("node %s: the log of %s is %q, want %q", p.node.name, pod.Name, b, want)
			}
			return nil
		})
	})
	return "logs of pods on " + c.nodeNames(), err
}

func portForwards(ctx context.Context, c *Cluster) (string, error) {
	err := c.onEveryNode(func(p *pair) error {
		pod, err := p.pod()
		if err != nil {
			return err
		}
		// The server in the pod may be a moment late, and that ends a forwarding.
		return until(ctx, 10*time.Second, func(ctx context.Context) error {
			if err := c.forwarded(ctx, pod); err != nil {
				return fmt.Errorf("node %s: port-forward: %w", p.node.name, err)
			}
			return nil
		})
	})
	return fmt.Sprintf("port %d of pods on %s answers here", probe.Port, c.nodeNames()), err
}

// forwarded makes one request through a forwarded port.
func (c *Cluster) forwarded(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	addr, done, err := c.forward(ctx, pod, probe.Port)
	if err != nil {
		cancel()
		return err
	}
	defer func() { cancel(); <-done }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/who", nil)
	if err != nil {
		return err
	}
	req.Close = true // or the forwarder waits for the connection that is kept
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var who probe.Who
	if err := json.Unmarshal(b, &who); err != nil || who.Name != pod.Name {
		return fmt.Errorf("want the answer of %s, got %q", pod.Name, b)
	}
	return nil
}
