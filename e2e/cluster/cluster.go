// Package cluster makes clusters on hosts of a lab, by kubewright or by the real kubeadm,
// with the commands that a person would type. In go hosts; out comes a running cluster
// and a kubeconfig. The demo, the tests and the benchmark stand on it.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubewright/kubewright/e2e/lab"
)

// The kubelet of a lab host: cgroup v1 is what the machine may have, its disk and its swap
// are shared with everybody, and it may lack the capability to lower an OOM score.
const kubelet = `
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%"}
`

// kube-proxy on a lab host may not set the size of the kernel's one conntrack table.
const kubeProxy = `
conntrack: {maxPerCore: 0}
oomScoreAdj: 0
`

// Document is a Cluster document for hosts of a lab. Extra lines go under spec.
func Document(extra string) string {
	return `apiVersion: kubewright.dev/v1alpha1
kind: Cluster
spec:
  kubelet:` + indent(kubelet, 4) + `
  kubeProxy:
    config:` + indent(kubeProxy, 6) + indent("\n"+extra, 2) + "\n"
}

func indent(s string, by int) string {
	if strings.TrimSpace(s) == "" {
		return ""
	}
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+strings.Repeat(" ", by))
}

// Cluster is a running cluster.
type Cluster struct {
	ControlPlane *lab.Host
	Workers      []*lab.Host
	Kubeconfig   []byte
	Config       *rest.Config
	Client       *kubernetes.Clientset
	Join         []string // the join command's argv
}

// Options of a cluster that kubewright makes.
type Options struct {
	Document string            // as of [Document]
	Args     []string          // further flags of init and join: --bundle, say
	Log      func(line []byte) // hears every line that the commands print to stderr: events in JSON; called by several goroutines
}

const (
	tool     = lab.ToolDir + "/kubewright"
	document = "/root/cluster.yaml"
)

// Bundle is the flag that has hosts take everything from the lab's bundle.
var Bundle = []string{"--bundle", lab.BundleDir}

// Kubewright makes a cluster: init on the control plane, and the joins as soon as init has
// said the join command, which is before the API server runs; they wait for it.
func Kubewright(ctx context.Context, controlPlane *lab.Host, workers []*lab.Host, o Options) (*Cluster, error) {
	if err := controlPlane.Write(ctx, document, 0o600, strings.NewReader(o.Document)); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	join := make(chan []string, 1)
	g.Go(func() error {
		defer close(join)
		cmd := controlPlane.Command(gctx, nil, append([]string{tool, "init", "-o", "json", "--config", document}, o.Args...)...)
		return run(cmd, controlPlane.Name, o.Log, func(result []byte) error {
			var r struct{ Join string }
			if err := json.Unmarshal(result, &r); err != nil {
				return fmt.Errorf("init printed %q: %w", result, err)
			}
			if r.Join != "" {
				join <- strings.Fields(r.Join)
			}
			return nil
		})
	})
	var argv []string
	g.Go(func() error {
		argv = <-join
		if argv == nil {
			return nil // init failed and says why
		}
		return Join(gctx, argv, workers, o)
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, controlPlane)
	if err != nil {
		return nil, err
	}
	c.Workers, c.Join = workers, argv
	return c, nil
}

// Join runs kubewright's join on all workers at once. Argv is what init printed.
func Join(ctx context.Context, argv []string, workers []*lab.Host, o Options) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range workers {
		g.Go(func() error {
			args := append(append([]string{tool}, argv[1:]...), append([]string{"-o", "json"}, o.Args...)...)
			return run(w.Command(ctx, nil, args...), w.Name, o.Log, func([]byte) error { return nil })
		})
	}
	return g.Wait()
}

// run starts a command that prints results on stdout, a line each, and events on stderr.
func run(cmd *exec.Cmd, name string, log func([]byte), result func([]byte) error) error {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said strings.Builder // beside events
	var g errgroup.Group
	g.Go(func() error {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if log != nil {
				log(lines.Bytes())
			}
			if !bytes.HasPrefix(lines.Bytes(), []byte("{")) {
				said.WriteString(lines.Text() + "\n")
			}
		}
		return lines.Err()
	})
	g.Go(func() error {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if err := result(lines.Bytes()); err != nil {
				return err
			}
		}
		return lines.Err()
	})
	if err := errors.Join(g.Wait(), cmd.Wait()); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// connect reads the kubeconfig of a control plane. Its address is reachable from here, as
// the hosts' network is on this machine.
func connect(ctx context.Context, controlPlane *lab.Host) (*Cluster, error) {
	c := &Cluster{ControlPlane: controlPlane}
	var err error
	if c.Kubeconfig, err = controlPlane.ReadFile(ctx, "/etc/kubernetes/admin.conf"); err != nil {
		return nil, err
	}
	if c.Config, err = clientcmd.RESTConfigFromKubeConfig(c.Kubeconfig); err != nil {
		return nil, err
	}
	if u, err := url.Parse(c.Config.Host); err == nil && net.ParseIP(u.Hostname()) == nil { // the hosts know the name, and this machine does not
		c.Config.Host = "https://" + controlPlane.IP + ":6443"
	}
	c.Config.QPS = -1
	c.Client, err = kubernetes.NewForConfig(c.Config)
	return c, err
}
