package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

func newReset(out func() output) *cobra.Command {
	o := &hostOptions{out: out}
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Take this host out of its cluster",
		Long: `Take this host out of its cluster, and bring it back to what it was before init or join:
files, units, sysctls, links, rules, cgroups. What they changed is in a journal in
/var/lib/kubewright; what somebody else has changed since is kept, and named.

On a node that kubeadm made there is no journal. There, pods, certificates, configuration,
etcd's data and the pod network's links, rules and state are removed; binaries, images and
the container runtime stay.

Phases:
` + describePhases(phases.Reset()),
		Example: "  kubewright reset\n  kubewright reset --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := phases.CheckSkip(phases.Reset(), o.skip); err != nil {
				return misuse(err)
			}
			if !yes && !o.dryRun {
				if err := confirm(cmd.Context(), "This removes all pods, certificates and etcd's data from this host."); err != nil {
					return err
				}
			}
			return o.reset(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVarP(&yes, "force", "f", false, "the same as --yes, under kubeadm's name")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change on this host and in the API, and change nothing")
	f.StringVar(&o.socket, "cri-socket", "", "socket of this host's container runtime (default: the only one found, else unix:///run/containerd/containerd.sock)")
	f.StringSliceVar(&o.skip, "skip-phases", nil, "phases to leave out")
	completePhases(cmd, phases.Reset())
	return cmd
}

func (o *hostOptions) reset(ctx context.Context) error {
	return o.run(ctx, "reset", func(ctx context.Context, t *phases.Target) error {
		view := newView(o.out())
		defer view.close()
		name, socket, err := phases.NodeOf(ctx, t.Host)
		if err != nil {
			return err
		}
		o.nodeName = name
		if o.socket = cmp.Or(o.socket, socket); o.socket == "" && len(t.Facts.Sockets) > 1 {
			return misuse(fmt.Errorf("several container runtimes are here (%s), and nothing says which one the pods are in: name it with --cri-socket", strings.Join(t.Facts.Sockets, ", ")))
		}
		if err := o.complete(&config.Cluster{}, t, config.WorkerRole); err != nil {
			return err
		}
		t.Report = view.event
		phases.OpenDoors(ctx, t)
		done, err := o.runOrPlan(ctx, phases.Reset(), t, view)
		if err != nil || !done {
			return err
		}
		view.close()
		if o.out() == "json" {
			view.result(struct {
				Kind string `json:"kind"`
				Node string `json:"node"`
			}{"Reset", t.Node.Name})
			return nil
		}
		fmt.Printf(resetDone, t.Node.Name)
		return nil
	})
}

const resetDone = `
%[1]s is out of its cluster. What was kept is said above; beside it there is left: /var/log, and contexts
in your own kubeconfig (kubewright kubeconfig remove NAME). A worker's Node goes with, from elsewhere:

  kubectl delete node %[1]s
`
