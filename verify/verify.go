// Package verify shows on a running cluster what a cluster must do: a kubeconfig goes in, one
// result per statement comes out.
//
// The statements are numbered as in the project's notes; [Checks] lists them, and reading it
// is reading what is shown. Checks need nothing but the API: what has to be seen from a node is
// seen by probes, pods that run on every node, into which checks exec. All that is made lives
// in namespaces with [Label], which are deleted whatever happens; what a killed run left, the
// next one deletes. So there is one run at a time on a cluster.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// DefaultImage is the probe's: any image with busybox's commands will do.
const DefaultImage = "kubewright.test/probe:v1"

// Check shows one statement.
type Check struct {
	Row       int    // of the statement; 0 where there is none
	Name      string // one word, unique
	Statement string
	// Run says in one line what was seen, and returns an error that names what is broken, or
	// skip where the statement can't hold on this cluster.
	Run func(ctx context.Context, c *Cluster) (detail string, err error)
}

// Checks are in the order of their rows. They run at the same time, and don't disturb one another.
func Checks() []Check {
	return []Check{
		{2, "scheduling", "the scheduler finds a node; a pod can be bound to one; a pod that fits nowhere stays pending", scheduling},
		{3, "controllers", "controllers drive the declared state: Deployment, ReplicaSet, Pod", controllers},
		{4, "dns", "CoreDNS answers names and discovers services, on every node", dns},
		{8, "service-rules", "kube-proxy makes services reachable by rules on each node", serviceRules},
		{16, "etcd-members", "exec into etcd lists its members", etcdMembers},
		{20, "pod-network", "all pods reach all pods, and all nodes all pods, without NAT", podNetwork},
		{24, "service-types", "ClusterIP, NodePort, LoadBalancer and headless services, and what is refused", serviceTypes},
		{0, "exec", "kubectl exec reaches pods on every node", execs},
		{0, "logs", "kubectl logs reaches pods on every node", logs},
		{0, "port-forward", "kubectl port-forward reaches pods on every node", portForwards},
	}
}

// Status of a check.
type Status string

// What a check can come to.
const (
	Pass    Status = "pass"
	Fail    Status = "fail"
	Skipped Status = "skipped"
)

// Result is what a check came to.
type Result struct {
	Row       int     `json:"row,omitempty"`
	Name      string  `json:"name"`
	Statement string  `json:"statement"`
	Status    Status  `json:"status"`
	Seconds   float64 `json:"seconds"`
	Detail    string  `json:"detail"` // what was seen, what is broken (a line each), or why it was skipped
}

// skip is the reason why a statement can't hold here.
type skip string

func (s skip) Error() string { return string(s) }

// Options of a run.
type Options struct {
	Kubeconfig []byte
	Image      string   // of the probes
	Only, Skip []string // rows or names of checks
	Report     func(Result)
}

// Run runs the checks, and returns a result for each and one for the cleaning up. Its error is
// about the run itself: a kubeconfig that doesn't work, an API that doesn't answer.
func Run(ctx context.Context, o Options) ([]Result, error) {
	list, err := choose(Checks(), o.Only, o.Skip)
	if err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	c, err := connect(ctx, o.Kubeconfig, o.Image)
	if err != nil {
		return nil, err
	}
	if _, err := c.remove(ctx, Label+"=true"); err != nil {
		return nil, err
	}
	c.probes = sync.OnceValues(func() ([]*probe, error) { return c.startProbes(ctx) })

	var report sync.Mutex
	results := make([]Result, len(list))
	var wg sync.WaitGroup
	for i, check := range list {
		wg.Go(func() {
			results[i] = check.run(ctx, c)
			report.Lock()
			defer report.Unlock()
			o.report(results[i])
		})
	}
	wg.Wait()
	tidy := Check{Name: "cleanup", Statement: "nothing stays behind", Run: cleanup}.run(ctx, c)
	o.report(tidy)
	return append(results, tidy), nil
}

// quiet: client-go's watches log what they try again by themselves; the errors here say what matters.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }

func (o Options) report(r Result) {
	if o.Report != nil {
		o.Report(r)
	}
}

func (check Check) run(ctx context.Context, c *Cluster) Result {
	start := time.Now()
	detail, err := check.Run(ctx, c)
	r := Result{Row: check.Row, Name: check.Name, Statement: check.Statement, Status: Pass, Detail: detail}
	var s skip
	switch {
	case errors.As(err, &s):
		r.Status, r.Detail = Skipped, string(s)
	case err != nil:
		r.Status, r.Detail = Fail, err.Error()
	}
	r.Seconds = time.Since(start).Seconds()
	return r
}

// choose keeps the checks that only and skip, rows or names, leave.
func choose(list []Check, only, skip []string) ([]Check, error) {
	for _, w := range slices.Concat(only, skip) {
		if !slices.ContainsFunc(list, func(c Check) bool { return c.is(w) }) {
			var known []string
			for _, c := range list {
				known = append(known, c.id())
			}
			return nil, fmt.Errorf("there is no check %q: the checks are %q", w, known)
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(c Check) bool {
		return only != nil && !slices.ContainsFunc(only, c.is) || slices.ContainsFunc(skip, c.is)
	}), nil
}

func (check Check) is(word string) bool { return word == check.Name || word == check.id() }

// id is the row, or the name where there is none.
func (check Check) id() string {
	if check.Row == 0 {
		return check.Name
	}
	return strconv.Itoa(check.Row)
}
