package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/ssh"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers"
)

// fleetOptions are those of commands that act on all hosts of a document.
type fleetOptions struct {
	artifactOptions
	file        string
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
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "file with the Cluster document; - is standard input")
	f.StringVar(&o.ssh.Config, "ssh-config", "", "configuration of ssh (default ~/.ssh/config)")
	f.StringSliceVarP(&o.ssh.Identities, "identity-file", "i", nil, "private key for all hosts, beside those of the document, of ssh's configuration and of the agent")
	f.StringSliceVar(&o.ssh.KnownHosts, "known-hosts", nil, "files with the keys of hosts (default ~/.ssh/known_hosts)")
	f.BoolVar(&o.ssh.AcceptNew, "accept-new-host-keys", false, "believe hosts that are not in known_hosts yet, and note their keys there; a key that has changed is refused all the same")
	f.BoolVarP(&o.askSudo, "ask-sudo-password", "K", false, "ask for sudo's password before anything is done (default: when a host asks for it)")
	f.DurationVar(&o.timeout, "timeout", 0, "give up after this time (default: never, as each wait has a limit of its own)")
	must(cmd.MarkFlagRequired("file"))
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
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("--timeout %s is over", o.timeout))
		defer cancel()
	}
	return f(ctx)
}

// begin is all that comes before the first change.
func (o *fleetOptions) begin(ctx context.Context, command string, v *view) (*fleet, *phases.Up, error) {
	c, err := o.document()
	if err != nil {
		return nil, nil, misuse(err)
	}
	v.hosts = len(c.Spec.Hosts)
	if v.hosts > 100 { // what each of them takes adds up: rather some more work than twice the memory
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

// document is the one that was named, for hosts that are there.
func (o *fleetOptions) document() (*config.Cluster, error) {
	if err := phases.CheckSkip(o.phases, o.skip); err != nil {
		return nil, err
	}
	b, err := config.Read(o.file)
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.file, err)
	}
	if p := c.Spec.Provider.Name; p != "" && p != "hosts" {
		return nil, fmt.Errorf("%s: spec.provider.name: %q is unknown: write hosts", o.file, p)
	}
	if len(c.Spec.Hosts) == 0 {
		return nil, fmt.Errorf("%s: spec.hosts is empty: list the hosts that the cluster is to be made of, each with its name, roles and ssh", o.file)
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
		return nil, fmt.Errorf("%s: no host has the role control-plane: give it to one, or to three", o.file)
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Name == name }) {
			return nil, fmt.Errorf("--only %s: the document has no host of that name", name)
		}
	}
	return c, nil
}

// connect reaches all hosts, locks them for a command (empty: who only looks locks nothing) and looks at them.
func (o *fleetOptions) connect(ctx context.Context, c *config.Cluster, command string) (*fleet, error) {
	o.ssh.Ask = ask
	if o.askSudo {
		var err error
		if o.ssh.SudoPassword, err = ask("Password for sudo: "); err != nil {
			return nil, misuse(err)
		}
	}
	client, err := ssh.New(o.ssh)
	if err != nil {
		return nil, misuse(err)
	}
	f := &fleet{cluster: c, client: client, lost: map[*phases.Machine]error{}, machines: providers.Hosts(ctx, c, client)}
	for _, m := range f.machines {
		if h, ok := m.Host.(io.Closer); ok {
			f.links = append(f.links, h)
		}
	}
	var recalls errgroup.Group
	if o.again {
		recalls.Go(func() error { return f.each(func(m *phases.Machine) error { m.Recall(ctx); return nil }) })
	}
	err = f.lock(ctx, command)
	recalls.Wait()
	for m, why := range f.lost {
		m.Err = why
	}
	if err == nil {
		phases.Observe(ctx, c, f.machines)
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

// ask asks a person at the terminal, who sees nothing of what they type.
func ask(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%s there is no terminal to ask at", strings.TrimSpace(prompt))
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt)
	b, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return string(b), err
}

// up makes of a fleet what Up acts on: the document complete, the artifacts found.
func (o *fleetOptions) up(ctx context.Context, f *fleet, v *view) (*phases.Up, error) {
	u := o.newUp(f, v)
	if err := o.apply(&f.cluster.Spec.Artifacts); err != nil {
		return nil, misuse(err)
	}
	versions := u.Versions(ctx)
	var err error
	if o.bundle != "" {
		if u.Bundle, err = o.openFor(ctx, u, v); err != nil {
			return nil, err
		}
		versions = u.Bundle.Lock().Versions(platforms(f.machines)[0])
		if isURL(o.bundle) {
			set(&f.cluster.Spec.Artifacts.Mirror, o.bundle)
		}
	}
	f.cluster.Default(versions)
	phases.Complete(f.cluster, f.machines, u.Live(ctx))
	if err := f.cluster.Validate(); err != nil {
		return nil, misuse(fmt.Errorf("%s is not valid: %w", o.file, err))
	}
	if p := f.cluster.Spec.Patches; p != "" {
		if u.Patches, err = manifests.LoadPatches(os.DirFS(p)); err != nil {
			return nil, misuse(fmt.Errorf("spec.patches: %w", err))
		}
	}
	if u.Bundle == nil && !o.whole && u.Installs() {
		if u.Bundle, err = o.resolveFor(ctx, u, v); err != nil {
			return nil, err
		}
	}
	return u, u.Prepare(ctx) // with an error too: who only looks shows what can be seen
}

func (o *fleetOptions) newUp(f *fleet, v *view) *phases.Up {
	u := &phases.Up{Cluster: f.cluster, Machines: f.machines, Only: o.only, Concurrency: o.concurrency, Skip: o.skip, PrepareOnly: o.prepare, Report: v.event, Credentials: credentials, Began: time.Now()}
	for _, name := range o.ignore {
		u.Ignore = append(u.Ignore, strings.ToLower(name))
	}
	return u
}

// fleetResult is what a command that acts on a whole cluster prints as JSON.
type fleetResult struct {
	Kind    string   `json:"kind"`
	Cluster string   `json:"cluster"`
	Context string   `json:"context,omitempty"` // in your kubeconfig
	Hosts   []string `json:"hosts,omitempty"`
	Changes int      `json:"changes"`
	Seconds float64  `json:"seconds"`
}

func (o *fleetOptions) done(v *view, r fleetResult, said string) error {
	v.close()
	if o.out() == "json" {
		v.result(r)
		return nil
	}
	fmt.Printf("\n%s (%d %s in %.1f s).\n", said, r.Changes, plural("change", r.Changes), r.Seconds)
	if r.Context != "" {
		fmt.Printf("\n  kubectl --context %s get nodes\n", r.Context)
	}
	return nil
}

// platforms of the machines that answer, linux/amd64, each once.
func platforms(machines []*phases.Machine) []string {
	var all []string
	for _, m := range machines {
		if m.Err == nil {
			all = append(all, "linux/"+m.Facts.Machine)
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); all == nil {
		all = []string{"linux/amd64"}
	}
	return all
}

// openFor opens --bundle.
func (o *fleetOptions) openFor(ctx context.Context, u *phases.Up, v *view) (*bundle.Bundle, error) {
	if info, err := os.Stat(o.bundle); err == nil && info.IsDir() {
		return o.open(ctx, o.bundle, nil)
	}
	t := &phases.Target{Report: v.event, Node: config.Node{Name: "here"}}
	err := phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		return o.open(ctx, o.bundle, moved)
	})
	return t.Bundle, err
}

// resolveFor finds out what the cluster is made of, where no bundle says: what it was made of
// before, else what the catalogue has.
func (o *fleetOptions) resolveFor(ctx context.Context, u *phases.Up, v *view) (*bundle.Bundle, error) {
	t := &phases.Target{Report: v.event, Node: config.Node{Name: "here"}}
	err := phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		if l := u.Lock(); l != nil && (o.lock == "" || bundle.IsDigest(o.lock)) {
			return o.adopt(u.Cluster.Spec.Artifacts, *l)
		}
		return o.resolve(ctx, u.Cluster, phases.Images(u.Cluster), platforms(u.Machines), moved)
	})
	return t.Bundle, err
}
