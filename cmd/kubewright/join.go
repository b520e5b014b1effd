package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

type joinOptions struct {
	hostOptions
	pins   []string
	unsafe bool
}

func newJoin(out func() output) *cobra.Command {
	o := &joinOptions{hostOptions: hostOptions{out: out}}
	cmd := &cobra.Command{
		Use:   "join HOST:PORT",
		Short: "Make this host a worker of a cluster",
		Long: `Make this host a worker of a cluster that kubewright or kubeadm made.

The cluster is believed when cluster-info is signed with the token and holds a CA with
one of the given hashes. A cluster that does not answer yet is waited for, while this
host is being prepared.

Phases, each also as "kubewright join phase NAME HOST:PORT":
` + describePhases(phases.Join()),
		Example: `  kubewright join 192.0.2.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:HEX --bundle /mnt/bundle`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the API server: kubewright join HOST:PORT --token TOKEN --discovery-token-ca-cert-hash sha256:HEX")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], phases.Join()) },
	}
	o.flags(cmd.PersistentFlags())
	f := cmd.PersistentFlags()
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's CA; more than one may be given")
	f.BoolVar(&o.unsafe, "discovery-token-unsafe-skip-ca-verification", false, "believe whoever knows the token: anyone who does can pose as the cluster")
	must(cmd.MarkPersistentFlagDirname("bundle"))
	must(cmd.MarkPersistentFlagDirname("patches"))
	addPhases(cmd, "HOST:PORT", phases.Join(), func(cmd *cobra.Command, list []phases.Phase, args []string) error {
		return o.run(cmd.Context(), args[0], list)
	})
	completePhases(cmd, phases.Join())
	return cmd
}

func (o *joinOptions) run(ctx context.Context, endpoint string, list []phases.Phase) error {
	endpoint, token, err := o.inputs(endpoint, list)
	if err != nil {
		return misuse(err)
	}
	return o.hostOptions.run(ctx, "join", func(ctx context.Context, t *phases.Target) error {
		return o.on(ctx, t, endpoint, token, list)
	})
}

// inputs are what the user wrote; of the endpoint, HOST:PORT.
func (o *joinOptions) inputs(endpoint string, list []phases.Phase) (hostPort string, token addons.Token, err error) {
	if err := phases.CheckSkip(list, o.skip); err != nil {
		return "", token, err
	}
	if token, err = o.readToken(); err != nil {
		return "", token, err
	}
	if token == (addons.Token{}) {
		return "", token, errors.New("join needs a bootstrap token: --token or --token-file; print a whole command on a control plane with `kubewright token create --print-join-command`")
	}
	if len(o.pins) == 0 && !o.unsafe {
		return "", token, errors.New("join needs --discovery-token-ca-cert-hash sha256:HEX, by which it knows the cluster; print a whole command on a control plane with `kubewright token create --print-join-command`")
	}
	name, port, err := config.SplitEndpoint(endpoint, 6443)
	if err != nil {
		return "", token, fmt.Errorf("the API server's address: %w", err)
	}
	return net.JoinHostPort(name, strconv.Itoa(int(port))), token, nil
}

// on runs phases on a host.
func (o *joinOptions) on(ctx context.Context, t *phases.Target, endpoint string, token addons.Token, list []phases.Phase) error {
	view := newView(o.out())
	defer view.close()
	if err := o.complete(&config.Cluster{}, t, config.WorkerRole); err != nil {
		return err
	}
	t.Report = view.event
	t.Discover = phases.Discover(t.Host, phases.DiscoverOptions{
		Endpoint: endpoint, Token: token, Pins: o.pins, SkipCA: o.unsafe, Timeout: t.Cluster.Spec.Timeouts.Discovery.Duration,
		Waiting: func(err error) {
			view.event(phases.Event{Time: time.Now(), Host: t.Node.Name, Phase: "discovery", State: phases.Notice, Message: fmt.Sprintf("waiting for %s: %v", endpoint, err)})
		},
	})
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
