package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/e2e/lab"
)

// KubeadmPath is where kubeadm is on hosts that have it.
const KubeadmPath = "/usr/local/bin/kubeadm"

// KubeadmToken is a fixed one, so that no output has to be parsed.
const KubeadmToken = "abcdef.0123456789abcdef"

// KubeadmConfig is the same wish as [Document], in kubeadm's words. Extra documents may follow.
func KubeadmConfig(extra string) string {
	return `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {criSocket: "unix:///run/containerd/containerd.sock", imagePullPolicy: IfNotPresent}
bootstrapTokens: [{token: ` + KubeadmToken + `}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: ` + lab.KubernetesVersion + `
networking: {podSubnet: 10.244.0.0/16}
dns: {imageTag: ` + lab.CoreDNSVersion + `}
` + extra + `
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration` + kubelet + `---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration` + kubeProxy
}

// Preflight checks that no lab host passes: cgroup v1, and the module "configs".
const ignored = "--ignore-preflight-errors=SystemVerification"

// KubeadmInit runs the real kubeadm init, with further flags.
func KubeadmInit(ctx context.Context, h *lab.Host, config string, argv ...string) error {
	if err := h.Write(ctx, "/root/kubeadm.yaml", 0o600, strings.NewReader(config)); err != nil {
		return err
	}
	_, _, err := h.Exec(ctx, nil, append([]string{KubeadmPath, "init", "--config", "/root/kubeadm.yaml", ignored}, argv...)...)
	return err
}

// KubeadmJoin runs the real kubeadm join of a worker.
func KubeadmJoin(ctx context.Context, h *lab.Host, argv ...string) error {
	_, _, err := h.Exec(ctx, nil, append(append([]string{KubeadmPath, "join"}, argv...), ignored)...)
	return err
}

// Kubeadm makes a cluster by the best recipe there is: init, apply flannel, both joins at once.
func Kubeadm(ctx context.Context, controlPlane *lab.Host, workers []*lab.Host) (*Cluster, error) {
	if err := KubeadmInit(ctx, controlPlane, KubeadmConfig("")); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return applyFlannel(gctx, controlPlane) })
	for _, w := range workers {
		g.Go(func() error {
			return KubeadmJoin(gctx, w, controlPlane.IP+":6443", "--token", KubeadmToken, "--discovery-token-unsafe-skip-ca-verification")
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, controlPlane)
	if err != nil {
		return nil, err
	}
	c.Workers = workers
	return c, nil
}

// applyFlannel applies flannel's own manifest, unchanged.
func applyFlannel(ctx context.Context, controlPlane *lab.Host) error {
	manifest, err := FlannelManifest(ctx)
	if err != nil {
		return err
	}
	_, _, err = controlPlane.Exec(ctx, strings.NewReader(string(manifest)), "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "-f", "-")
	return err
}

// FlannelManifest is upstream's, from the module that the lab builds flannel of.
func FlannelManifest(ctx context.Context) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", "github.com/flannel-io/flannel@"+lab.FlannelVersion).Output()
	if err != nil {
		return nil, fmt.Errorf("find flannel's manifest: %w", err)
	}
	_, rest, _ := strings.Cut(string(out), `"Dir": "`)
	dir, _, _ := strings.Cut(rest, `"`)
	return os.ReadFile(filepath.Join(dir, "Documentation/kube-flannel.yml"))
}
