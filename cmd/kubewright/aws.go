package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/pflag"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/aws"
	"github.com/kubewright/kubewright/providers/waits"
)

// awsOptions are how machines in EC2 are treated.
type awsOptions struct {
	makes bool                             // the command makes machines
	ends  bool                             // or ends them, whatever else the document says
	say   func(format string, args ...any) // what happens
	warn  func(format string, args ...any) // what deserves attention
	waits waits.List

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
	if o.cloud, err = aws.New(ctx, c, &o.waits); err != nil {
		return ofCloud(err)
	}
	if o.say != nil {
		o.cloud.Say, o.cloud.Warn = o.say, o.warn
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

// tell has a person read what happens, and what is waited for, until it is called off.
func (o *awsOptions) tell(v *view) (off func()) {
	o.say, o.warn = sayMachines(v, phases.Said), sayMachines(v, phases.Notice)
	done, ticks := make(chan struct{}), time.NewTicker(time.Second)
	var told sync.WaitGroup
	told.Go(func() { o.waits.Tell(done, ticks.C, o.say) })
	return sync.OnceFunc(func() {
		ticks.Stop()
		close(done)
		told.Wait()
	})
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
		var head sync.WaitGroup
		head.Go(func() { // AWS is asked for everything else meanwhile
			if o.cloud.Known() == nil {
				o.cloud.Say("%s is in %s", c.Metadata.Name, o.cloud.Where())
			}
		})
		o.changes, err = o.cloud.Create(ctx)
		head.Wait()
		for _, note := range o.cloud.Notes() {
			o.cloud.Warn("%s", note)
		}
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
	if !slices.ContainsFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Has(config.ControlPlaneRole) }) {
		return cloudError{fmt.Errorf("%s has %d %s in EC2, and no control plane: `kubewright up` makes those, and a new cluster; if there was one, its etcd is gone with them, and its workers are to go, too (`kubewright down`)",
			c.Metadata.Name, len(c.Spec.Hosts), plural("machine", len(c.Spec.Hosts)))}
	}
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
	if why := o.cloud.Inside(); o.warn != nil && why != "" && slices.ContainsFunc(machines, silent) {
		o.warn("%s", why)
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
	o.aws.warn("the machines of %s are no more: they leave the cluster", strings.Join(names, ", "))
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

// infrastructureAlone refuses flags that mean nothing where no host is reached: all but those that name the document, and some.
func (o *fleetOptions) infrastructureAlone(some ...string) error {
	some = append(some, "file", "provider", "only", "output", "timeout")
	var others []string
	if o.kind.set != nil {
		o.kind.set.Visit(func(f *pflag.Flag) {
			if !slices.Contains(some, f.Name) {
				others = append(others, "--"+f.Name)
			}
		})
	}
	switch names := strings.Join(others, ", "); len(others) {
	case 0:
		return nil
	case 1:
		return misuse(fmt.Errorf("--only %s: %s is of hosts, or of the cluster on them: leave it out, or leave out --only", infrastructure, names))
	default:
		return misuse(fmt.Errorf("--only %s: %s are of hosts, or of the cluster on them: leave them out, or leave out --only", infrastructure, names))
	}
}

// infrastructureResult is what `up --only infrastructure` prints as JSON.
type infrastructureResult struct {
	fleetResult
	Endpoint string        `json:"endpoint"`
	SSH      string        `json:"sshConfig"` // a file for ssh -F, with which the machines are reached by their addresses
	Machines []config.Node `json:"machines"`
}

// runInfrastructure makes the machines, and leaves it to others to make a cluster of them.
func (o *fleetOptions) runInfrastructure(ctx context.Context, v *view, c *config.Cluster, begin time.Time) error {
	if err := o.aws.complete(ctx, c, true); err != nil {
		return misuse(err)
	}
	if stay := o.aws.surplus(); len(stay) > 0 {
		o.aws.warn("%s: too many, and kept: they have to leave the cluster first, which \"kubewright up\" has them do; where there is none, terminate them", strings.Join(stay, ", "))
		c.Spec.Hosts = c.Spec.Hosts[:len(c.Spec.Hosts)-len(stay)]
	}
	ssh, err := o.aws.cloud.SSHConfig()
	if err != nil {
		return err
	}
	v.close()
	r := infrastructureResult{fleetResult{Kind: "Up", Cluster: c.Metadata.Name, Changes: len(o.aws.changes), Seconds: time.Since(begin).Seconds()}, c.Spec.ControlPlane.Endpoint, ssh, c.Spec.Hosts}
	if o.out() == "json" {
		v.result(r)
		return nil
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tPOOL\tINSTANCE\tADDRESS\tSSH")
	for _, n := range c.Spec.Hosts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Labels[aws.PoolLabel], path.Base(n.ProviderID), n.Address, shellescape.QuoteCommand([]string{"ssh", "-F", ssh, n.SSH.Address}))
	}
	t.Flush()
	fmt.Printf("\nthe API servers are to be at %s; the key is %s\n", r.Endpoint, o.aws.cloud.Identity())
	return o.done(v, r.fleetResult, "the machines of "+c.Metadata.Name+" are there")
}

func sayMachines(v *view, as phases.State) func(format string, args ...any) {
	return func(format string, args ...any) {
		v.event(phases.Event{Time: time.Now(), Phase: "machines", State: as, Message: fmt.Sprintf(format, args...)})
	}
}
