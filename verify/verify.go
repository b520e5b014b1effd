// Package verify shows on a running cluster what a cluster must do: a kubeconfig goes in, one
// result per statement comes out.
//
// The statements are numbered as in the project's notes; [Checks] lists them, and reading it
// is reading what is shown. Checks need nothing but the API: what has to be seen from a node is
// seen by probes, pods that run on every node, into which checks exec (package probe). All that is made lives
// in namespaces with [Label], which are deleted whatever happens; a node that is cordoned carries a mark. What a
// killed run left, the next one undoes. So there is one run at a time on a cluster.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

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
		{1, "etcd-alone", "all calls go through the API server; it alone talks to etcd", etcdAlone},
		{2, "scheduling", "the scheduler finds a node; a pod can be bound to one; a pod that fits nowhere stays pending", scheduling},
		{3, "controllers", "controllers drive the declared state: Deployment, ReplicaSet, Pod", controllers},
		{4, "dns", "CoreDNS answers names and discovers services, on every node", dns},
		{5, "etcd-state", "etcd has one leader and followers, appends and compacts, and can be backed up", etcdState},
		{6, "node-agents", "every node runs a kubelet, a system service, and kube-proxy", nodeAgents},
		{7, "containers", "the kubelet makes containers of a PodSpec with the node's own engine; they read a Secret, a ConfigMap, an emptyDir", containers},
		{8, "service-rules", "kube-proxy makes services reachable by rules on each node", serviceRules},
		{9, "shared-pod", "containers of a pod share its IP, loopback and volumes", sharedPod},
		{10, "init-containers", "init containers run first, to the end; one that fails is run again, and the main one waits", initContainers},
		{11, "namespaces", "namespaces separate; some objects are in them, some are not; quotas apply", namespaces},
		{12, "cordon", "a node can be made unschedulable, and schedulable again", cordon},
		{13, "contexts", "a kubeconfig has contexts of cluster, user and namespace, which can be switched", contexts},
		{14, "labels", "labels select; annotations are added, overwritten and removed", labels},
		{15, "endpoints", "matching pods become endpoints as they come and go; only ready ones receive", endpoints},
		{16, "etcd-members", "exec into etcd lists its members", etcdMembers},
		{17, "can-i", "who may do what is asked and answered, also for another user and in a namespace", canI},
		{18, "health-probes", "not ready: no traffic; dead: restarted; starting: the others wait", healthProbes},
		{19, "ranges", "the ranges of pods and services are in nobody's way", ranges},
		{20, "pod-network", "all pods reach all pods, and all nodes all pods, without NAT", podNetwork},
		{21, "calico", "Calico: a flat L3 network with policies, and its routes on every node", calico},
		{22, "flannel", "flannel: an L3 network, and a subnet lease for each node", flannel},
		{23, "weave", "Weave: every node is connected to all others", weave},
		{24, "service-types", "ClusterIP, NodePort, LoadBalancer and headless services, and what is refused", serviceTypes},
		{25, "balancing", "a service picks one of its endpoints at random", balancing},
		{26, "pod-ip", "a pod keeps its IP for life, and has it before its containers start", podIP},
		{27, "ingress", "an ingress controller routes by host and path", ingress},
		{28, "export", "objects can be written to YAML and made again elsewhere", export},
		{29, "optional", "connectivity service, process monitor, cluster-wide logging, several networks per pod", optional},
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
	// Hosts can be reached otherwise than through the cluster, by the names of their nodes; they let some checks tell more.
	Hosts map[string]Runner
	// Contexts tries the kubeconfig commands on the cluster of a kubeconfig, and says what it has seen.
	Contexts func(ctx context.Context, kubeconfig []byte) (string, error)
}

// Runner runs a command that changes nothing on a host, and returns what it printed.
type Runner func(ctx context.Context, argv ...string) (stdout string, err error)

// Run runs the checks, and returns a result for each and one for the cleaning up. Its error is
// about the run itself: a kubeconfig that doesn't work, an API that doesn't answer.
func Run(ctx context.Context, o Options) ([]Result, error) {
	list, err := choose(Checks(), o.Only, o.Skip)
	if err != nil {
		return nil, err
	}
	ctx = quiet(ctx)
	c, err := connect(ctx, o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	c.image, c.hosts, c.contexts = o.Image, o.Hosts, o.Contexts
	if err := c.hasHosts(); err != nil {
		return nil, err
	}
	if _, err := c.remove(ctx, Label+"=true"); err != nil {
		return nil, err
	}
	c.share(ctx)

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
				known = append(known, c.Name)
			}
			return nil, fmt.Errorf("there is no check %q: write the row of one, as --help has them, or its name, one of %s", w, strings.Join(known, ", "))
		}
	}
	left := slices.DeleteFunc(slices.Clone(list), func(c Check) bool {
		return only != nil && !slices.ContainsFunc(only, c.is) || slices.ContainsFunc(skip, c.is)
	})
	if len(left) == 0 { // and nothing would be shown, with success
		return nil, errors.New("no check is left to run: --skip leaves out all that --only names")
	}
	return left, nil
}

// Validate says whether Only and Skip name checks, and leave some to run.
func (o Options) Validate() error {
	_, err := choose(Checks(), o.Only, o.Skip)
	return err
}

func (check Check) is(word string) bool { return word == check.Name || word == check.ID() }

// ID is the row, or the name where there is none.
func (check Check) ID() string {
	if check.Row == 0 {
		return check.Name
	}
	return strconv.Itoa(check.Row)
}
