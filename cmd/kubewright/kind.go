package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers"
)

// kindOptions say which containers are made, where no document does.
type kindOptions struct {
	provider               string
	name                   string
	controlPlanes, workers int
	image, kubernetes, cni string
	retain                 bool
	ttl                    time.Duration
	logs                   string
	wait                   time.Duration

	makes    bool            // the command makes machines
	ends     bool            // the command takes them away: a name is enough, whoever made them
	hasty    bool            // machines that boot are not waited for
	set      *pflag.FlagSet  // of the command
	lib      *providers.Kind // once it was asked for
	made     bool            // this run has made the containers
	exported bool            // and has put the cluster into the kubeconfig
	expires  time.Time       // by --ttl
	finish   func() error    // waits for what makes them
	cluster  *config.Cluster // of containers that are there
	say      func(format string, args ...any)
}

// Names of flags that mean nothing for hosts that are there.
var kindFlags = []string{"name", "control-planes", "workers", "image", "kubernetes-version", "cni", "retain", "ttl", "wait", "logs"}

// nameFlags are those of whoever finds a cluster.
func (o *kindOptions) nameFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.set = f
	f.StringVar(&o.provider, "provider", "", "where machines come from, where the document does not say: hosts (they are there), kind (containers); aws (EC2) has to be in a document")
	f.StringVar(&o.name, "name", "", "of the cluster of containers (default: $KIND_CLUSTER_NAME, that of the document, kind)")
	must(cmd.RegisterFlagCompletionFunc("name", o.names))
	must(cmd.RegisterFlagCompletionFunc("provider", cobra.FixedCompletions([]string{"hosts", "kind", "aws"}, cobra.ShellCompDirectiveNoFileComp)))
}

// names completes those of the clusters of containers that are there.
func (o *kindOptions) names(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if k, err := o.open(cmd.Context()); err == nil {
		names, _ = k.Clusters(cmd.Context())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// flags are those of whoever makes it.
func (o *kindOptions) flags(cmd *cobra.Command) {
	o.nameFlags(cmd)
	o.makes = true
	f := cmd.Flags()
	f.IntVar(&o.controlPlanes, "control-planes", 0, "containers that are control planes (default 1)")
	f.IntVar(&o.workers, "workers", 0, "containers that are workers (default 0)")
	f.StringVar(&o.image, "image", "", `of the containers, by "kubewright build node-image" or by kind (default: kind's own)`)
	f.StringVar(&o.kubernetes, "kubernetes-version", "", "version of Kubernetes, which the image has to have (default: the image's)")
	f.StringVar(&o.cni, "cni", "", "pod network of a cluster of containers (default flannel)")
	must(cmd.RegisterFlagCompletionFunc("cni", cobra.FixedCompletions(config.CNIs, cobra.ShellCompDirectiveNoFileComp)))
	f.BoolVar(&o.retain, "retain", false, "keep the containers of a cluster that could not be made")
	f.StringVar(&o.logs, "logs", "", `new or empty folder for what "kubewright logs" collects, if the cluster of containers can't be made (default: none; in CI, where $CI is set, kubewright-logs-NAME)`)
	must(cmd.MarkFlagDirname("logs"))
	f.DurationVar(&o.wait, "wait", 4*time.Minute, "how long nodes, pod network and DNS of a cluster of containers may each take to be ready; 0: nobody waits for them")
	f.DurationVar(&o.ttl, "ttl", 0, `time after which "kubewright down --expired" removes the cluster of containers (default: never)`)
}

// unused refuses flags that would mean nothing.
func (o *kindOptions) unused() error {
	if o.set == nil {
		return nil
	}
	for _, name := range kindFlags {
		if f := o.set.Lookup(name); f != nil && f.Changed {
			return fmt.Errorf("--%s is for clusters of containers: add --provider kind, or leave it out", name)
		}
	}
	return nil
}

// changed tells whether somebody gave a flag, which the command may not have.
func (o *kindOptions) changed(name string) bool { return o.set != nil && o.set.Changed(name) }

// complete adds what the flags say to a document; without one, to that of the cluster that is there.
func (o *kindOptions) complete(ctx context.Context, c *config.Cluster, file string) (*config.Cluster, error) {
	if o.changed("name") && o.name == "" {
		return nil, errors.New("--name is empty: write a name, or leave it out")
	}
	c.Metadata.Name = cmp.Or(o.name, os.Getenv("KIND_CLUSTER_NAME"), c.Metadata.Name, "kind")
	if file == "" && !o.ends {
		k, err := o.open(ctx)
		switch {
		case err != nil && o.makes: // told when they are to be made
		case err != nil:
			return nil, err
		case !o.makes:
			return k.Document(ctx, c.Metadata.Name)
		default:
			was, err := k.Remembered(ctx, c.Metadata.Name)
			if err != nil {
				return nil, err
			}
			if was != nil {
				c, was.Spec.Hosts = was, nil // they follow from its nodes
			}
		}
	}
	if o.changed("control-planes") && o.controlPlanes == 0 {
		return nil, errors.New("--control-planes 0: a cluster has one at least: write 1, or leave it out")
	}
	p := &c.Spec.Provider.Kind
	set(&c.Spec.KubernetesVersion, o.kubernetes)
	set(&c.Spec.Network.CNI.Name, o.cni)
	if o.wait > 0 && o.changed("wait") {
		t := &c.Spec.Timeouts
		t.KubeletHealthCheck.Duration, t.ControlPlaneComponentHealthCheck.Duration = o.wait, o.wait
	}
	if o.image != "" { // of all nodes, as for kind
		p.Image = o.image
		for i := range p.Nodes {
			p.Nodes[i].Image = o.image
		}
	}
	if o.wait < 0 {
		return nil, errors.New("--wait: write how long the cluster may take, 4m, say, or 0")
	}
	if o.ttl < 0 {
		return nil, errors.New("--ttl: write how long the cluster is to live, 2h, say")
	}
	if o.controlPlanes < 0 || o.workers < 0 {
		return nil, errors.New("--control-planes and --workers: fewer than none are not made")
	}
	if file == "" {
		o.recount(p)
	} else {
		p.ControlPlanes, p.Workers = cmp.Or(o.controlPlanes, p.ControlPlanes), cmp.Or(o.workers, p.Workers)
	}
	if err := providers.KindHosts(c); err != nil {
		return nil, err
	}
	providers.InContainers(c)
	return c, nil
}

// recount has as many nodes as the flags say; those that are there already stay as they are while there are as many.
func (o *kindOptions) recount(p *config.KindProvider) {
	planes, workers := 0, 0
	for _, n := range p.Nodes {
		if n.Role == config.ControlPlaneRole {
			planes++
		} else {
			workers++
		}
	}
	p.ControlPlanes, p.Workers = cmp.Or(o.controlPlanes, planes), workers
	if o.changed("workers") {
		p.Workers = o.workers
	}
	if len(p.Nodes) == 0 || p.ControlPlanes != planes || p.Workers != workers {
		p.Nodes = nil
		return
	}
	p.ControlPlanes, p.Workers = 0, 0
}

// foresee tells what is wrong with a document of which containers are to be made, as far as they need not be there.
func (o *kindOptions) foresee(ctx context.Context, c *config.Cluster, file string) error {
	c, err := o.complete(ctx, c, file)
	if err != nil {
		return err
	}
	if err := providers.KindImages(c); err != nil {
		return err
	}
	if err := providers.KindForesee(c); err != nil {
		return err
	}
	c.Default(config.Versions{})
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%s is not valid: %w", cmp.Or(file, "the document"), err)
	}
	return nil
}

// machines are the containers; up makes them.
func (o *kindOptions) machines(ctx context.Context, c *config.Cluster, command string) ([]*phases.Machine, error) {
	if command == "up" {
		if err := providers.KindImages(c); err != nil {
			return nil, misuse(err)
		}
	}
	k, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	k.Impatient = o.hasty
	if command == "up" {
		if o.say != nil {
			k.Say = o.say
		}
		if o.ttl > 0 {
			o.expires = time.Now().Add(o.ttl).UTC().Truncate(time.Second)
		}
		o.made, o.finish, err = k.Create(ctx, c, o.expires)
		if o.made || err == nil {
			o.cluster = c
		}
		if err != nil {
			return nil, err
		}
	}
	return k.Machines(ctx, c)
}

// remember has the cluster keep a document that was not refused.
func (o *kindOptions) remember(ctx context.Context, c *config.Cluster) error {
	if o.lib == nil {
		return nil
	}
	return o.lib.Remember(ctx, c)
}

// ends says when the time of a cluster is over.
func ends(at time.Time) string {
	return fmt.Sprintf("the cluster's time is over at %s: `kubewright down --expired` removes it then", at.Local().Format("2006-01-02 15:04:05 MST"))
}

// open finds the engine, once.
func (o *kindOptions) open(ctx context.Context) (k *providers.Kind, err error) {
	if o.lib == nil {
		o.lib, err = providers.NewKind(ctx)
	}
	return o.lib, err
}

// tidy is what is left to do when up has failed: logs are collected where that is wished, and containers that it has made itself are removed. Those that
// were there stay.
func (o *fleetOptions) tidy(ctx context.Context, failure error, kubeconfig string) error {
	if failure == nil || o.kind.cluster == nil {
		return failure
	}
	if err := o.kind.finish(); err != nil && ctx.Err() == nil && !errors.Is(failure, err) { // Ctrl-C ends kind's commands, too
		failure = errors.Join(err, failure)
	}
	if ctx.Err() == nil {
		o.logsOf(ctx, o.kind.cluster)
	}
	if !o.kind.made {
		return failure
	}
	name := o.kind.cluster.Metadata.Name
	interrupted := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	k, err := o.kind.open(ctx)
	if err != nil {
		return errors.Join(failure, err)
	}
	next := fmt.Sprintf("`kubewright down --provider kind --name %s`", name)
	if o.kind.retain {
		return fmt.Errorf("%w\nits containers are kept: run this again to go on, or remove them with %s", failure, next)
	}
	fmt.Fprintln(os.Stderr, "removing the containers of the cluster that could not be made")
	k.Say = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) } // the view is closed
	if !o.kind.exported {
		kubeconfig = "none"
	}
	if _, err := k.Delete(ctx, name, kubeconfig); err != nil {
		return fmt.Errorf("%w\nits containers could not be removed: %w: remove them with %s", failure, err, next)
	}
	switch {
	case !interrupted:
		return fmt.Errorf("%w\nits containers were removed: --retain keeps them", failure)
	case failure.Error() == context.Canceled.Error():
		return errInterruptedAndRemoved
	}
	return fmt.Errorf("%w\n%w", failure, errInterruptedAndRemoved)
}

var errInterruptedAndRemoved = errors.New("interrupted: the containers were removed (--retain keeps them): run the same command again to begin anew")

// removeKind removes a cluster of containers, or all whose time is over.
func (o *fleetOptions) removeKind(ctx context.Context, v *view, names []string, kubeconfig string) (removed int, err error) {
	k, err := o.kind.open(ctx)
	if err != nil {
		return 0, err
	}
	k.Say = sayMachines(v, phases.Notice)
	counts, failures := make([]int, len(names)), make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(2) // one engine does it all, and has a minute for each
	for i, name := range names {
		g.Go(func() error {
			n, err := k.Delete(ctx, name, kubeconfig)
			if counts[i] = n; err != nil {
				failures[i] = fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	g.Wait()
	for _, n := range counts {
		removed += n
	}
	return removed, errors.Join(failures...)
}

// runExpired removes the clusters whose time is over.
func (o *fleetOptions) runExpired(ctx context.Context, kubeconfig string) error {
	begin := time.Now()
	v := newView(o.out())
	defer v.close()
	k, err := o.kind.open(ctx)
	if err != nil {
		return err
	}
	names, err := k.Expired(ctx, begin)
	if err != nil {
		return err
	}
	removed, err := o.removeKind(ctx, v, names, kubeconfig)
	if err != nil {
		return err
	}
	said := "no cluster is expired"
	if len(names) > 0 {
		said = strings.Join(names, ", ") + " had expired, and is no more"
	}
	return o.done(v, fleetResult{Kind: "Down", Cluster: strings.Join(names, ","), Changes: removed, Seconds: time.Since(begin).Seconds()}, said)
}

// export puts the cluster into the user's kubeconfig, and returns the name of its context.
func (o *fleetOptions) export(ctx context.Context, kubeconfig string, u *phases.Up) (string, error) {
	server, as := "", mergeOptions{name: u.Cluster.Metadata.Name}
	if u.Cluster.Spec.Provider.Name == "kind" {
		k, err := o.kind.open(ctx)
		if err != nil {
			return "", err
		}
		o.kind.exported = true
		server, as = k.Server, mergeOptions{name: "kind-" + as.name, overwrite: true} // kind looks at no entry of that name, either
		if server == "" {
			return as.name, k.Export(ctx, u.Cluster.Metadata.Name, kubeconfig)
		}
	}
	path, err := kubeconfigOf(u.Cluster, kubeconfig)
	if err != nil {
		return "", err
	}
	b, err := u.AdminConfig(ctx)
	if err != nil {
		return "", err
	}
	return as.name, mergeAdmin(ctx, path, b, server, as)
}
