package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

type joinOptions struct {
	hostOptions
	pins         []string
	unsafe       bool
	controlPlane bool
	bindPort     int32
}

// list are the phases of the role that the host takes.
func (o *joinOptions) list() []phases.Phase {
	if o.controlPlane {
		return phases.JoinControlPlane()
	}
	return phases.Join()
}

func newJoin(out func() output) *cobra.Command {
	o := &joinOptions{hostOptions: hostOptions{out: out}}
	cmd := &cobra.Command{
		Use:   "join HOST:PORT",
		Short: "Make this host a worker or a control plane of a cluster",
		Long: `Make this host a worker, or with --control-plane a further control plane, of a cluster
that kubewright or kubeadm made.

The cluster is believed when cluster-info is signed with the token and holds a CA with
one of the given hashes. A cluster that does not answer yet is waited for, while this
host is being prepared.

A control plane needs the key that "kubewright init --upload-certs" printed, and a cluster
that was made with --control-plane-endpoint.

Phases, each also as "kubewright join phase NAME HOST:PORT":
` + describePhases(phases.Join()) + `
Phases with --control-plane:
` + describePhases(phases.JoinControlPlane()),
		Example: `  kubewright join 192.0.2.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:HEX --bundle /mnt/bundle
  kubewright join api.example.org:6443 --control-plane --certificate-key-file key --token-file token --discovery-token-ca-cert-hash sha256:HEX`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name the API server: kubewright join HOST:PORT --token TOKEN --discovery-token-ca-cert-hash sha256:HEX")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], o.list()) },
	}
	o.flags(cmd.PersistentFlags())
	f := cmd.PersistentFlags()
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's CA; more than one may be given")
	f.BoolVar(&o.unsafe, "discovery-token-unsafe-skip-ca-verification", false, "believe whoever knows the token: anyone who does can pose as the cluster")
	f.BoolVar(&o.controlPlane, "control-plane", false, "make this host a control plane")
	f.Int32Var(&o.bindPort, "apiserver-bind-port", 0, "port of this control plane's API server (default: the cluster's)")
	must(cmd.MarkPersistentFlagDirname("bundle"))
	must(cmd.MarkPersistentFlagDirname("patches"))
	addPhases(cmd, "HOST:PORT", joinPhases(), func(cmd *cobra.Command, list []phases.Phase, args []string) error {
		chosen, err := o.pick(list)
		if err != nil {
			return err
		}
		return o.run(cmd.Context(), args[0], chosen)
	})
	completePhases(cmd, joinPhases())
	return cmd
}

// joinPhases are those of both roles, each name once.
func joinPhases() []phases.Phase {
	all := phases.JoinControlPlane()
	for _, p := range phases.Join() {
		if len(phases.Select(all, p.Name)) == 0 {
			all = append(all, p)
		}
	}
	return all
}

// pick are the chosen phases as the host's role has them.
func (o *joinOptions) pick(chosen []phases.Phase) ([]phases.Phase, error) {
	var picked []phases.Phase
	for _, p := range chosen {
		picked = append(picked, phases.Select(o.list(), p.Name)...)
	}
	if len(picked) == 0 {
		return nil, fmt.Errorf("phase %s is not one of this join: its phases are %s; control planes join with --control-plane", chosen[0].Name, strings.Join(phases.Names(o.list()), ", "))
	}
	return picked, nil
}

func (o *joinOptions) run(ctx context.Context, endpoint string, list []phases.Phase) error {
	if err := phases.CheckSkip(list, o.skip); err != nil {
		return err
	}
	token, err := o.readToken()
	if err != nil {
		return err
	}
	if token == (addons.Token{}) {
		return errors.New("join needs a bootstrap token: --token or --token-file; print a whole command on a control plane with `kubewright token create --print-join-command`")
	}
	if len(o.pins) == 0 && !o.unsafe {
		return errors.New("join needs --discovery-token-ca-cert-hash sha256:HEX, by which it knows the cluster; print a whole command on a control plane with `kubewright token create --print-join-command`")
	}
	name, port, err := config.SplitEndpoint(endpoint, 6443)
	if err != nil {
		return fmt.Errorf("the API server's address: %w", err)
	}
	endpoint = net.JoinHostPort(name, strconv.Itoa(int(port)))
	key, err := o.readKey()
	if err != nil {
		return err
	}
	role := config.WorkerRole
	if o.controlPlane {
		role = config.ControlPlaneRole
	} else if key != (addons.CertificateKey{}) || o.bindPort != 0 {
		return errors.New("--certificate-key and --apiserver-bind-port are for control planes: add --control-plane, or leave them out")
	}
	view := newView(o.out())
	defer view.close()
	t, err := o.target(ctx)
	if err != nil {
		return err
	}
	document := &config.Cluster{}
	document.Spec.ControlPlane.BindPort = o.bindPort
	if err := o.complete(document, t, role); err != nil {
		return err
	}
	t.Token, t.BindPort, t.Admit = token, o.bindPort, phases.Admit(key)
	t.Report = view.event
	t.Discover = phases.Discover(t.Host, phases.DiscoverOptions{
		Endpoint: endpoint, Token: token, Pins: o.pins, SkipCA: o.unsafe, Timeout: t.Cluster.Spec.Timeouts.Discovery.Duration,
		Waiting: func(err error) {
			view.event(phases.Event{Time: time.Now(), Host: t.Node.Name, Phase: "discovery", State: phases.Notice, Message: fmt.Sprintf("waiting for %s: %v", endpoint, err)})
		},
	})
	if err := phases.Run(ctx, list, t, o.skip); err != nil {
		return err
	}
	view.close()
	if len(list) != len(o.list()) {
		return nil
	}
	if o.out() == "json" {
		view.result(struct {
			Kind string `json:"kind"`
			Node string `json:"node"`
		}{"Join", t.Node.Name})
		return nil
	}
	what := "node"
	if o.controlPlane {
		what = "control plane"
	}
	fmt.Printf("\n%s is a %s of the cluster. On a control plane: kubectl get nodes\n", t.Node.Name, what)
	return nil
}
