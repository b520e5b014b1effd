package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/aws"
)

// clusterPlan is what `plan` prints as JSON and `up --plan` reads.
type clusterPlan struct {
	Kind string `json:"kind"`
	// The digests of what the plan was made from, and of all of it together with what the plan says.
	Document string            `json:"document"`
	Version  string            `json:"version"` // of kubewright
	Lock     string            `json:"lock,omitempty"`
	Digest   string            `json:"digest"`
	Changes  int               `json:"changes"`
	Hosts    []phases.HostPlan `json:"hosts"`
	Error    string            `json:"error,omitempty"` // why it can't be told what the hosts would get: such a plan is none to go by
	Where    string            `json:"where,omitempty"` // account and region of AWS
	Notes    []string          `json:"notes,omitempty"` // what of the document machines would not get that are there
	// Infrastructure is what would be made, changed or deleted of machines that are not there for themselves.
	Infrastructure []aws.Change `json:"infrastructure,omitempty"`
	// Leaving are nodes that would leave the cluster: those of machines that are too many, or are no more.
	Leaving []string `json:"leaving,omitempty"`
}

func newPlan(out func() output) *cobra.Command {
	o := &fleetOptions{out: out, again: true}
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what up would change, and change nothing",
		Long: `Show what "kubewright up" would change on every host and in the cluster, and change nothing.
Files are shown as unified diffs, secrets never. With provider aws it begins with what would be made, changed and deleted in EC2. "up --plan FILE" takes the plan that -o json
prints, looks again, and does exactly that, or refuses.

The exit code is 0 whether or not anything would change; "changes" in the JSON says how much.`,
		Example: `  kubewright plan -f cluster.yaml
  kubewright plan -f cluster.yaml -o json
  kubewright plan -f aws.yaml
  kubewright up -f cluster.yaml --plan plan.json`,
		Args: fileNotArgument,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.within(cmd.Context(), o.runPlan) },
	}
	o.reachFlags(cmd)
	o.kind.nameFlags(cmd)
	o.changeFlags(cmd, phases.UpPhases())
	return cmd
}

func (o *fleetOptions) runPlan(ctx context.Context) error {
	v := newView(o.out())
	defer v.close()
	defer o.aws.tell(v)()
	if _, only, err := o.onlyInfrastructure(); err != nil {
		return err
	} else if only {
		return misuse(fmt.Errorf("--only %s: a plan of the whole cluster begins with that: leave it out", infrastructure))
	}
	around, err := o.planAWS(ctx)
	if err != nil {
		return err
	}
	text := o.out() != "json"
	if around.of && text && len(o.only) == 0 { // whatever comes of the hosts
		printInfrastructure(os.Stdout, around.where, around.changes, around.notes)
	}
	p := clusterPlan{Kind: "ClusterPlan", Version: version}
	var untold error
	machines := !around.of || len(around.hosts) > 0
	if machines {
		p, untold = o.planHosts(ctx, v)
	}
	if !around.of && untold != nil {
		return untold
	}
	p.Where, p.Notes = around.where, around.notes
	p.Infrastructure, p.Changes = around.changes, p.Changes+len(around.changes)+len(p.Leaving)
	v.close()
	switch {
	case !text:
		if untold != nil {
			p.Error = untold.Error()
		}
		v.result(p)
	case !machines:
		fmt.Println("What the hosts would get can be told when they are there.")
	case untold == nil:
		printClusterPlan(os.Stdout, p)
	}
	if text && len(around.changes) > 0 {
		fmt.Println(infrastructureSummary(around.changes))
	}
	if untold != nil {
		return fmt.Errorf("what the hosts would get can't be told: %w", untold)
	}
	return nil
}

func (o *fleetOptions) planHosts(ctx context.Context, v *view) (clusterPlan, error) {
	f, u, err := o.begin(ctx, "", v)
	if err != nil {
		return clusterPlan{Kind: "ClusterPlan", Version: version}, err
	}
	defer f.close()
	return o.plan(ctx, f, u)
}

func (o *fleetOptions) plan(ctx context.Context, f *fleet, u *phases.Up) (p clusterPlan, err error) {
	p = clusterPlan{Kind: "ClusterPlan", Version: version}
	document, err := f.cluster.Print()
	if err != nil {
		return p, err
	}
	p.Document = host.Digest(document)
	if u.Bundle != nil {
		p.Lock = u.Bundle.Lock().Digest()
	}
	if len(o.only) == 0 {
		u.Only = o.aws.staying(f.cluster)
	}
	if len(o.only) == 0 && !o.prepare {
		if p.Leaving, err = o.aws.lost(ctx, u); err != nil {
			return p, err
		}
		p.Leaving = append(p.Leaving, o.aws.surplus()...)
	}
	if p.Hosts, err = u.Plan(ctx); err != nil {
		return p, err
	}
	for _, h := range p.Hosts {
		for _, phase := range h.Phases {
			p.Changes += len(phase.Steps)
		}
	}
	p.Digest, err = phases.PlanDigest(p.Document, p.Version, p.Lock, p.Hosts)
	return p, err
}

func printClusterPlan(w io.Writer, p clusterPlan) {
	var all []phases.Planned
	for _, h := range p.Hosts {
		switch {
		case slices.Contains(p.Leaving, h.Host): // said below
		case h.Error != "":
			fmt.Fprintf(w, "## %s would be left as it is: %s\n\n", h.Host, h.Error)
		case h.Phases == nil:
			fmt.Fprintf(w, "## %s: nothing\n\n", h.Host)
		default:
			fmt.Fprintf(w, "## %s\n\n", h.Host)
			printPhases(w, h.Phases)
		}
		all = append(all, h.Phases...)
	}
	for _, name := range p.Leaving {
		fmt.Fprintf(w, "## %s would leave the cluster\n\n", name)
	}
	if len(p.Infrastructure)+len(p.Leaving) == 0 || len(all) > 0 {
		fmt.Fprintln(w, planSummary(all))
	}
}

// savedPlan is one that somebody has looked at, and wants done.
type savedPlan struct {
	file string
	clusterPlan
}

// readPlan refuses what is no plan, or not of this kubewright.
func readPlan(file string) (*savedPlan, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, misuse(fmt.Errorf("--plan: %w", err))
	}
	p := &savedPlan{file: file}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&p.clusterPlan); err != nil || p.Kind != "ClusterPlan" {
		return nil, misuse(fmt.Errorf("--plan %s: this is not what `kubewright plan -o json` prints", file))
	}
	digest, err := phases.PlanDigest(p.Document, p.Version, p.Lock, p.Hosts)
	switch {
	case err != nil:
		return nil, err
	case p.Error != "":
		return nil, p.stale("it could not tell what the hosts would get")
	case p.Digest == "":
		return nil, p.stale("it was made before there were hosts, which `kubewright up --only infrastructure` makes")
	case digest != p.Digest:
		return nil, p.stale("somebody has changed the plan")
	case p.Version != version:
		return nil, p.stale(fmt.Sprintf("it was made by kubewright %s, and this is %s", p.Version, version))
	}
	return p, nil
}

func (p *savedPlan) stale(what string) error {
	return &phases.NotReadyError{Err: fmt.Errorf("the plan in %s is not what would be done now: %s; make a new one with `kubewright plan`", p.file, what)}
}

// fits refuses a plan of other machines than AWS tells of, before any of them is asked.
func (p *savedPlan) fits(around awsPlan) error {
	switch {
	case !slices.Equal(p.Infrastructure, around.changes):
		return p.stale("other machines would leave the cluster, or be ended")
	case around.of && !slices.EqualFunc(p.Hosts, around.hosts, func(h phases.HostPlan, name string) bool { return h.Host == name }):
		return p.stale("it is of other machines")
	}
	return nil
}

// same refuses a plan that is not what would be done now.
func (p *savedPlan) same(now clusterPlan) error {
	switch {
	case p.Document != now.Document:
		return p.stale("the document is another one")
	case p.Lock != now.Lock:
		return p.stale("the artifacts are others")
	case !slices.Equal(p.Leaving, now.Leaving):
		return p.stale("other machines would leave the cluster, or be ended")
	case p.Digest == now.Digest:
		return nil
	}
	for i, h := range now.Hosts {
		if i >= len(p.Hosts) || !reflect.DeepEqual(h, p.Hosts[i]) {
			return p.stale(h.Host + " is no longer as it was")
		}
	}
	return p.stale("it is of other hosts")
}
