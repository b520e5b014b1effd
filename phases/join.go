package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// Join makes a host a worker of a cluster. What the host needs of its own (binaries,
// runtime, images) is prepared while the cluster is still being found, or even made.
func Join() []Phase {
	return append(prepare(),
		Phase{Name: "discovery", Short: "find the cluster and verify that it is the right one", After: []string{"preflight"}, Run: discovery},
		Phase{Name: "kubelet-start", Short: "configure and start the kubelet with the token", After: []string{"kernel", "runtime", "discovery"}, Run: joinKubelet},
		Phase{Name: "kubelet-wait-bootstrap", Short: "wait until the kubelet has its certificate", After: []string{"kubelet-start"}, Run: waitBootstrap},
	)
}

func discovery(ctx context.Context, t *Target) error {
	_, err := t.Discover(ctx)
	return err
}

// joined is t in the cluster that was found.
func (t *Target) joined(ctx context.Context) (*Target, *Discovery, error) {
	d, err := t.Discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	own := *t
	own.Cluster, own.API = d.Cluster, d.API
	own.Node = d.Cluster.Node(t.Node.Name, config.WorkerRole, t.Facts)
	return &own, d, nil
}

func joinKubelet(ctx context.Context, t *Target) error {
	t, d, err := t.joined(ctx)
	if err != nil {
		return err
	}
	if err := t.sameCA(ctx, d.CA); err != nil {
		return err
	}
	if err := t.checkJoin(d); err != nil {
		return err
	}
	files := []host.File{{Path: pki.CA + ".crt", Content: host.Bytes(d.CA)}}
	_, err = t.Host.ReadFile(ctx, pki.KubeletConf)
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.nameIsFree(ctx); err != nil {
			return err
		}
		conf, err := pki.BootstrapKubeconfig(d.Cluster.Metadata.Name, d.Server, d.CA, t.Token.Reveal())
		if err != nil {
			return err
		}
		files = append(files, host.File{Path: pki.BootstrapKubeletConf, Mode: 0o600, Secret: true, Content: host.Bytes(conf)})
	} else if err != nil {
		return err
	}
	if _, err := t.write(ctx, files...); err != nil {
		return err
	}
	return t.startKubelet(ctx, d.KubeletConfiguration)
}

// sameCA refuses a host that trusts another cluster: its CA is never overwritten.
func (t *Target) sameCA(ctx context.Context, ca []byte) error {
	have, err := t.Host.ReadFile(ctx, pki.CA+".crt")
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(ca)) {
		return nil
	}
	if err != nil {
		return err
	}
	return Finding{Name: "FileAvailable--etc-kubernetes-pki-ca.crt", Message: "this host belongs to another cluster, as its CA shows: take it out with `kubewright reset`"}
}

// checkJoin is the part of preflight that needs to know the cluster.
func (t *Target) checkJoin(d *Discovery) error {
	var kubelet map[string]any
	if err := yaml.Unmarshal(d.KubeletConfiguration, &kubelet); err != nil {
		return fmt.Errorf("ConfigMap kube-system/kubelet-config: %w", err)
	}
	findings := checkKubelet(kubelet, t.Facts, true)
	if !t.Facts.Present[pki.KubeletConf] {
		findings = append(findings, overlaps(d.Cluster, t.Facts)...)
	}
	return t.judge(findings)
}

// nameIsFree refuses a second node of the same name: its kubelet would take over the first one's pods.
func (t *Target) nameIsFree(ctx context.Context) error {
	node, err := t.API.Get(ctx, ref("v1", "Node", "", t.Node.Name))
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a node named %s: %w", t.Node.Name, err)
	}
	if condition(node, "Ready") == "True" {
		return fmt.Errorf("the cluster has a node %s that is Ready: give this host another name with --node-name, or remove that node first with `kubectl delete node %s`", t.Node.Name, t.Node.Name)
	}
	return nil
}

// waitBootstrap ends when the kubelet has exchanged the token for a certificate, and
// takes the token off the host.
func waitBootstrap(ctx context.Context, t *Target) error {
	t, _, err := t.joined(ctx)
	if err != nil {
		return err
	}
	err = until(ctx, t.Cluster.Spec.Timeouts.TLSBootstrap.Duration, "kubelet", func(ctx context.Context) error {
		infos, err := t.Host.Stat(ctx, pki.KubeletConf, pki.KubeletClientCurrent)
		if err != nil {
			return err
		}
		for _, p := range []string{pki.KubeletClientCurrent, pki.KubeletConf} {
			if _, ok := infos[p]; !ok {
				return fmt.Errorf("it has not written %s: is the controller manager running, and does it sign?", p)
			}
		}
		return probe(ctx, t.Host, kubeletHealth, "/healthz")
	})
	if err != nil {
		return t.withJournal(ctx, "kubelet", err)
	}
	_, err = t.write(ctx, host.File{Path: pki.BootstrapKubeletConf, Absent: true})
	return err
}

const kubeletHealth = "127.0.0.1:10248"

// JoinCommand is what a worker runs, and what `kubeadm join` understands but for its first word.
func (t *Target) JoinCommand() string {
	return JoinCommand(t.server(), t.Token, t.Secrets.CAHashes())
}
