package phases

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/host"
)

// HostPlan is what would be done to a host; from the first control plane to the cluster as well.
type HostPlan struct {
	Host   string    `json:"host"`
	Error  string    `json:"error,omitempty"` // why it would be left as it is
	Phases []Planned `json:"phases,omitempty"`
}

// Plan is what Run would do. Nothing is changed.
func (u *Up) Plan(ctx context.Context) ([]HostPlan, error) {
	if err := u.preflight(ctx, false); err != nil {
		return nil, err
	}
	if u.Report != nil && len(u.members) > 0 && !u.Answers(ctx) {
		u.Report(Event{Time: time.Now(), Phase: "plan", State: Notice, Message: "no API server of this cluster answers: which of its objects up would change, once one does, cannot be told; those below are all that it has"})
	}
	u.planning = true
	defer func() { u.planning = false }()
	plans := make([]HostPlan, len(u.Machines))
	g, ctx := errgroup.WithContext(ctx)
	for i, m := range u.Machines {
		plans[i].Host = m.Node.Name
		if m.Err != nil {
			plans[i].Error = m.Err.Error()
		}
		if !u.chosen(m) {
			continue
		}
		g.Go(func() (err error) {
			t, list := u.target(m)
			list = without(list, "preflight")
			if plans[i].Phases, err = Plan(ctx, list, t, u.skips(list)); err != nil {
				return fmt.Errorf("%s: %w", m.Node.Name, err)
			}
			if t.Discover != nil {
				maskMembers(plans[i].Phases)
			}
			return nil
		})
	}
	return plans, g.Wait()
}

// planned is the cluster's API for a plan: one that is not there yet has nothing in it.
func (u *Up) planned(ctx context.Context) API {
	if u.Answers(ctx) {
		return u.api
	}
	return &APIRecorder{}
}

var initialCluster = regexp.MustCompile(`--initial-cluster=\S+`)

// maskMembers hides which members of etcd a joining one is told of: those of the moment, and
// several may join in any order.
func maskMembers(plan []Planned) {
	for _, p := range plan {
		for i := range p.Steps {
			p.Steps[i].Diff = initialCluster.ReplaceAllString(p.Steps[i].Diff, "--initial-cluster=(the members of then)")
		}
	}
}

// PlanDigest is the same for two plans if they do the same to hosts and objects that are the
// same: of everything that would be changed, a plan has what it is now.
func PlanDigest(document, version, lock string, plans []HostPlan) (string, error) {
	b, err := json.Marshal([]any{document, version, lock, plans})
	return host.Digest(b), err
}
