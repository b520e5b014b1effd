package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
)

// up makes of a fleet what Up acts on: the document complete, the artifacts found.
func (o *fleetOptions) up(ctx context.Context, f *fleet, v *view) (*phases.Up, error) {
	u := o.newUp(f, v)
	if err := o.apply(&f.cluster.Spec.Artifacts); err != nil {
		return nil, misuse(err)
	}
	versions := u.Versions(ctx)
	if v := f.cluster.Spec.KubernetesVersion; f.cluster.Spec.Provider.Name == "kind" && o.bundle == "" && v != "" && versions.Kubernetes != "" && v != versions.Kubernetes {
		return nil, misuse(fmt.Errorf("Kubernetes %s is asked for, and the image, or the cluster that is there, has %s: leave the version out, or name an image that has it with --image", v, versions.Kubernetes))
	}
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
		return nil, misuse(fmt.Errorf("%s is not valid: %w", o.source(), err))
	}
	if p := f.cluster.Spec.Patches; p != "" {
		if u.Patches, err = manifests.LoadPatches(os.DirFS(p)); err != nil {
			return nil, misuse(fmt.Errorf("spec.patches: %w", err))
		}
	}
	switch l := u.Lock(); {
	case u.Bundle != nil || !u.Installs():
	case !o.whole:
		u.Bundle, err = o.resolveFor(ctx, u, v)
	case l != nil: // to compare with; nothing is downloaded for who only looks
		u.Bundle, err = o.adopt(u.Cluster.Spec.Artifacts, *l)
	}
	if err != nil {
		return nil, err
	}
	if phases.Networks(phases.Init(), o.skip) && !o.prepare {
		u.Material, err = o.material(ctx, u.Cluster, u.Bundle, o.bundle != "", platforms(u.Machines)[0])
		if err != nil && !o.whole { // who only looks is told of it where it is missing
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

	Expires time.Time `json:"expires,omitzero"` // its containers, by --ttl

	kubeconfig string // that was named
}

func (o *fleetOptions) done(v *view, r fleetResult, said string) error {
	v.close()
	if o.out() == "json" {
		v.result(r)
		return nil
	}
	fmt.Printf("\n%s (%d %s in %.1f s).\n", said, r.Changes, plural("change", r.Changes), r.Seconds)
	if !r.Expires.IsZero() {
		fmt.Printf("\n  %s\n", ends(r.Expires))
	}
	if file, err := filepath.Abs(r.kubeconfig); err == nil && r.Context != "" && r.kubeconfig != "" {
		fmt.Printf("\n  export KUBECONFIG=%s\n", shellescape.Quote(file))
	}
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
		return o.resolve(ctx, u.Cluster, phases.Images(u.Cluster), phases.Documents(u.Cluster), platforms(u.Machines), moved)
	})
	return t.Bundle, err
}
