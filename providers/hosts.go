package providers

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
)

// Hosts are the machines that a document lists. They are there, and reached over SSH; all
// are connected to, at some at a time. One that cannot be reached says why in its Err.
func Hosts(ctx context.Context, c *config.Cluster, client *ssh.Client) []*phases.Machine {
	machines := make([]*phases.Machine, len(c.Spec.Hosts))
	var g errgroup.Group
	g.SetLimit(phases.AtATime)
	for i, n := range c.Spec.Hosts {
		m := &phases.Machine{Node: n}
		machines[i] = m
		g.Go(func() error {
			var to config.SSH
			if n.SSH != nil {
				to = *n.SSH
			}
			if to.Address == "" {
				to.Address = n.Address
			}
			t, err := client.Connect(ctx, n.Name, to)
			if err != nil {
				m.Err = err
				return nil
			}
			m.Host = host.NewRemote(t)
			return nil
		})
	}
	g.Wait()
	return machines
}
