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
		Short: "Make a whole cluster, repair it or let it grow, over SSH",
		Long: `Make the cluster of a document on the hosts that it lists, which are reached over SSH. Run it
again at any time: what is right stays untouched, what is missing or has drifted is mended, a host
that was added joins. Nothing has to be installed on the hosts; they need a POSIX sh, coreutils,
tar, systemd, util-linux, iproute2, and root or sudo.

A host that is down is reported, and does not hold up the others. A node that the document no longer
lists is reported and left alone: "kubewright remove" removes.`,
		Example: `  kubewright up -f cluster.yaml
  kubewright up -f cluster.yaml --bundle kubernetes.tar.zst --accept-new-host-keys
  kubewright up -f cluster.yaml --only worker-7
  kubewright up -f cluster.yaml --prepare`,
		Args: fileNotArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.within(cmd.Context(), func(ctx context.Context) error { return o.runUp(ctx, kubeconfig, plan, picture) })
		},
	}
	o.reachFlags(cmd)
	o.changeFlags(cmd, phases.UpPhases())
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "your kubeconfig, to which the cluster is added under its name (default: $KUBECONFIG, else ~/.kube/config); none: leave it out")
	cmd.Flags().BoolVar(&o.prepare, "prepare", false, "go no further than where only the cluster is missing: the hosts get their container runtime, kubelet and images")
	cmd.Flags().StringVar(&plan, "plan", "", "do exactly what this plan says, which `kubewright plan -o json` has printed, or nothing")
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
		if err := samePlan(plan, now); err != nil {
			return err
		}
	}
	runErr := u.Run(ctx)
	if picture != "" && len(v.drawn) > 0 {
		if err := drawTimeline(picture, v.drawn); err != nil {
			runErr = errors.Join(runErr, fmt.Errorf("--timeline: %w", err))
		}
	}
	r := fleetResult{Kind: "Up", Cluster: f.cluster.Metadata.Name, Changes: u.Changes(), Seconds: time.Since(begin).Seconds()}
	if o.prepare {
		if runErr != nil {
			return runErr
		}
		return o.done(v, r, fmt.Sprintf("the hosts of %s are prepared", r.Cluster))
	}
	if kubeconfig != "none" && u.Answers(ctx) {
		if r.Context, err = mergeAdmin(ctx, kubeconfig, u); runErr == nil {
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

// mergeAdmin puts the cluster into the user's kubeconfig, and returns the name of its context.
func mergeAdmin(ctx context.Context, path string, u *phases.Up) (name string, err error) {
	b, err := u.AdminConfig(ctx)
	if err != nil {
		return "", err
	}
	if path, err = kubeconfigPath(path, os.Getenv, os.Geteuid(), homeOf); err != nil {
		return "", err
	}
	cluster, err := source(b, "")
	if err != nil {
		return "", err
	}
	_, err = editKubeconfig(ctx, path, 10*time.Second, func(e entries, have *api.Config) error {
		name, err = merge(e, have, cluster, mergeOptions{name: u.Cluster.Metadata.Name})
		return err
	})
	if err != nil {
		next := "name another file with --kubeconfig, or none"
		if other := (*strangerError)(nil); errors.As(err, &other) {
			next = fmt.Sprintf("if that one is no more, take it out with `kubewright kubeconfig remove %s` and run this again; else %s", other.name, next)
		}
		return "", fmt.Errorf("the cluster is up, but was not put into your kubeconfig: %w: %s", err, next)
	}
	return name, nil
}

// forgetAdmin takes out of the user's kubeconfig what mergeAdmin has put there, if it trusts that CA.
func forgetAdmin(ctx context.Context, path, name string, ca []byte) error {
	path, err := kubeconfigPath(path, os.Getenv, os.Geteuid(), homeOf)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err = editKubeconfig(ctx, path, 10*time.Second, func(e entries, have *api.Config) error {
		c := have.Contexts[name]
		if c == nil || have.Clusters[c.Cluster] == nil || !sameCluster(have.Clusters[c.Cluster], &api.Cluster{CertificateAuthorityData: ca}) {
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
