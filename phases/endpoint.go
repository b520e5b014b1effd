package phases

import (
	"context"
	"fmt"
	"net"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// endpoint has the host know the name of the cluster's internal endpoint. The kubelet starts later, and finds it.
func endpoint(ctx context.Context, t *Target) error {
	lines, err := manifests.HostsLines(t.Cluster, t.Node)
	if err != nil || lines == nil {
		return err
	}
	kept, unit := manifests.HostsKept(lines)
	if _, err := t.write(ctx, kept); err != nil {
		return err
	}
	if err := t.writeUnits(ctx, []host.File{unit}); err != nil {
		return err
	}
	return t.writeLines(ctx, manifests.HostsFile, manifests.HostsMark, lines)
}

func joinEndpoint(ctx context.Context, t *Target) error {
	port := t.BindPort
	t, d, err := t.joined(ctx)
	if err != nil {
		return err
	}
	_, internal := t.Cluster.InternalEndpoint()
	if all := d.Cluster.Spec.ControlPlane.BindPort; internal && port != 0 && port != all {
		return fmt.Errorf("--apiserver-bind-port %d: the hosts of this cluster look for every API server at port %d: leave it out", port, all)
	}
	return endpoint(ctx, t)
}

// loadBalancer has a worker run what answers at an internal endpoint. A host that joins alone learns only from the
// cluster that it needs the image.
func loadBalancer(ctx context.Context, t *Target) error {
	t, _, err := t.joined(ctx)
	if err != nil || !t.runsLoadBalancer() {
		return err
	}
	if t.Bundle != nil && t.engine() == containerd {
		if a, ok := t.Bundle.Find(t.Cluster.Spec.ControlPlane.LoadBalancer.Image, t.Platform()); ok {
			if err := t.importImages(ctx, t.absent(ctx, []bundle.Artifact{a})); err != nil {
				return err
			}
		}
	}
	files, err := manifests.HAProxy(t.Cluster, t.Node)
	if err != nil {
		return err
	}
	_, err = t.write(ctx, files...)
	return err
}

// runsLoadBalancer tells whether this host will, as far as is known of its cluster.
func (t *Target) runsLoadBalancer() bool {
	_, ok := t.Cluster.InternalEndpoint()
	return ok && !t.controlPlane()
}

// through leads to an address where its host does not know the name that stands for it.
type through struct {
	host.Host
	name, address string // HOST:PORT
}

func (h through) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr == h.name {
		addr = h.address
	}
	return h.Host.Dial(ctx, network, addr)
}
