package phases

import (
	"context"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Furnish gives a machine everything of a bundle that nodes of any role are made of, and nothing of a
// cluster: of what is then on its disk an image of machines is made.
func Furnish(ctx context.Context, h host.Host, c *config.Cluster, b *bundle.Bundle, report func(Event)) error {
	facts, err := Facts(ctx, h)
	if err != nil {
		return err
	}
	journal, err := OpenJournal(ctx, h)
	if err != nil {
		return err
	}
	t := &Target{Cluster: c, Node: config.Node{Name: "image", Roles: []config.Role{config.ControlPlaneRole}}, Facts: facts, Host: h, Bundle: b, Journal: journal, Report: report, everything: true}
	return Run(ctx, prepare(), t, []string{"preflight", "ledger", "kernel"})
}
