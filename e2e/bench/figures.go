package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

const documentPath = "/root/cluster.yaml"

// Without a bundle nobody says which CoreDNS is on the hosts; kubeadm is told as well.
var withoutBundle = "dns: {imageTag: " + lab.CoreDNSVersion + "}"

func kubewrightInit(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, []string{"bench-1"}, func(h []*lab.Host) (err error) {
		if err := h[0].Write(ctx, documentPath, 0o600, strings.NewReader(cluster.Document(withoutBundle))); err != nil {
			return err
		}
		seconds, err = timed(func() error {
			_, _, err := h[0].Exec(ctx, nil, lab.ToolDir+"/kubewright", "init", "--config", documentPath)
			return err
		})
		return err
	})
	return seconds, err
}

func kubeadmInit(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, []string{"bench-1"}, func(h []*lab.Host) (err error) {
		seconds, err = timed(func() error { return cluster.KubeadmInit(ctx, h[0], cluster.KubeadmConfig("")) })
		return err
	})
	return seconds, err
}

var clusterHosts = []string{"bench-1", "bench-2", "bench-3"}

func kubewrightCluster(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, clusterHosts, func(h []*lab.Host) (err error) {
		seconds, err = timed(func() error {
			return usable(ctx, h, func(ctx context.Context) error {
				_, err := cluster.Kubewright(ctx, h[0], h[1:], cluster.Options{Document: cluster.Document(withoutBundle)})
				return err
			})
		})
		return err
	})
	return seconds, err
}

func kubeadmCluster(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, clusterHosts, func(h []*lab.Host) (err error) {
		seconds, err = timed(func() error {
			return usable(ctx, h, func(ctx context.Context) error {
				_, err := cluster.Kubeadm(ctx, h[0], h[1:])
				return err
			})
		})
		return err
	})
	return seconds, err
}

// usable makes a cluster, and ends when its nodes are Ready and DNS answers from a pod on
// each worker. Those pods are made the moment the API can take them, while the cluster is
// still in the making, as a CI job would that cannot wait; they find their node as any pod does.
func usable(ctx context.Context, hosts []*lab.Host, build func(context.Context) error) error {
	return usableOnce(ctx, func(context.Context) ([]*lab.Host, error) { return hosts, nil }, build)
}

// usableOnce is usable where build makes the hosts, too. Of a cluster without workers, DNS answers a pod on the control plane.
func usableOnce(ctx context.Context, found func(context.Context) ([]*lab.Host, error), build func(context.Context) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return build(gctx) })
	g.Go(func() error {
		hosts, err := found(gctx)
		if err != nil {
			return err
		}
		c, err := cluster.WaitAPI(gctx, hosts[0], hosts[1:])
		if err != nil {
			return err
		}
		if len(hosts) == 1 {
			c.Workers = hosts
		}
		pods, err := c.CreateDNSPods(gctx)
		if err != nil {
			return err
		}
		if err := c.WaitNodes(gctx); err != nil {
			return err
		}
		return pods.Wait(gctx)
	})
	return g.Wait()
}

// noop is a second init on a control plane that has come to rest.
func noop(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, []string{"bench-1"}, func(h []*lab.Host) (err error) {
		c, err := cluster.Kubewright(ctx, h[0], nil, cluster.Options{Document: cluster.Document(""), Args: cluster.Bundle})
		if err != nil {
			return err
		}
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
		seconds, err = timed(func() error {
			_, _, err := h[0].Exec(ctx, nil, append([]string{lab.ToolDir + "/kubewright", "init", "--config", documentPath}, cluster.Bundle...)...)
			return err
		})
		return err
	})
	return seconds, err
}

// verifySeconds is `kubewright verify` on a cluster that has come to rest, with the cleaning up.
func verifySeconds(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = fresh(ctx, l, clusterHosts, func(h []*lab.Host) (err error) {
		c, err := cluster.Kubewright(ctx, h[0], h[1:], cluster.Options{Document: cluster.Document(""), Args: cluster.Bundle})
		if err != nil {
			return err
		}
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
		seconds, err = timed(func() error {
			out, stderr, err := h[0].Exec(ctx, nil, lab.ToolDir+"/kubewright", "verify")
			if err != nil {
				err = fmt.Errorf("%w\n%s%s", err, out, stderr)
			}
			return err
		})
		return err
	})
	return seconds, err
}

// initMemory is the largest that init ever was, in its most expensive form: a bare host
// and a bundle, so that it verifies, copies and imports everything.
func initMemory(ctx context.Context, l *lab.Lab) (float64, error) {
	h, err := l.Host(ctx, "bench-bare", lab.HostOptions{})
	if err != nil {
		return 0, err
	}
	defer h.Remove(context.WithoutCancel(ctx))
	if err := h.Write(ctx, documentPath, 0o600, strings.NewReader(cluster.Document(withoutBundle))); err != nil {
		return 0, err
	}
	if _, err := l.Tool(ctx, "e2e/cmd/maxrss"); err != nil {
		return 0, err
	}
	out, stderr, err := h.Exec(ctx, nil, lab.ToolDir+"/maxrss", lab.ToolDir+"/kubewright", "init", "--config", documentPath, "--bundle", lab.BundleDir)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, stderr)
	}
	return maxRSS(out)
}

func binarySize(ctx context.Context, l *lab.Lab) (float64, error) {
	path, err := l.Kubewright(ctx)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	return float64(info.Size()) / 1e6, nil
}
