package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
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
	controlPlane   bool
	bindPort       int32
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
		Use:   "join [HOST:PORT]",
		Short: "Make this host a worker or a control plane of a cluster",
		Long: `Make this host a worker, or with --control-plane a further control plane, of a cluster
that kubewright or kubeadm made.

The cluster is believed when cluster-info is signed with the token and holds a CA with
one of the given hashes; or it is the one that a discovery file names. A cluster that does
not answer yet is waited for, while this host is being prepared; where it lacks something that no
--bundle brings, the cluster says what, and comes first.

A control plane needs the key that "kubewright init --upload-certs" printed, and a cluster
that was made with --control-plane-endpoint.

--config takes kubeadm's JoinConfiguration. A field that kubewright does not honour is an error.

Phases, each also as "kubewright join phase NAME HOST:PORT":
` + describePhases(phases.Join()) + `
Phases with --control-plane:
` + describePhases(phases.JoinControlPlane()),
		Example: `  kubewright join 192.0.2.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:HEX --bundle /mnt/bundle
  kubewright join api.example.org:6443 --control-plane --certificate-key-file key --token-file token --discovery-token-ca-cert-hash sha256:HEX
  kubewright join --discovery-file cluster.conf --token-file token --bundle /mnt/bundle
  kubewright join --config kubeadm.yaml --bundle /mnt/bundle`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errNoServer
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args, nil) },
	}
	o.flags(cmd.PersistentFlags())
	f := cmd.PersistentFlags()
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's CA; more than one may be given")
	f.BoolVar(&o.unsafe, "discovery-token-unsafe-skip-ca-verification", false, "believe whoever knows the token: anyone who does can pose as the cluster")
	f.StringVar(&o.config, "config", "", "file with a JoinConfiguration of kubeadm; - is standard input")
	f.StringVar(&o.file, "discovery-file", "", "kubeconfig, a path or an https URL, that names the cluster; its credentials are used unless there is a token")
	f.StringVar(&o.discoveryToken, "discovery-token", "", "token by which the cluster is known (default: that of --token)")
	f.StringVar(&o.tlsToken, "tls-bootstrap-token", "", "token with which the kubelet's certificate is asked for (default: that of --token)")
	f.BoolVar(&o.controlPlane, "control-plane", false, "make this host a control plane")
	f.Int32Var(&o.bindPort, "apiserver-bind-port", 0, "port of this control plane's API server (default: the cluster's)")
	must(cmd.MarkPersistentFlagFilename("config", "yaml", "yml", "json"))
	must(cmd.MarkPersistentFlagFilename("discovery-file"))
	must(cmd.MarkPersistentFlagDirname("cache-dir"))
	must(cmd.MarkPersistentFlagDirname("patches"))
	addPhases(cmd, "HOST:PORT", joinPhases(), func(cmd *cobra.Command, list []phases.Phase, args []string) error {
		return o.run(cmd.Context(), args, list)
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

// pick are the chosen phases as the host's role has them; nil chooses all.
func (o *joinOptions) pick(chosen []phases.Phase) ([]phases.Phase, error) {
	if chosen == nil {
		return o.list(), nil
	}
	var picked []phases.Phase
	for _, p := range chosen {
		picked = append(picked, phases.Select(o.list(), p.Name)...)
	}
	if len(picked) == 0 {
		return nil, fmt.Errorf("phase %s is not one of this join: its phases are %s; control planes join with --control-plane", chosen[0].Name, strings.Join(phases.Names(o.list()), ", "))
	}
	return picked, nil
}

// joinInputs are what the user wrote.
type joinInputs struct {
	list  []phases.Phase
	how   phases.DiscoverOptions
	where string // the cluster, for people
	key   addons.CertificateKey
}

func (o *joinOptions) inputs(ctx context.Context, args []string, chosen []phases.Phase) (in joinInputs, err error) {
	if err := phases.CheckIgnore(o.ignore); err != nil { // as init
		return in, err
	}
	found, err := o.find(args)
	if err != nil {
		return in, err
	}
	if in.list, err = o.pick(chosen); err != nil {
		return in, err
	}
	if err := phases.CheckSkip(in.list, o.skip); err != nil {
		return in, err
	}
	if in.key, err = o.readKey(); err != nil {
		return in, err
	}
	if !o.controlPlane && (in.key != (addons.CertificateKey{}) || o.bindPort != 0) {
		return in, errors.New("--certificate-key and --apiserver-bind-port are for control planes: add --control-plane, or leave them out")
	}
	if err := addons.CheckPins(found.Pins); err != nil {
		return in, fmt.Errorf("--discovery-token-ca-cert-hash, or caCertHashes: %w", err)
	}
	in.how, err = discoverOptions(ctx, found)
	in.where = cmp.Or(in.how.Endpoint, "the cluster of "+found.File)
	return in, err
}

func (o *joinOptions) run(ctx context.Context, args []string, chosen []phases.Phase) error {
	in, err := o.inputs(ctx, args, chosen)
	if err != nil {
		return misuse(err)
	}
	return o.hostOptions.run(ctx, "join", func(ctx context.Context, t *phases.Target) error { return o.on(ctx, t, in) })
}

// acquireAs finds what this host is made of in the cluster that it joins, and completes its document with
// what is said there.
func (o *joinOptions) acquireAs(ctx context.Context, t *phases.Target, document *config.Cluster, role config.Role) error {
	d, err := t.Discover(ctx)
	if err != nil {
		return err
	}
	c := *d.Cluster
	c.Spec.Artifacts = c.Spec.Artifacts.Clone()
	if err := o.apply(&c.Spec.Artifacts); err != nil {
		return misuse(err)
	}
	if err := o.acquire(ctx, t, &c, d.Lock); err != nil {
		return err
	}
	document.Spec.KubernetesVersion, document.Spec.ImageRepository = c.Spec.KubernetesVersion, c.Spec.ImageRepository
	document.Spec.Runtime.SandboxImage = c.Spec.Runtime.SandboxImage
	return o.complete(document, t, role)
}

// on runs phases on a host.
func (o *joinOptions) on(ctx context.Context, t *phases.Target, in joinInputs) error {
	view := newView(o.out())
	defer view.close()
	role := config.WorkerRole
	if o.controlPlane {
		role = config.ControlPlaneRole
	}
	document := func() *config.Cluster {
		c := &config.Cluster{Spec: config.Spec{Timeouts: o.timeouts}}
		c.Spec.ControlPlane.BindPort = o.bindPort
		return c
	}
	if err := o.complete(document(), t, role); err != nil {
		return err
	}
	t.BindPort, t.Admit = o.bindPort, phases.Admit(in.key)
	t.Report = view.event
	in.how.Timeouts, in.how.Timeout = o.timeouts, t.Cluster.Spec.Timeouts.Discovery.Duration
	in.how.Waiting = func(err error) {
		view.event(phases.Event{Time: time.Now(), Host: t.Node.Name, Phase: "discovery", State: phases.Notice, Message: fmt.Sprintf("waiting for %s: %v", in.where, err)})
	}
	t.Discover, t.Artifacts = phases.Discover(t.Host, in.how), o.apply
	if acquires, err := o.acquires(ctx, t, in.list); err != nil {
		return err
	} else if acquires {
		if err := o.acquireAs(ctx, t, document(), role); err != nil {
			return err
		}
	}
	o.tellLock(t)
	done, err := o.runOrPlan(ctx, in.list, t, view)
	if err != nil || !done {
		return err
	}
	view.close()
	if len(in.list) != len(o.list()) {
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
