// Package phases holds every list of phases, the runner, and preflight: all order and
// all effects live here.
//
// In goes a [Target]: a cluster document, a host and what is known of it. Out come
// events, and a host (and an API) that are as the document says. A phase looks,
// compares and acts; one that finds nothing to do says "unchanged", so a second run
// changes nothing and a run that was cut short is finished by running it again.
//
// Start reading at init.go.
package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Phase is one step: a name that users type, and a function that makes it true.
// A list of phases is a plain slice in the order in which a person would explain it.
type Phase struct {
	Name, Short string
	// After names the phases that must be done first. One that is skipped counts as
	// done; one that failed keeps those behind it from starting.
	After []string
	Waits bool // it only waits for something that becomes true, and changes nothing
	// OfCluster phases change the cluster and not the host: one control plane does them for all.
	OfCluster bool
	Run       func(ctx context.Context, t *Target) error
}

// Target is what phases act on. It is read-only while they run.
type Target struct {
	Cluster *config.Cluster // join: nil until Discover has answered
	Node    config.Node
	Facts   config.Facts
	Host    host.Host
	API     API
	Secrets *pki.Secrets
	Bundle  *bundle.Bundle // nil: what is on the host has to do, unless it acquires
	// Acquires tells that there will be a bundle, of which nothing is known yet.
	Acquires bool
	Journal  *Journal // nil: nothing is written down, as nothing is really done
	Ledger   bool     // what is here is noted before the first change
	Patches  manifests.Patches
	Material addons.Material // of the pod network
	// JoinToken is the token with which nodes join, as of the function of that name.
	JoinToken func(ctx context.Context) (addons.Token, error)
	TTL       time.Duration // of a token that is made; 0: it never expires
	Tokens    []InitToken   // that init makes; nil: JoinToken alone
	// Discover finds the cluster that this host joins. Every call gives the same answer.
	Discover func(ctx context.Context) (*Discovery, error)
	// Known tells that Cluster is the cluster's document already, before it is discovered.
	Known bool
	// Await waits for the API server of a cluster that is only being made, for a kubelet that finds none tries ever more seldom;
	// nil: there is one.
	Await func(ctx context.Context) error
	// Admit gives a host that joins as a control plane the cluster's secrets, and rights in it.
	// Every call gives the same answer; t is the target of the phase that asks.
	Admit func(ctx context.Context, t *Target) (*Admission, error)
	Etcd  Etcd // of the cluster that is joined as a control plane
	// UploadCerts stores what control planes share in the cluster, encrypted with CertificateKey.
	UploadCerts    bool
	CertificateKey addons.CertificateKey
	// Artifacts adds to where the cluster's artifacts come from what is so on this host alone; nil adds nothing.
	Artifacts func(*config.Artifacts) error
	// BindPort of this host's API server; 0: that of the cluster's document.
	BindPort int32
	// Ignore holds the names of preflight checks whose failures are only shown, in lower case, or "all".
	Ignore []string
	Report func(Event)
	// Credentials are those of whoever runs the command for a registry, HOST[:PORT]; no user where
	// there are none. Nil: nobody has any.
	Credentials func(registry string) (user, password string, err error)

	// Began is when the run did, on all of its hosts; zero: now.
	Began time.Time
	// Further is a control plane beside others, whatever list it runs.
	Further bool
	// Turns are those of a running cluster; nil: this host waits for nobody before it restarts anything.
	Turns *Turns

	// Move waits until this host may have its artifacts: who sends them to many hosts lets those come
	// first for whom the others will wait. Nil: at once.
	Move func(ctx context.Context) error
	// Uploads are the places of those that send artifacts at a time; nil: as many as like.
	Uploads chan struct{}

	// Changes counts what is changed on several hosts; nil: nobody asks.
	Changes *atomic.Int64

	everything bool          // images of every role
	had        *glance       // nil: nobody remembers
	finds      func(Finding) // is told what preflight finds; nil: nobody asks
	phase      string
	changes    *atomic.Int64
	replaced   *sync.Map // containers that are being replaced, by static pod
}

// Event is something that happened, for people and programs.
type Event struct {
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`
	Phase   string    `json:"phase"`
	State   State     `json:"state"`
	Message string    `json:"message,omitempty"`
	Seconds float64   `json:"seconds,omitempty"` // with done, unchanged and failed
	// With progress: what is being moved, and how many bytes of it.
	Item  string `json:"item,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
}

// State is what an event says of its phase.
type State string

const (
	Started   State = "started"
	Progress  State = "progress"
	Said      State = "said"      // an ordinary step, in words
	Notice    State = "notice"    // something that a person should read
	Done      State = "done"      // it changed something
	Unchanged State = "unchanged" // there was nothing to do
	Skipped   State = "skipped"   // as asked
	Failed    State = "failed"
	Blocked   State = "blocked" // did not start, because one that it comes after failed
)

// Names are those of a list, for help and for completion.
func Names(list []Phase) []string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Name
	}
	return names
}

// Run runs a list: each phase as soon as those that it comes after are done, several at
// a time where nothing forbids it. It returns when none is running any more, with the
// errors of all that failed.
func Run(ctx context.Context, list []Phase, t *Target, skip []string) error {
	if err := check(list, skip); err != nil {
		return err
	}
	if t.Ledger && t.Journal != nil {
		var once sync.Once
		t.Journal.before = func(ctx context.Context) (err error) {
			once.Do(func() { err = ledger(ctx, t) })
			return err
		}
	}
	replaced := &sync.Map{}
	history := newHistory(t)
	finished := map[string]chan struct{}{}
	for _, p := range list {
		finished[p.Name] = make(chan struct{})
	}
	var mu sync.Mutex // guards the two below
	broken := map[string]bool{}
	failures := map[string]error{}
	var wg sync.WaitGroup
	for _, p := range list {
		wg.Go(func() {
			defer close(finished[p.Name])
			own := *t
			own.Report = history.hear
			own.phase, own.changes, own.replaced = p.Name, new(atomic.Int64), replaced
			if t.Journal != nil && !t.Journal.readOnly {
				looking := own
				own.Host = journaled{t.Host, t.Journal, p.Name, looking.takeTurn}
			}
			blocked := false
			for _, name := range p.After {
				<-finished[name]
				mu.Lock()
				blocked = blocked || broken[name]
				mu.Unlock()
			}
			fail := func(err error) {
				mu.Lock()
				defer mu.Unlock()
				broken[p.Name] = true
				if err != nil {
					failures[p.Name] = err
				}
			}
			switch {
			case skipped(skip, p.Name):
				if blocked { // what was skipped does not open the way behind a failure
					fail(nil)
				}
				own.report(Event{State: Skipped})
			case blocked:
				fail(nil)
				own.report(Event{State: Blocked})
			default:
				if err := own.run(ctx, p); err != nil {
					fail(err)
				}
			}
		})
	}
	wg.Wait()
	if err := history.write(context.WithoutCancel(ctx)); err != nil {
		t.notice("%v", err)
	}
	var all *multierror.Error
	for _, p := range list {
		if err := failures[p.Name]; err != nil {
			all = multierror.Append(all, err)
		}
	}
	return config.Errors(all)
}

func (t *Target) run(ctx context.Context, p Phase) error {
	begin := time.Now()
	t.report(Event{State: Started, Message: p.Short})
	err := p.Run(ctx, t)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = errors.New("interrupted: run the same command again to finish")
		if cause := context.Cause(ctx); cause != context.Canceled {
			err = fmt.Errorf("interrupted: %w: run the same command again to finish", cause)
		}
	}
	e := Event{State: Unchanged, Seconds: time.Since(begin).Seconds()}
	if t.changes.Load() > 0 {
		e.State = Done
	}
	if err != nil {
		err = fmt.Errorf("phase %s: %w", p.Name, err)
		e.State, e.Message = Failed, err.Error()
	}
	t.report(e)
	return err
}

// check finds mistakes in a list, and in what a user wants skipped, before anything runs.
func check(list []Phase, skip []string) error {
	seen := map[string]bool{}
	for _, p := range list {
		for _, name := range p.After {
			if !seen[name] {
				return fmt.Errorf("phase %s comes after %s, which is not before it in the list", p.Name, name)
			}
		}
		seen[p.Name] = true
	}
	return CheckSkip(list, skip)
}

// CheckSkip finds names that are no phases of the list, and no groups of them.
func CheckSkip(list []Phase, skip []string) error {
	for _, name := range skip {
		if len(Select(list, name)) == 0 {
			return fmt.Errorf("--skip-phases: there is no phase %q: the phases are %s", name, strings.Join(Names(list), ", "))
		}
	}
	return nil
}

func skipped(skip []string, name string) bool {
	group, _, _ := strings.Cut(name, "/")
	return slices.Contains(skip, name) || slices.Contains(skip, group)
}

func (t *Target) report(e Event) {
	if t.Report == nil {
		return
	}
	e.Time, e.Host, e.Phase = time.Now(), t.Node.Name, t.phase
	t.Report(e)
}

func (t *Target) notice(format string, args ...any) {
	t.report(Event{State: Notice, Message: fmt.Sprintf(format, args...)})
}

// changed counts what this phase did; none at the end means "unchanged".
func (t *Target) changed(n int) {
	if t.changes != nil {
		t.changes.Add(int64(n))
	}
	if t.Changes != nil {
		t.Changes.Add(int64(n))
	}
}

// write makes files true on the host.
func (t *Target) write(ctx context.Context, files ...host.File) ([]host.Change, error) {
	changes, err := t.Host.WriteFiles(ctx, files...)
	t.changed(len(changes))
	return changes, err
}

// do runs a command that changes the host.
func (t *Target) do(ctx context.Context, argv ...string) error {
	t.changed(1)
	_, err := t.Host.Run(ctx, host.Cmd(argv...))
	return err
}

// apply makes objects true in the API.
func (t *Target) apply(ctx context.Context, objects ...addons.Object) error {
	changed, err := t.API.Apply(ctx, objects...)
	t.changed(len(changed))
	return err
}

// Select returns the phases that a name means: the one of that name, or all of NAME/...
func Select(list []Phase, name string) []Phase {
	var chosen []Phase
	for _, p := range list {
		if p.Name == name || strings.HasPrefix(p.Name, name+"/") {
			p.After = nil // alone: what comes before is expected to be done
			chosen = append(chosen, p)
		}
	}
	return chosen
}
