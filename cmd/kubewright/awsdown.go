package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// confirmDoomed says what will be deleted, and asks; before that, whether it is in the right account.
func (o *fleetOptions) confirmDoomed(ctx context.Context, c *config.Cluster, yes bool) error {
	if err := o.aws.open(ctx, c); err != nil {
		return misuse(err)
	}
	if err := o.aws.cloud.Known(); err != nil {
		return err
	}
	if yes {
		return nil
	}
	doomed, err := o.aws.cloud.Doomed(ctx)
	if err != nil || len(doomed) == 0 {
		return err
	}
	printInfrastructure(os.Stderr, o.aws.cloud.Where(), doomed, nil)
	return confirm(ctx, fmt.Sprintf("This ends the cluster %s, with all of its data, and deletes these %d things.", c.Metadata.Name, len(doomed)))
}

// downAWS ends a cluster on AWS; infrastructure alone: whatever the cluster itself has made there.
func (o *fleetOptions) downAWS(ctx context.Context, c *config.Cluster, only, yes bool, kubeconfig string) error {
	if len(o.only) > 0 && !only {
		return misuse(errors.New("--only: the machines of a cluster are removed together: leave it out, or write a smaller count, and run `kubewright up`"))
	}
	if err := o.kind.unused(); err != nil {
		return misuse(err)
	}
	if only {
		if err := o.infrastructureAlone("yes", "kubeconfig"); err != nil {
			return err
		}
	}
	o.aws.ends = true
	defer o.aws.close()
	if err := o.confirmDoomed(ctx, c, yes); err != nil {
		return err
	}
	return o.within(ctx, func(ctx context.Context) error { return o.runDownAWS(ctx, c, only, kubeconfig) })
}

// runDownAWS deletes the machines and all that was made for them. What the cluster itself has made in the cloud goes first, where its API answers.
func (o *fleetOptions) runDownAWS(ctx context.Context, c *config.Cluster, only bool, kubeconfig string) error {
	begin := time.Now()
	v := newView(o.out())
	defer v.close()
	defer o.aws.tell(v)()
	o.aws.cloud.Say, o.aws.cloud.Warn = o.aws.say, o.aws.warn
	if err := o.aws.cloud.Hosts(ctx); err != nil {
		o.aws.warn("%v", err)
	}
	server := c.Spec.ControlPlane.Endpoint
	if !only {
		if err := o.release(ctx, v, c); err != nil {
			return err
		}
	}
	n, err := o.aws.cloud.Delete(ctx)
	if err != nil {
		return err
	}
	if kubeconfig != "none" && server != "" {
		if err := forgetServer(ctx, kubeconfig, c.Metadata.Name, server); err != nil {
			return err
		}
	}
	words := c.Metadata.Name + " is no more in " + o.aws.cloud.Where()
	if n == 0 {
		words = "nothing of " + c.Metadata.Name + " was in " + o.aws.cloud.Where()
	}
	return o.done(v, fleetResult{Kind: "Down", Cluster: c.Metadata.Name, Changes: n, Seconds: time.Since(begin).Seconds()}, words)
}

// release has the cluster take down its load balancers. Where its API does not answer, they are found by their tags; where
// somebody else is at work on its hosts, that ends the run.
func (o *fleetOptions) release(ctx context.Context, v *view, c *config.Cluster) error {
	if !slices.ContainsFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Has(config.ControlPlaneRole) }) {
		return nil
	}
	o.tolerant, o.whole = true, true
	n, err := func() (int, error) {
		f, err := o.connect(ctx, c, "down")
		if err != nil {
			return 0, err
		}
		defer f.close()
		v.hush(true)
		u, err := o.up(ctx, f, v)
		v.hush(false)
		switch {
		case err != nil:
			return 0, err
		case !u.Answers(ctx):
			return 0, errors.New("its API does not answer")
		}
		_, over := o.aws.waits.Begin("the cluster to take down its Services' load balancers")
		defer over()
		return u.Release(ctx, 5*time.Minute)
	}()
	if unreached := (*host.UnreachableError)(nil); errors.As(err, &unreached) { // what else there is to say of it, is not of an end
		err = fmt.Errorf("it cannot be asked: %w", unreached)
	}
	switch {
	case errors.As(err, new(*host.LockedError)):
		return err
	case err != nil:
		o.aws.warn("the cluster can't take down its load balancers itself, so they are found by their tags: %v", err)
	case n > 0:
		o.aws.say("%d %s with a load balancer gone", n, plural("Service", n))
	}
	return nil
}
