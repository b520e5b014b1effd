package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubewright/kubewright/e2e/lab"
)

// Kind is a person with an engine, our binary and the real kind, in a folder of their own.
type Kind struct {
	Dir, Image   string
	Binary, Real string // kubewright, kind
	lab          *lab.Lab
}

// NewKind makes the node image, if need be.
func NewKind(ctx context.Context, l *lab.Lab, dir string) (*Kind, error) {
	cni, err := FlannelManifest(ctx)
	if err != nil {
		return nil, err
	}
	k := &Kind{Dir: dir, lab: l}
	if k.Image, err = l.NodeImage(ctx, cni); err != nil {
		return nil, err
	}
	if k.Binary, err = l.Kubewright(ctx); err != nil {
		return nil, err
	}
	k.Real, err = l.Binary(ctx, "kind")
	return k, err
}

// Kubeconfig is the person's own.
func (k *Kind) Kubeconfig() string { return filepath.Join(k.Dir, "kubeconfig") }

// Run runs kubewright, and returns what it prints, and what it says of its work.
func (k *Kind) Run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return k.run(ctx, k.Binary, args...)
}

// Kind runs the real kind.
func (k *Kind) Kind(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return k.run(ctx, k.Real, args...)
}

func (k *Kind) run(ctx context.Context, binary string, args ...string) (stdout, stderr string, err error) {
	cmd := k.Command(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(binary), strings.Join(args, " "), err, errs.String())
	}
	return out.String(), errs.String(), err
}

// Command has the engine in its environment, and the kubeconfig.
func (k *Kind) Command(ctx context.Context, binary string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = k.Dir
	cmd.Env = append(append(os.Environ(), k.lab.Engine.Env()...), "KUBECONFIG="+k.Kubeconfig())
	return cmd
}

// Up makes a cluster of ours.
func (k *Kind) Up(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	return k.Run(ctx, append([]string{"up", "--provider", "kind", "--name", name, "--image", k.Image}, args...)...)
}

// Create makes a cluster by the real kind, which is told what a lab's hosts need, and the version of CoreDNS that the
// image has.
func (k *Kind) Create(ctx context.Context, name string, workers int) error {
	config := `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {podSubnet: 10.244.0.0/16}
nodes:
- role: control-plane
` + strings.Repeat("- role: worker\n", workers) + `kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  dns: {imageTag: ` + lab.CoreDNSVersion + `}
- |
  kind: KubeletConfiguration` + indent(kubelet, 2) + `
- |
  kind: KubeProxyConfiguration` + indent(kubeProxy, 2) + "\n"
	file := filepath.Join(k.Dir, name+".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	_, _, err := k.Kind(ctx, "create", "cluster", "--name", name, "--image", k.Image, "--config", file)
	return err
}

// Hosts are the containers of a cluster, which somebody is making: they are waited for.
func (k *Kind) Hosts(ctx context.Context, name string, workers int) ([]*lab.Host, error) {
	names := []string{name + "-control-plane"}
	for i := range workers {
		names = append(names, name+"-worker"+strings.TrimPrefix(fmt.Sprint(i+1), "1"))
	}
	var hosts []*lab.Host
	for _, n := range names {
		for {
			h, err := k.lab.Engine.Container(ctx, n)
			if err == nil {
				hosts = append(hosts, h)
				break
			}
			select {
			case <-ctx.Done():
				return nil, errors.Join(ctx.Err(), err)
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return hosts, nil
}

// Remove removes a cluster, whoever made it.
func (k *Kind) Remove(ctx context.Context, name string) error {
	_, _, err := k.Kind(ctx, "delete", "cluster", "--name", name)
	return err
}
