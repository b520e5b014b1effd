package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/pki"
)

func newRemove(out func() output) *cobra.Command {
	o := &fleetOptions{out: out}
	var r phases.Removal
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove -f FILE HOST...",
		Short: "Take hosts out of a cluster, over SSH", ValidArgsFunction: o.hostNames,
		Long: `Take hosts out of a cluster: pods are evicted, a control plane leaves etcd while that keeps its
majority (else this is refused), the Node is deleted, and the host is brought back to what it was
before. What lists the control planes on other hosts is written anew. A host that is gone is taken
out of the cluster alone. Take it out of the document afterwards: "kubewright up" would join it again.

Any control plane can be removed, the first one too, but not the last.`,
		Example: `  kubewright remove -f cluster.yaml worker-3
  kubewright remove -f cluster.yaml cp-2 --dead`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the hosts to remove: kubewright remove -f cluster.yaml HOST")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				if err := confirm(cmd.Context(), fmt.Sprintf("This evicts all pods from %s, and removes it from the cluster with all data of Kubernetes on it.", strings.Join(args, ", "))); err != nil {
					return err
				}
			}
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runRemove(ctx, args, r) })
		},
	}
	o.reachFlags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVar(&r.Dead, "dead", false, "the host is gone, though the cluster may not have noticed yet")
	f.BoolVar(&r.Force, "force", false, "end pods, too, that nothing would start elsewhere")
	f.DurationVar(&r.Grace, "grace-period", 0, "for each pod to end (default: its own)")
	f.DurationVar(&r.Limit, "drain-timeout", 10*time.Minute, "for all pods to be gone")
	o.skipFlag(cmd, phases.RemovePhases())
	o.artifactOptions.openFlags(f)
	return cmd
}

func (o *fleetOptions) runRemove(ctx context.Context, names []string, r phases.Removal) error {
	begin := time.Now()
	v := newView(o.out())
	defer v.close()
	o.whole = true
	if c, err := o.read(); err == nil {
		switch c.Spec.Provider.Name {
		case "kind":
			return misuse(fmt.Errorf("a cluster of containers is not changed container by container: remove it with `kubewright down`, and make another"))
		case "aws":
			return misuse(fmt.Errorf("machines that are made are not removed one by one: write a smaller count, and run `kubewright up`; one that is broken, terminate in EC2, and up makes another"))
		}
	}
	f, u, err := o.begin(ctx, "remove", v)
	if err != nil {
		return err
	}
	defer f.close()
	slices.Sort(names)
	if err := u.Remove(ctx, slices.Compact(names), r); err != nil {
		return err
	}
	return o.done(v, fleetResult{Kind: "Remove", Cluster: f.cluster.Metadata.Name, Hosts: names, Changes: u.Changes(), Seconds: time.Since(begin).Seconds()},
		strings.Join(names, ", ")+" is out of the cluster: take it out of the document, too")
}

func newDown(out func() output) *cobra.Command {
	o := &fleetOptions{out: out}
	var yes, force, expired bool
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "down -f FILE",
		Short: "End a cluster: reset all of its hosts, over SSH, or delete those that were made",
		Long: `Reset every host of the document: the cluster ends, with all of its data, and each host is
brought back to what it was before "kubewright up", as "kubewright reset" does. A host that does not
answer is reported; run it again when it does. The cluster's context leaves your kubeconfig.

With provider kind, the containers are removed; nobody is asked. With provider aws, everything that was
made for the cluster is deleted: its Services' load balancers first, which --only infrastructure does not ask it for.`,
		Example: `  kubewright down -f cluster.yaml
  kubewright down -f cluster.yaml --yes
  kubewright down -f aws.yaml
  kubewright down -f aws.yaml --only infrastructure
  kubewright down --provider kind --name ci
  kubewright down --expired`,
		Args: fileNotArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if expired {
				return o.within(cmd.Context(), func(ctx context.Context) error { return o.runExpired(ctx, kubeconfig) })
			}
			if c, only, err := o.onlyInfrastructure(); err != nil {
				return err
			} else if c != nil {
				return o.downAWS(cmd.Context(), c, only, yes, kubeconfig)
			}
			o.kind.ends = true
			c, err := o.document(cmd.Context())
			if err != nil {
				return misuse(err)
			}
			if len(o.only) > 0 && c.Spec.Provider.Name == "kind" {
				return misuse(errors.New("--only: the containers of a cluster are removed together: leave it out"))
			}
			if !yes && c.Spec.Provider.Name != "kind" {
				if err := confirm(cmd.Context(), fmt.Sprintf("This ends the cluster %s, with all of its data, on %d %s.", c.Metadata.Name, len(c.Spec.Hosts), plural("host", len(c.Spec.Hosts)))); err != nil {
					return err
				}
			}
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runDown(ctx, c, force, kubeconfig) })
		},
	}
	o.reachFlags(cmd)
	o.kind.nameFlags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.StringSliceVar(&o.only, "only", nil, "reset these hosts alone, by their names in the document; infrastructure: ask the cluster for nothing, of provider aws")
	must(cmd.RegisterFlagCompletionFunc("only", o.hostNames))
	f.IntVar(&o.concurrency, "concurrency", 0, "hosts that are reset at a time (default: all)")
	f.StringVar(&kubeconfig, "kubeconfig", "", "your kubeconfig, from which the cluster is taken out (default: $KUBECONFIG, else ~/.kube/config); none: leave it as it is")
	must(cmd.MarkFlagFilename("kubeconfig"))
	f.BoolVar(&expired, "expired", false, "remove all clusters of containers whose --ttl is over, and nothing else")
	f.BoolVar(&force, "force", false, "reset hosts, too, that are nodes of another cluster, or of another name")
	o.skipFlag(cmd, phases.Reset())
	return cmd
}

func (o *fleetOptions) runDown(ctx context.Context, c *config.Cluster, force bool, kubeconfig string) error {
	begin := time.Now()
	v := newView(o.out())
	defer v.close()
	if c.Spec.Provider.Name == "kind" {
		removed, err := o.removeKind(ctx, v, []string{c.Metadata.Name}, kubeconfig)
		if err != nil {
			return err
		}
		said := c.Metadata.Name + " is no more"
		if removed == 0 {
			said = "there was no cluster " + c.Metadata.Name + " here"
		}
		return o.done(v, fleetResult{Kind: "Down", Cluster: c.Metadata.Name, Changes: removed, Seconds: time.Since(begin).Seconds()}, said)
	}
	v.among(c.Spec.Hosts)
	f, err := o.connect(ctx, c, "down")
	if err != nil {
		return err
	}
	defer f.close()
	u := o.newUp(f, v)
	c.Default(u.Versions(ctx))
	var ca []byte // while it is there
	for _, m := range f.machines {
		ca = append(ca, m.Existing[pki.CA+".crt"]...)
	}
	if err := u.Down(ctx, force); err != nil {
		return err
	}
	if kubeconfig != "none" && len(o.only) == 0 {
		if err := forgetAdmin(ctx, kubeconfig, c.Metadata.Name, ca); err != nil {
			return err
		}
	}
	said := c.Metadata.Name + " is no more"
	if len(o.only) > 0 {
		said = strings.Join(o.only, ", ") + " of " + c.Metadata.Name + " is reset"
	}
	return o.done(v, fleetResult{Kind: "Down", Cluster: c.Metadata.Name, Changes: u.Changes(), Seconds: time.Since(begin).Seconds()}, said)
}
