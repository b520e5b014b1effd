package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/kubewright/kubewright/verify/probe"
)

// execLimit is for one command in a pod; checks that expect less say so by their context.
const execLimit = 45 * time.Second

// ask puts a question to a probe, and decodes its answer.
func ask[A any](ctx context.Context, c *Cluster, p *corev1.Pod, command string, question any) (A, error) {
	return askIn[A](ctx, c, p, p.Spec.Containers[0].Name, command, question)
}

func askIn[A any](ctx context.Context, c *Cluster, p *corev1.Pod, container, command string, question any) (answer A, err error) {
	limit := execLimit
	if command == "etcd" {
		limit += probe.SnapshotLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out, errOut buffer
	if err := c.stream(ctx, p, container, nil, &out, &errOut, probe.Argv(command, question)...); err != nil {
		if said := strings.TrimSpace(errOut.String()); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return answer, err
	}
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil {
		err = fmt.Errorf("%s in %s on %s: %w: is its image, %s, of this version of kubewright?", command, p.Name, p.Spec.NodeName, err, c.image)
	}
	return answer, err
}

// exec runs a command in a pod's first container.
func (c *Cluster) exec(ctx context.Context, p *corev1.Pod, stdin string, argv ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, execLimit)
	defer cancel()
	var in io.Reader
	if stdin != "" {
		in = strings.NewReader(stdin)
	}
	var out, errOut buffer
	err = c.stream(ctx, p, p.Spec.Containers[0].Name, in, &out, &errOut, argv...)
	return out.String(), errOut.String(), err
}

// stream runs a command in a container as kubectl does: over a WebSocket, and over SPDY where something on the way
// doesn't let that through. Its limit is that of ctx.
func (c *Cluster) stream(ctx context.Context, p *corev1.Pod, container string, in io.Reader, out, errOut io.Writer, argv ...string) error {
	u := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: argv, Stdin: in != nil, Stdout: true, Stderr: true, Container: container}, scheme.ParameterCodec).URL()
	ws, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, u.String())
	if err != nil {
		return err
	}
	old, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, u)
	if err != nil {
		return err
	}
	e, err := remotecommand.NewFallbackExecutor(ws, old, refused)
	if err != nil {
		return err
	}
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: errOut}); err != nil {
		return fmt.Errorf("exec in %s on %s: %w", p.Name, p.Spec.NodeName, err)
	}
	return nil
}

// buffer may be written to while it is read: what client-go copies with goes on for a moment
// after a command was cut off.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// refused: the other end, or a proxy, does not speak WebSocket.
func refused(err error) bool {
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

// forward makes a port of a pod reachable at the returned address of this machine until ctx is done,
// as kubectl port-forward does. The caller waits for done.
func (c *Cluster) forward(ctx context.Context, p *corev1.Pod, port int) (addr string, done <-chan error, err error) {
	dialer, err := c.dialer(c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("portforward").URL())
	if err != nil {
		return "", nil, err
	}
	readyCh, problems := make(chan struct{}), &buffer{}
	f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, ctx.Done(), readyCh, nil, problems)
	if err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case err := <-ended:
		return "", nil, fmt.Errorf("port-forward to %s on %s: %w", p.Name, p.Spec.NodeName, err)
	case <-ctx.Done(): // it has no limit of its own for a connection that is made and never answered
		return "", nil, fmt.Errorf("port-forward to %s on %s: no answer: %w", p.Name, p.Spec.NodeName, ctx.Err())
	case <-readyCh:
	}
	ports, err := f.GetPorts()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), ended, nil
}

func (c *Cluster) dialer(u *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, c.config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialer(tunnel, old, refused), nil
}
