package phases

import (
	"context"
	"fmt"
	"net"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// endpoint has the host know the name of the cluster's internal endpoint and, on a worker, what answers there.
// The kubelet starts later, and finds the name.
func endpoint(ctx context.Context, t *Target) error {
	if _, ok := t.Cluster.InternalEndpoint(); !ok {
		return nil
	}
	lines, err := manifests.HostsLines(t.Cluster, t.Node)
	if err != nil {
		return err
	}
	if err := t.writeLines(ctx, manifests.HostsFile, manifests.HostsMark, lines); err != nil {
		return err
	}
	if t.controlPlane() {
		return nil
	}
	files, err := manifests.HAProxy(t.Cluster, t.Node)
	if err != nil {
		return err
	}
	_, err = t.write(ctx, files...)
	return err
}

// joinEndpoint also imports what a host that joins could not know, before it knew the cluster, that it will run.
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
	if internal && !t.controlPlane() && t.Bundle != nil && t.engine() == containerd {
		image := t.Cluster.Spec.ControlPlane.LoadBalancer.Image
		if a, ok := t.Bundle.Find(image, t.Platform()); ok {
			if err := t.importImages(ctx, t.absent(ctx, []bundle.Artifact{a})); err != nil {
				return err
			}
		}
	}
	return endpoint(ctx, t)
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
