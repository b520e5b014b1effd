package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/aws"
)

// awsOptions are how machines in EC2 are treated.
type awsOptions struct {
	makes bool // the command makes machines
	ends  bool // or ends them, whatever else the document says
	say   func(format string, args ...any)

	cloud   *aws.Cloud
	unlock  func()
	changes []aws.Change // that this run has made
}

// boots is how long new machines may take until they let us in.
const boots = 10 * time.Minute

// infrastructure is what --only takes for the machines without the cluster on them.
const infrastructure = "infrastructure"

// open finds the account and the region, and has nobody else here change the machines meanwhile.
func (o *awsOptions) open(ctx context.Context, c *config.Cluster) (err error) {
	if o.cloud != nil {
		return nil
	}
	if !o.ends {
		if err := c.ForeseeAWS(); err != nil {
			return fmt.Errorf("the document is not valid: %w", err)
		}
	}
	if o.cloud, err = aws.New(ctx, c); err != nil {
		return ofCloud(err)
	}
	if o.say != nil {
		o.cloud.Say = o.say
	}
	command := "up"
	if o.ends {
		command = "down"
	}
	if (o.makes || o.ends) && o.unlock == nil {
		o.unlock, err = o.cloud.Lock(command)
	}
	return ofCloud(err)
}

func (o *awsOptions) close() {
	if o.unlock != nil {
		o.unlock()
	}
}

// complete gives a document the machines that are there, or makes them. Those that are to go come last.
func (o *awsOptions) complete(ctx context.Context, c *config.Cluster, makes bool) error {
	err := o.open(ctx, c)
	if err != nil {
		return err
	}
	if makes {
		o.changes, err = o.cloud.Create(ctx)
	} else {
		err = o.cloud.Hosts(ctx)
	}
	if err != nil {
		return ofCloud(err)
	}
	if len(c.Spec.Hosts) == 0 {
		return fmt.Errorf("there is no machine of %s yet: make them with `kubewright up`, or look at region and account", c.Metadata.Name)
	}
	c.Spec.Hosts = append(c.Spec.Hosts, o.cloud.Surplus()...)
	return nil
}

// cloudError is none of the document's, wherever it comes up: see [misuse]. So are credentials that are lacking, or are not taken.
type cloudError struct{ error }

func (e cloudError) Unwrap() error { return e.error }

// ofCloud is an error of the document's where that names what AWS does not have, else one of the cloud's.
func ofCloud(err error) error {
	if err == nil || errors.As(err, new(*aws.DocumentError)) {
		return err
	}
	return cloudError{err}
}

// access is how its machines are reached, who were made for us: their keys are noted when they are first seen.
func (o *awsOptions) access(s *ssh.Options) {
	s.Identities = append(s.Identities, o.cloud.Identity()) // of the bastion, too
	if len(s.KnownHosts) == 0 {
		s.KnownHosts, s.AcceptNew = []string{o.cloud.KnownHosts()}, true
	}
}

// lead says, before machines are waited for that do not answer, from where alone they could.
func (o *awsOptions) lead(machines []*phases.Machine) {
	silent := func(m *phases.Machine) bool { return errors.As(m.Err, new(*host.UnreachableError)) }
	if why := o.cloud.Inside(); o.say != nil && why != "" && slices.ContainsFunc(machines, silent) {
		o.say("%s", why)
	}
}

// surplus are the names of machines that are to leave the cluster.
func (o *awsOptions) surplus() (names []string) {
	if o.cloud != nil {
		for _, n := range o.cloud.Surplus() {
			names = append(names, n.Name)
		}
	}
	return names
}

// staying are the names of the others; nil: nobody goes.
func (o *awsOptions) staying(c *config.Cluster) (names []string) {
	going := o.surplus()
	if len(going) == 0 {
		return nil
	}
	for _, n := range c.Spec.Hosts {
		if !slices.Contains(going, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

// booting are machines that may not let us in yet, whichever run has made them.
func (o *awsOptions) booting(all []*phases.Machine) []*phases.Machine {
	if len(o.changes) > 0 {
		return all
	}
	young := o.cloud.Young(boots)
	return slices.DeleteFunc(slices.Clone(all), func(m *phases.Machine) bool { return !slices.Contains(young, m.Node.Name) })
}

// lost are nodes, and members of etcd, whose machines AWS has ended.
func (o *awsOptions) lost(ctx context.Context, u *phases.Up) ([]string, error) {
	if o.cloud == nil {
		return nil, nil
	}
	nodes, err := u.Lost(ctx, aws.PoolLabel)
	if err != nil {
		return nil, err
	}
	return o.cloud.Gone(ctx, nodes)
}

// forgetLost takes out of the cluster whose machines are no more: a member of etcd that is gone is one that may not fail.
func (o *fleetOptions) forgetLost(ctx context.Context, u *phases.Up) error {
	names, err := o.aws.lost(ctx, u)
	if err != nil || len(names) == 0 {
		return err
	}
	o.aws.say("the machines of %s are no more: they leave the cluster", strings.Join(names, ", "))
	return u.Remove(ctx, names, phases.Removal{Dead: true})
}

// shrink takes machines out of the cluster, and then ends them.
func (o *fleetOptions) shrink(ctx context.Context, u *phases.Up) error {
	names := o.aws.surplus()
	if len(names) == 0 {
		return nil
	}
	if err := u.Remove(ctx, names, phases.Removal{}); err != nil {
		return fmt.Errorf("%s can't leave the cluster, and its machine is kept: %w", strings.Join(names, ", "), err)
	}
	changes, err := o.aws.cloud.Shrink(ctx)
	o.aws.changes = append(o.aws.changes, changes...)
	return err
}

// onlyInfrastructure tells whether that is all that a command is to do, of a document of provider aws.
func (o *fleetOptions) onlyInfrastructure() (*config.Cluster, bool, error) {
	c, err := o.read()
	if err != nil {
		return nil, false, misuse(err)
	}
	if c.Spec.Provider.Name != "aws" {
		return nil, false, nil // where it may be the name of a host
	}
	only := slices.Contains(o.only, infrastructure)
	if only && len(o.only) > 1 {
		return nil, false, misuse(fmt.Errorf("--only %s stands alone", infrastructure))
	}
	return c, only, nil
}

// infrastructureResult is what `up --only infrastructure` prints as JSON.
type infrastructureResult struct {
	fleetResult
	Endpoint string        `json:"endpoint"`
	Machines []config.Node `json:"machines"`
}

// runInfrastructure makes the machines, and leaves it to others to make a cluster of them.
func (o *fleetOptions) runInfrastructure(ctx context.Context, v *view, c *config.Cluster, begin time.Time) error {
	if err := o.aws.complete(ctx, c, true); err != nil {
		return misuse(err)
	}
	if stay := o.aws.surplus(); len(stay) > 0 {
		o.aws.say("%s: too many, and kept: they have to leave the cluster first, which \"kubewright up\" has them do; where there is none, terminate them", strings.Join(stay, ", "))
		c.Spec.Hosts = c.Spec.Hosts[:len(c.Spec.Hosts)-len(stay)]
	}
	v.close()
	r := infrastructureResult{fleetResult{Kind: "Up", Cluster: c.Metadata.Name, Changes: len(o.aws.changes), Seconds: time.Since(begin).Seconds()}, c.Spec.ControlPlane.Endpoint, c.Spec.Hosts}
	if o.out() == "json" {
		v.result(r)
		return nil
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tROLES\tADDRESS\tSSH")
	for _, n := range c.Spec.Hosts {
		var roles []string
		for _, r := range n.Roles {
			roles = append(roles, string(r))
		}
		way := n.SSH.User + "@" + n.SSH.Address
		if n.SSH.ProxyJump != "" {
			way = "-J " + n.SSH.ProxyJump + " " + way
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", n.Name, strings.Join(roles, ","), n.Address, way)
	}
	t.Flush()
	fmt.Printf("\nthe API servers are to be at %s; the key is %s\n", r.Endpoint, o.aws.cloud.Identity())
	return o.done(v, r.fleetResult, "the machines of "+c.Metadata.Name+" are there")
}

// awsPlan tells what would be made, changed and deleted, whether that is more than ending machines that are too many, and whether there are machines
// whose own plan can be told. With --only there is nothing but those.
func (o *fleetOptions) awsPlan(ctx context.Context) (changes []aws.Change, makes, machines bool, err error) {
	c, err := o.read()
	if err != nil || c.Spec.Provider.Name != "aws" {
		return nil, false, true, nil // of which begin tells
	}
	if err := o.aws.open(ctx, c); err != nil {
		return nil, false, false, misuse(err)
	}
	if len(o.only) == 0 {
		if changes, err = o.aws.cloud.Plan(ctx); err != nil {
			return nil, false, false, misuse(ofCloud(err))
		}
	}
	err = o.aws.cloud.Hosts(ctx)
	makes = slices.ContainsFunc(changes, func(c aws.Change) bool {
		return !slices.ContainsFunc(o.aws.cloud.Surplus(), func(n config.Node) bool { return c.Action == "delete" && strings.HasSuffix(n.ProviderID, "/"+c.Detail) })
	})
	machines = len(c.Spec.Hosts) > 0
	o.aws.cloud = nil // the document is read again
	return changes, makes, machines, err
}

func printInfrastructure(w io.Writer, changes []aws.Change) {
	fmt.Fprintln(w, "## AWS")
	fmt.Fprintln(w)
	sign := map[string]string{"create": "+", "change": "~", "delete": "-"}
	for _, c := range changes {
		fmt.Fprintf(w, "%s %s\n", sign[c.Action], strings.TrimPrefix(c.String(), c.Action+" "))
	}
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing")
	}
	fmt.Fprintln(w)
}

// confirmDoomed says what will be deleted, and asks.
func (o *fleetOptions) confirmDoomed(ctx context.Context, c *config.Cluster, yes bool) error {
	if err := o.aws.open(ctx, c); err != nil {
		return misuse(err)
	}
	if yes {
		return nil
	}
	doomed, err := o.aws.cloud.Doomed(ctx)
	if err != nil || len(doomed) == 0 {
		return err
	}
	printInfrastructure(os.Stderr, doomed)
	if err := confirm(fmt.Sprintf("This ends the cluster %s, with all of its data, and deletes these %d things.", c.Metadata.Name, len(doomed))); err != nil {
		return misuse(err)
	}
	return nil
}

// downAWS ends a cluster on AWS; infrastructure alone: whatever the cluster itself has made there.
func (o *fleetOptions) downAWS(ctx context.Context, c *config.Cluster, only, yes bool, kubeconfig string) error {
	if len(o.only) > 0 && !only {
		return misuse(errors.New("--only: the machines of a cluster are removed together: leave it out, or write a smaller count, and run `kubewright up`"))
	}
	if err := o.kind.unused(); err != nil {
		return misuse(err)
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
	o.aws.cloud.Say = sayMachines(v)
	if err := o.aws.cloud.Hosts(ctx); err != nil {
		v.event(phases.Event{Time: time.Now(), Phase: "machines", State: phases.Notice, Message: err.Error()})
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
	say := sayMachines(v)
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
		v.quiet = true
		u, err := o.up(ctx, f, v)
		v.quiet = false
		switch {
		case err != nil:
			return 0, err
		case !u.Answers(ctx):
			return 0, errors.New("its API does not answer")
		}
		return u.Release(ctx, 5*time.Minute)
	}()
	switch {
	case errors.As(err, new(*host.LockedError)):
		return err
	case err != nil:
		say("the cluster can't take down its load balancers itself, so they are found by their tags: %v", err)
	case n > 0:
		say("%d %s with a load balancer gone", n, plural("Service", n))
	}
	return nil
}

func sayMachines(v *view) func(format string, args ...any) {
	return func(format string, args ...any) {
		v.event(phases.Event{Time: time.Now(), Phase: "machines", State: phases.Notice, Message: fmt.Sprintf(format, args...)})
	}
}

var errPlanAWS = errors.New("machines, or what is around them, are to change: do that first, with `kubewright up --only infrastructure`, and then make a plan of what their hosts get")
