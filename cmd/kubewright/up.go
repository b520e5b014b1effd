package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubewright/kubewright/phases"
)

func newUp(out func() output) *cobra.Command {
	o := &fleetOptions{out: out, again: true}
	var kubeconfig, plan, picture string
	cmd := &cobra.Command{
		Use:   "up -f FILE",
		Short: "Make a whole cluster, repair it or let it grow, over SSH, in containers or in EC2",
		Long: `Make the cluster of a document on the hosts that it lists, which are reached over SSH. Run it
again at any time: what is right stays untouched, what is missing or has drifted is mended, a host
that was added joins. Nothing has to be installed on the hosts; they need a POSIX sh, coreutils,
tar, systemd, util-linux, iproute2, and root or sudo.

With --provider kind there is nothing but this machine: containers are made for it, with kind's
library, and "kubewright down --provider kind" removes them. -f may be a configuration of kind's.

Where the document's provider is aws, the machines and what lies around them are made in EC2 first, and machines
of pools that have become smaller leave the cluster at the end; --only infrastructure makes no cluster.

A host that is down is reported, and does not hold up the others. A node that the document no longer
lists is reported and left alone: "kubewright remove" removes.`,
		Example: `  kubewright up -f cluster.yaml
  kubewright up -f cluster.yaml --bundle kubernetes.tar.zst --accept-new-host-keys
  kubewright up -f cluster.yaml --only worker-7
  kubewright up -f cluster.yaml --prepare
  kubewright up -f aws.yaml
  kubewright up -f aws.yaml --only infrastructure
  kubewright up --provider kind --name ci --workers 2
  kubewright up -f kind.yaml --ttl 2h`,
		Args: fileNotArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := o.within(cmd.Context(), func(ctx context.Context) error { return o.runUp(ctx, kubeconfig, plan, picture) })
			return o.tidy(cmd.Context(), err, kubeconfig)
		},
	}
	o.reachFlags(cmd)
	o.kind.flags(cmd)
	o.aws.makes = true
	o.changeFlags(cmd, phases.UpPhases())
	cmd.Flag("only").Usage += "; infrastructure: the machines of provider aws without a cluster"
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "your kubeconfig, to which the cluster is added under its name (default: $KUBECONFIG, else ~/.kube/config); none: leave it out")
	cmd.Flags().BoolVar(&o.prepare, "prepare", false, "go no further than where only the cluster is missing: the hosts get their container runtime, kubelet and images; whether they reach each other is looked at when they join")
	cmd.Flags().StringVar(&plan, "plan", "", `do exactly what this plan says, which "kubewright plan -o json" has printed, or nothing`)
	must(cmd.MarkFlagFilename("kubeconfig"))
	cmd.Flags().StringVar(&picture, "timeline", "", "draw the run into this file, .html or .svg")
	must(cmd.MarkFlagFilename("plan", "json"))
	must(cmd.MarkFlagFilename("timeline", "html", "svg"))
	return cmd
}

func (o *fleetOptions) runUp(ctx context.Context, kubeconfig, plan, picture string) error {
	begin := time.Now()
	if picture != "" {
		if err := checkPicture(picture); err != nil {
			return misuse(fmt.Errorf("--timeline: %w", err))
		}
	}
	v := newView(o.out())
	defer v.close()
	defer o.aws.close()
	o.kind.say = sayMachines(v, phases.Notice)
	defer o.aws.tell(v)()
	if c, only, err := o.onlyInfrastructure(); err != nil {
		return err
	} else if only {
		if err := o.infrastructureAlone(); err != nil {
			return err
		}
		return o.runInfrastructure(ctx, v, c, begin)
	}
	if err := o.foresee(ctx, kubeconfig, picture); err != nil {
		return err
	}
	var wanted *savedPlan
	if plan != "" {
		var err error
		if wanted, err = readPlan(plan); err != nil {
			return err
		}
		around, err := o.planAWS(ctx)
		if err != nil {
			return err
		} else if around.makes {
			return &phases.NotReadyError{Err: errPlanAWS}
		} else if err := wanted.fits(around); err != nil {
			return err
		}
		o.aws.makes = false // nothing that has come up since, and nobody is waited for
	}
	f, u, err := o.begin(ctx, "up", v)
	if err != nil {
		return err
	}
	defer f.close()
	if plan != "" {
		now, err := o.plan(ctx, f, u)
		if err != nil {
			return err
		}
		if err := wanted.same(now); err != nil {
			return err
		}
	}
	whole := len(o.only) == 0
	if whole && !o.prepare {
		if err := o.forgetLost(ctx, u); err != nil {
			return err
		}
	}
	if whole { // machines that are to go get nothing new
		u.Only = o.aws.staying(f.cluster)
	}
	runErr := u.Run(ctx)
	if !errors.As(runErr, new(*phases.NotReadyError)) && ctx.Err() == nil {
		if err := o.kind.remember(ctx, f.cluster); err != nil {
			runErr = errors.Join(runErr, err)
		}
	}
	if u.Only = o.only; runErr == nil && whole && !o.prepare {
		runErr = o.shrink(ctx, u)
	}
	if runErr == nil && o.kind.finish != nil {
		if runErr = o.kind.finish(); ctx.Err() != nil {
			runErr = context.Cause(ctx)
		}
	}
	if picture != "" && len(v.drawn) > 0 {
		if err := drawTimeline(picture, v.drawn); err != nil {
			runErr = errors.Join(runErr, fmt.Errorf("--timeline: %w", err))
		}
	}
	r := fleetResult{Kind: "Up", Cluster: f.cluster.Metadata.Name, kubeconfig: kubeconfig, Expires: o.kind.expires, Changes: u.Changes() + len(o.aws.changes), Seconds: time.Since(begin).Seconds()}
	if o.prepare {
		if runErr != nil {
			return runErr
		}
		return o.done(v, r, fmt.Sprintf("the hosts of %s are prepared", r.Cluster))
	}
	if kubeconfig != "none" && u.Answers(ctx) {
		if r.Context, err = o.export(ctx, kubeconfig, u); runErr == nil {
			runErr = err
		}
	}
	if runErr != nil {
		return runErr
	}
	if len(o.only) > 0 {
		return o.done(v, r, strings.Join(o.only, ", ")+" of "+r.Cluster+" is as the document has it")
	}
	return o.done(v, r, r.Cluster+" is up")
}

// mergeAdmin puts the cluster of an administrator's kubeconfig into the user's: at its own address, or at a HOST:PORT that leads there.
func mergeAdmin(ctx context.Context, path string, admin []byte, server string, as mergeOptions) error {
	from, err := source(admin, "")
	if err != nil {
		return err
	}
	for _, c := range from.Clusters {
		if server != "" {
			c.Server = "https://" + server
		}
	}
	_, err = editKubeconfig(ctx, path, 10*time.Second, func(e entries, have *api.Config) error {
		_, err := merge(e, have, from, as)
		return err
	})
	if err != nil {
		next := "name another file with --kubeconfig, or none"
		if other := (*strangerError)(nil); errors.As(err, &other) {
			next = fmt.Sprintf("if that one is no more, take it out with `kubewright kubeconfig remove %s` and run this again; else %s", other.name, next)
		}
		return fmt.Errorf("the cluster is up, but was not put into your kubeconfig: %w: %s", err, next)
	}
	return nil
}

// forgetServer takes a context out of the user's kubeconfig, if it leads to that server, HOST:PORT.
func forgetServer(ctx context.Context, path, name, server string) error {
	return forgetContext(ctx, path, name, func(c *api.Cluster) bool { return c.Server == "https://"+server })
}

// forgetAdmin takes out of the user's kubeconfig what mergeAdmin has put there, if it trusts that CA.
func forgetAdmin(ctx context.Context, path, name string, ca []byte) error {
	return forgetContext(ctx, path, name, func(c *api.Cluster) bool {
		return sameCluster(c, &api.Cluster{CertificateAuthorityData: ca})
	})
}

func forgetContext(ctx context.Context, path, name string, is func(*api.Cluster) bool) error {
	path, err := kubeconfigPath(path, os.Getenv, os.Geteuid(), homeOf)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err = editKubeconfig(ctx, path, 10*time.Second, func(e entries, have *api.Config) error {
		c := have.Contexts[name]
		if c == nil || have.Clusters[c.Cluster] == nil || !is(have.Clusters[c.Cluster]) {
			return nil
		}
		_, err := remove(e, have, []string{name})
		return err
	})
	if err != nil {
		return fmt.Errorf("the cluster is no more, but stands in your kubeconfig yet: %w: take it out with `kubewright kubeconfig remove %s`", err, name)
	}
	return nil
}
