package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kind"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers"
)

// fleetOptions are those of commands that act on all hosts of a document.
type fleetOptions struct {
	artifactOptions
	file        string
	text        []byte // what it holds
	kind        kindOptions
	aws         awsOptions
	bundle      string
	only        []string
	concurrency int
	timeout     time.Duration
	skip        []string
	phases      []phases.Phase // that may be skipped
	ignore      []string
	ssh         ssh.Options
	askSudo     bool
	prepare     bool
	again       bool // what the run before has asked is asked at once
	tolerant    bool // hosts that refuse us are shown, like those that are down
	whole       bool // the hosts are made of what they were made of: nothing new is looked for
	out         func() output
}

// reachFlags are those of whoever only connects.
func (o *fleetOptions) reachFlags(cmd *cobra.Command) {
	o.hostFlags(cmd, "file with the Cluster document; - is standard input")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "give up after this time (default: never, as each wait has a limit of its own)")
}

// hostFlags say which hosts, and how they are reached.
func (o *fleetOptions) hostFlags(cmd *cobra.Command, file string) {
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", file)
	f.StringVar(&o.ssh.Config, "ssh-config", "", "configuration of ssh (default ~/.ssh/config)")
	f.StringSliceVarP(&o.ssh.Identities, "identity-file", "i", nil, "private key for all hosts, beside those of the document, of ssh's configuration and of the agent")
	f.StringSliceVar(&o.ssh.KnownHosts, "known-hosts", nil, "files with the keys of hosts (default ~/.ssh/known_hosts)")
	f.BoolVar(&o.ssh.AcceptNew, "accept-new-host-keys", false, "believe hosts that are not in known_hosts yet, and note their keys there; a key that has changed is refused all the same")
	f.BoolVarP(&o.askSudo, "ask-sudo-password", "K", false, "ask for sudo's password before anything is done (default: when a host asks for it)")
	must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
	must(cmd.MarkFlagFilename("ssh-config"))
	must(cmd.MarkFlagFilename("identity-file"))
	must(cmd.MarkFlagFilename("known-hosts"))
}

// changeFlags are those of whoever changes hosts, or plans to.
func (o *fleetOptions) changeFlags(cmd *cobra.Command, list []phases.Phase) {
	f := cmd.Flags()
	f.StringVar(&o.bundle, "bundle", "", "binaries and images, as a folder, a file (.tar, .tar.zst), or the address at which a folder is served; without it, what the hosts lack is downloaded")
	o.artifactOptions.flags(f)
	f.StringSliceVar(&o.only, "only", nil, "change these hosts alone, by their names in the document")
	must(cmd.RegisterFlagCompletionFunc("only", o.hostNames))
	f.IntVar(&o.concurrency, "concurrency", phases.AtATime, "hosts that are changed at a time")
	o.skipFlag(cmd, list)
	f.StringSliceVar(&o.ignore, "ignore-preflight-errors", nil, "preflight checks whose failures are only shown, or all")
	must(cmd.MarkFlagDirname("cache-dir"))
}

func (o *fleetOptions) skipFlag(cmd *cobra.Command, list []phases.Phase) {
	o.phases = list
	cmd.Flags().StringSliceVar(&o.skip, "skip-phases", nil, "phases to leave out")
	completePhases(cmd, list)
}

// fleet is all hosts of a document, connected, locked and looked at.
type fleet struct {
	cluster  *config.Cluster
	machines []*phases.Machine
	locks    []func()                  // each gives one back
	lost     map[*phases.Machine]error // that could not be locked, for another reason than somebody else's lock
	links    []io.Closer
	client   io.Closer
}

func (f *fleet) close() {
	var wg sync.WaitGroup
	for _, release := range f.locks {
		wg.Go(release)
	}
	wg.Wait()
	for _, l := range f.links {
		wg.Go(func() { l.Close() })
	}
	wg.Wait()
	if f.client != nil {
		f.client.Close() // the jump hosts, through which others went
	}
}

// within runs f, for no longer than --timeout.
func (o *fleetOptions) within(ctx context.Context, f func(context.Context) error) error {
	if o.timeout < 0 {
		return misuse(fmt.Errorf("--timeout %s: write how long it may take, 10m, say, or leave it out", o.timeout))
	}
	if o.timeout == 0 {
		return f(ctx)
	}
	over := fmt.Errorf("--timeout %s is over", o.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, over)
	defer cancel()
	err := f(ctx)
	if err != nil && context.Cause(ctx) == over && !errors.Is(err, over) { // it shows in many ways
		err = fmt.Errorf("%w:\n%w", over, err)
	}
	return err
}

// begin is all that comes before the first change.
func (o *fleetOptions) begin(ctx context.Context, command string, v *view) (*fleet, *phases.Up, error) {
	c, err := o.document(ctx)
	if err != nil {
		return nil, nil, misuse(err)
	}
	v.among(c.Spec.Hosts)
	if len(c.Spec.Hosts) > 100 { // what each of them takes adds up: rather some more work than twice the memory
		debug.SetGCPercent(25)
	}
	f, err := o.connect(ctx, c, command)
	if err != nil {
		return nil, nil, err
	}
	u, err := o.up(ctx, f, v)
	if err != nil {
		f.close()
		return nil, nil, err
	}
	return f, u, nil
}

// fileNotArgument refuses arguments of a command whose document comes with -f.
func fileNotArgument(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument such as %q: the document is named with -f FILE, and hosts with --only, where there is that flag", cmd.CommandPath(), args[0])
	}
	return nil
}

// document is the one that was named, for hosts that are there.
func (o *fleetOptions) document(ctx context.Context) (*config.Cluster, error) {
	if err := config.Errors(multierror.Append(phases.CheckSkip(o.phases, o.skip), phases.CheckIgnore(o.ignore))); err != nil {
		return nil, err
	}
	if o.concurrency < 0 {
		return nil, fmt.Errorf("--concurrency %d: write 1 or more", o.concurrency)
	}
	c, err := o.read()
	if err != nil {
		return nil, err
	}
	switch p := c.Spec.Provider.Name; p {
	case "", "hosts":
		if err := o.kind.unused(); err != nil {
			return nil, err
		}
	case "kind":
		if c, err = o.kind.complete(ctx, c, o.file); err != nil {
			return nil, err
		}
	case "aws":
		if err := o.kind.unused(); err != nil {
			return nil, err
		}
		if err := o.aws.complete(ctx, c, o.aws.makes && len(o.only) == 0); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: spec.provider.name: %q is unknown: write hosts, kind or aws", o.source(), p)
	}
	if err := c.ValidateHosts(); err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", o.source(), err)
	}
	if len(c.Spec.Hosts) == 0 {
		return nil, fmt.Errorf("%s: spec.hosts is empty: list the hosts that the cluster is to be made of, each with its name, roles and ssh", o.source())
	}
	controlPlanes := 0
	for i, n := range c.Spec.Hosts {
		if len(n.Roles) == 0 {
			c.Spec.Hosts[i].Roles = []config.Role{config.WorkerRole}
		}
		if n.Has(config.ControlPlaneRole) {
			controlPlanes++
		}
	}
	if controlPlanes == 0 {
		return nil, fmt.Errorf("%s: no host has the role control-plane: give it to one, or to three", o.source())
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Name == name }) {
			return nil, fmt.Errorf("--only %s: the document has no host of that name", name)
		}
	}
	return c, nil
}

// source is the document in words.
func (o *fleetOptions) source() string { return cmp.Or(o.file, "the document") }

// named tells whether a cluster was named: by its document, or as containers.
func (o *fleetOptions) named() bool {
	return o.file != "" || o.kind.provider != "" || o.kind.name != ""
}

// read is the document as it was written, or none.
func (o *fleetOptions) read() (*config.Cluster, error) {
	if o.file == "" && o.kind.provider == "" && o.kind.name != "" {
		o.kind.provider = "kind" // of nothing else the name alone is enough
	}
	if p := o.kind.provider; !slices.Contains([]string{"", "hosts", "kind", "aws"}, p) {
		return nil, fmt.Errorf("--provider %q is unknown: write hosts, kind or aws", p)
	} else if o.file == "" && (p == "aws" || p == "hosts") {
		return nil, errors.New("name the document: -f FILE")
	}
	if !o.named() {
		return nil, errors.New("name the document: -f FILE; or let containers be made: --provider kind")
	}
	c := &config.Cluster{}
	c.APIVersion, c.Kind = config.APIVersion, config.Kind
	if o.file != "" {
		b := o.text
		if b == nil { // standard input is there but once
			var err error
			if b, err = config.Read(o.file); err != nil {
				return nil, err
			}
			o.text = b
		}
		var err error
		parse := config.Parse
		if kind.Is(b) {
			parse = kind.Parse
		}
		if c, err = parse(b); err != nil {
			return nil, fmt.Errorf("%s: %w", o.file, err)
		}
	}
	if o.kind.provider != "" {
		if has := c.Spec.Provider.Name; has != "" && has != o.kind.provider {
			return nil, fmt.Errorf("--provider %s: %s says %s: write it in one place", o.kind.provider, o.file, has)
		}
		c.Spec.Provider.Name = o.kind.provider
	}
	return c, nil
}

// connect reaches all hosts, locks them for a command (empty: who only looks locks nothing) and looks at them.
func (o *fleetOptions) connect(ctx context.Context, c *config.Cluster, command string) (*fleet, error) {
	if c.Spec.Provider.Name == "kind" {
		o.skip = append(o.skip, phases.Reach.Name) // there is nothing but a bridge between them
		if o.kind.makes && o.kind.wait == 0 {
			o.skip = append(o.skip, "wait-node", "wait-network", "wait-dns", "wait-cloud")
		}
		machines, err := o.kind.machines(ctx, c, command)
		if err != nil {
			return nil, err
		}
		return o.take(ctx, &fleet{cluster: c, machines: machines, lost: map[*phases.Machine]error{}}, command)
	}
	if c.Spec.Provider.Name == "aws" {
		o.aws.access(&o.ssh)
	}
	if err := o.ssh.Check(); err != nil {
		return nil, misuse(err)
	}
	o.ssh.Ask = func(prompt string) (string, error) { return ask(ctx, prompt) }
	if o.askSudo {
		var err error
		if o.ssh.SudoPassword, err = ask(ctx, "Password for sudo: "); err != nil {
			return nil, cmp.Or(ctx.Err(), misuse(err))
		}
	}
	client, err := ssh.New(o.ssh)
	if err != nil {
		return nil, misuse(err)
	}
	machines := providers.Hosts(ctx, c, client)
	if c.Spec.Provider.Name == "aws" {
		o.aws.lead(machines)
	}
	if command == "up" && c.Spec.Provider.Name == "aws" && o.aws.makes {
		providers.Await(ctx, client, o.aws.booting(machines), boots, &o.aws.waits)
	}
	providers.TellOnce(machines)
	return o.take(ctx, &fleet{cluster: c, client: client, lost: map[*phases.Machine]error{}, machines: machines}, command)
}

// take locks the machines for a command, and looks at them.
func (o *fleetOptions) take(ctx context.Context, f *fleet, command string) (*fleet, error) {
	for _, m := range f.machines {
		if h, ok := m.Host.(io.Closer); ok {
			f.links = append(f.links, h)
		}
	}
	var recalls errgroup.Group
	if o.again {
		recalls.Go(func() error { return f.each(func(m *phases.Machine) error { m.Recall(ctx); return nil }) })
	}
	err := f.lock(ctx, command)
	recalls.Wait()
	for m, why := range f.lost {
		m.Err = why
	}
	if err == nil {
		phases.Observe(ctx, f.cluster, f.machines)
		err = ctx.Err()
	}
	if err == nil && !o.tolerant {
		err = f.refusals()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// hostNames completes names of the document's hosts, and what --only takes beside them.
func (o *fleetOptions) hostNames(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if o.file != "" && o.file != "-" {
		if c, err := o.read(); err == nil && c.Spec.Provider.Name == "aws" {
			switch cmd.Name() {
			case "down": // its machines go together
				return []string{infrastructure}, cobra.ShellCompDirectiveNoFileComp
			case "up":
				names = append(names, infrastructure)
			}
		}
		o.aws.makes = false // who only types
		if c, err := o.document(cmd.Context()); err == nil {
			for _, n := range c.Spec.Hosts {
				names = append(names, n.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// refusals are errors that are no accident: a host key that nobody knows, a wrong password.
// They end the run before anything is touched; that a host is down does not.
func (f *fleet) refusals() error {
	var all *multierror.Error
	for _, m := range f.machines {
		var down *host.UnreachableError
		if m.Err != nil && !errors.As(m.Err, &down) {
			all = multierror.Append(all, m.Err)
		}
	}
	if err := config.Errors(all); err != nil {
		return &phases.NotReadyError{Err: err}
	}
	return nil
}

// lock takes all hosts that answer. Whoever loses one of them goes on with the others.
func (f *fleet) lock(ctx context.Context, command string) error {
	if command == "" {
		return nil
	}
	var mu sync.Mutex
	return f.each(func(m *phases.Machine) error {
		held, release, err := m.Host.Lock(ctx, command)
		var other *host.LockedError
		if errors.As(err, &other) {
			return fmt.Errorf("%s: %w", m.Node.Name, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			f.lost[m] = err
			return nil
		}
		m.Lease, f.locks = held, append(f.locks, release)
		return nil
	})
}

// each does something to all machines that answer, some at a time.
func (f *fleet) each(do func(*phases.Machine) error) error {
	var g errgroup.Group
	g.SetLimit(phases.AtATime)
	for _, m := range f.machines {
		if m.Err == nil {
			g.Go(func() error { return do(m) })
		}
	}
	return g.Wait()
}
