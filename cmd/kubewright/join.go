package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/phases"
)

type joinOptions struct {
	hostOptions
	pins           []string
	unsafe         bool
	file           string
	discoveryToken string
	tlsToken       string
	timeouts       config.Timeouts // of a JoinConfiguration
}

func newJoin(out func() output) *cobra.Command {
	o := &joinOptions{hostOptions: hostOptions{out: out}}
	cmd := &cobra.Command{
		Use:   "join [HOST:PORT]",
		Short: "Make this host a worker of a cluster",
		Long: `Make this host a worker of a cluster that kubewright or kubeadm made.

The cluster is believed when cluster-info is signed with the token and holds a CA with
one of the given hashes; or it is the one that a discovery file names. A cluster that does
not answer yet is waited for, while this host is being prepared.

--config takes kubeadm's JoinConfiguration. A field that kubewright does not honour is an error.

Phases, each also as "kubewright join phase NAME HOST:PORT":
` + describePhases(phases.Join()),
		Example: `  kubewright join 192.0.2.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:HEX --bundle /mnt/bundle
  kubewright join --discovery-file cluster.conf --token-file token --bundle /mnt/bundle
  kubewright join --config kubeadm.yaml --bundle /mnt/bundle`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errNoServer
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args, phases.Join()) },
	}
	o.flags(cmd.PersistentFlags())
	f := cmd.PersistentFlags()
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's CA; more than one may be given")
	f.BoolVar(&o.unsafe, "discovery-token-unsafe-skip-ca-verification", false, "believe whoever knows the token: anyone who does can pose as the cluster")
	f.StringVar(&o.config, "config", "", "file with a JoinConfiguration of kubeadm; - is standard input")
	f.StringVar(&o.file, "discovery-file", "", "kubeconfig, a path or an https URL, that names the cluster; its credentials are used unless there is a token")
	f.StringVar(&o.discoveryToken, "discovery-token", "", "token by which the cluster is known (default: that of --token)")
	f.StringVar(&o.tlsToken, "tls-bootstrap-token", "", "token with which the kubelet's certificate is asked for (default: that of --token)")
	must(cmd.MarkPersistentFlagFilename("config", "yaml", "yml", "json"))
	must(cmd.MarkPersistentFlagFilename("discovery-file"))
	must(cmd.MarkPersistentFlagDirname("bundle"))
	must(cmd.MarkPersistentFlagDirname("patches"))
	addPhases(cmd, "HOST:PORT", phases.Join(), func(cmd *cobra.Command, list []phases.Phase, args []string) error {
		return o.run(cmd.Context(), args, list)
	})
	completePhases(cmd, phases.Join())
	return cmd
}

func (o *joinOptions) run(ctx context.Context, args []string, list []phases.Phase) error {
	found, how, err := o.inputs(ctx, args, list)
	if err != nil {
		return misuse(err)
	}
	return o.hostOptions.run(ctx, "join", func(ctx context.Context, t *phases.Target) error {
		return o.on(ctx, t, cmp.Or(how.Endpoint, "the cluster of "+found.File), how, list)
	})
}

// inputs are what the user wrote.
func (o *joinOptions) inputs(ctx context.Context, args []string, list []phases.Phase) (found kubeadm.Discovery, how phases.DiscoverOptions, err error) {
	if found, err = o.find(args); err != nil {
		return found, how, err
	}
	if err := phases.CheckSkip(list, o.skip); err != nil {
		return found, how, err
	}
	how, err = discoverOptions(ctx, found)
	return found, how, err
}

// on runs phases on a host. Where is the cluster, for people.
func (o *joinOptions) on(ctx context.Context, t *phases.Target, where string, how phases.DiscoverOptions, list []phases.Phase) error {
	view := newView(o.out())
	defer view.close()
	if err := o.complete(&config.Cluster{Spec: config.Spec{Timeouts: o.timeouts}}, t, config.WorkerRole); err != nil {
		return err
	}
	t.Report = view.event
	how.Timeouts, how.Timeout = o.timeouts, t.Cluster.Spec.Timeouts.Discovery.Duration
	how.Waiting = func(err error) {
		view.event(phases.Event{Time: time.Now(), Host: t.Node.Name, Phase: "discovery", State: phases.Notice, Message: fmt.Sprintf("waiting for %s: %v", where, err)})
	}
	t.Discover = phases.Discover(t.Host, how)
	done, err := o.runOrPlan(ctx, list, t, view)
	if err != nil || !done {
		return err
	}
	view.close()
	if o.out() == "json" {
		view.result(struct {
			Kind string `json:"kind"`
			Node string `json:"node"`
		}{"Join", t.Node.Name})
		return nil
	}
	fmt.Printf("\n%s is a node of the cluster. On a control plane: kubectl get nodes\n", t.Node.Name)
	return nil
}
