package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/phases"
)

var (
	//go:embed testdata/listing.sh
	listingScript string
	//go:embed testdata/killat.sh
	killScript string
)

// One chained run on the same hosts: init is killed in its first phase, run again and killed
// in its second, and so on to the end; the same for join. What comes out is a cluster like
// any other, with the CA of the first run. A further run changes nothing, and after reset the
// hosts are as they were. In a second life, kills come at random.
func TestKilledAnywhereAndRunAgain(t *testing.T) {
	ctx, _ := needLab(t, 8*time.Minute)
	hosts := hosts(ctx, t, lab.HostOptions{}, "killed-cp", "killed-w")
	explainFailure(t, hosts...)
	cp, worker := hosts[0], hosts[1]
	o := cluster.Options{Document: cluster.Document(""), Args: cluster.Bundle, Log: newEventLog(t).add}
	if err := cp.Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(o.Document)); err != nil {
		t.Fatal(err)
	}
	before := []string{listing(ctx, t, cp), listing(ctx, t, worker)}
	init := append([]string{tool, "init", "-o", "json", "--config", "/root/cluster.yaml"}, cluster.Bundle...)

	ca := ""
	for _, p := range phases.Names(phases.Init()) {
		killed(ctx, t, cp, p, init)
		ca = sameCA(ctx, t, cp, ca)
	}
	run(ctx, t, cp, init...)
	join := joinArgv(ctx, t, cp)
	for _, p := range phases.Names(phases.Join()) {
		killed(ctx, t, worker, p, join)
	}
	c, err := cluster.Kubewright(ctx, cp, []*lab.Host{worker}, o) // both to their end
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	sameCA(ctx, t, cp, ca)
	noOp(ctx, t, c, init, join)

	for i, h := range hosts {
		if plan := plannedOn(ctx, t, h, "reset"); !plan["command systemctl disable --quiet --now kubelet"] {
			t.Errorf("the plan of reset says %v", plan)
		}
		run(ctx, t, h, "systemctl", "is-active", "kubelet") // it was a plan
		kubewright(ctx, t, h, "reset", "--yes")
		if diff := cmp.Diff(before[i], listing(ctx, t, h)); diff != "" {
			t.Errorf("reset left on %s, - before, + after:\n%s", h.Name, diff)
		}
	}

	random := newRandom(t)
	ca = ""
	for range 3 {
		killedWithin(ctx, t, cp, random, 9*time.Second, init)
		ca = sameCA(ctx, t, cp, ca)
	}
	c, err = cluster.Kubewright(ctx, cp, []*lab.Host{worker}, o)
	if err != nil {
		t.Fatal(err)
	}
	sameCA(ctx, t, cp, ca)
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// The same for a further control plane; and at each step by which it becomes a member of
// etcd: before and after it is announced, before and after it starts, before and after it votes.
func TestControlPlaneJoinKilledAnywhere(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 6*time.Minute)
	hosts := preparedHosts(ctx, t, "twin-1", "twin-2")
	explainFailure(t, hosts...)
	first, second := hosts[0], hosts[1]
	join := controlPlaneJoin(ctx, t, first)
	ca := sameCA(ctx, t, first, "")
	for _, p := range phases.Names(phases.JoinControlPlane()) {
		switch p {
		case "etcd/join":
			killedAtLine(ctx, t, second, `"name":"add learner `, join)                         // before it is announced, or just after
			killedAtLine(ctx, t, second, `"name":"/etc/kubernetes/manifests/etcd.yaml"`, join) // before it starts
		case "control-plane/apiserver":
			killedAtLine(ctx, t, second, `"name":"promote `, join) // before it votes, or just after
		}
		killed(ctx, t, second, p, join)
	}
	run(ctx, t, second, join...)
	if got := sameCA(ctx, t, second, ca); got != ca {
		t.Error("the keys of the two are not the same")
	}
	voters(ctx, t, second, "twin-1", "twin-2")
	c, err := cluster.WaitAPI(ctx, first, hosts[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	kubewright(ctx, t, second, "reset", "--yes")
	voters(ctx, t, first, "twin-1")
	if out, _, err := c.Kubectl(ctx, "get", "nodes", "-o", "name"); err != nil || out != "node/twin-1\n" {
		t.Errorf("after reset there are the nodes %q: %v", out, err)
	}
}

// controlPlaneJoin makes the first control plane, and returns how others join.
func controlPlaneJoin(ctx context.Context, t *testing.T, first *lab.Host) []string {
	t.Helper()
	if err := first.Write(ctx, "/root/ha.yaml", 0o600, strings.NewReader(cluster.Document("controlPlane: {endpoint: "+first.IP+"}"))); err != nil {
		t.Fatal(err)
	}
	out := kubewright(ctx, t, first, append([]string{"init", "-o", "json", "--upload-certs", "--config", "/root/ha.yaml"}, cluster.Bundle...)...)
	var result struct{ JoinControlPlane string }
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("init printed %q: %v", out, err)
	}
	argv := append([]string{tool}, strings.Fields(result.JoinControlPlane)[1:]...)
	return append(append(argv, "-o", "json"), cluster.Bundle...)
}

// killedAtLine kills a command as soon as the journal has a line that holds a text: just
// before that step is taken, or while it is. Where an earlier kill came late, it is past.
func killedAtLine(ctx context.Context, t *testing.T, h *lab.Host, text string, argv []string) {
	t.Helper()
	const script = `text=$1; shift; journal=/var/lib/kubewright/journal
		there() { grep -qF "$text" $journal 2>/dev/null; }
		if there; then echo past; exit; fi
		"$@" >/dev/null 2>&1 & pid=$!
		while kill -0 $pid 2>/dev/null; do there && kill -KILL $pid; done
		wait $pid; echo $?`
	out := strings.TrimSpace(run(ctx, t, h, append([]string{"bash", "-c", script, "killer", text}, argv...)...))
	t.Logf("to be killed at %s: %s", text, out)
	if out != "137" && out != "past" {
		t.Fatalf("it ended with %s", out)
	}
}

// killed runs a command until a phase begins, and kills it there.
func killed(ctx context.Context, t *testing.T, h *lab.Host, phase string, argv []string) {
	t.Helper()
	at := fmt.Sprintf(`"phase":%q,"state":"started"`, phase)
	stdout, stderr, err := h.Exec(ctx, nil, append([]string{"bash", "-c", killScript, "killat.sh", at}, argv...)...)
	if ended := strings.TrimSpace(stdout); err == nil && ended == "late" && strings.HasPrefix(phase, "wait-") {
		t.Logf("phase %s was over before it could be killed", phase)
	} else if err != nil || ended != "killed" {
		t.Fatalf("killed in phase %s: it ended with %s: %v: %s", phase, strings.TrimSpace(stdout), err, stderr)
	}
}

// newRandom prints its seed; KUBEWRIGHT_SEED gives one.
func newRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("KUBEWRIGHT_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d (KUBEWRIGHT_SEED=%d repeats it)", seed, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// killedWithin kills a command after a random time, if it lasts so long.
func killedWithin(ctx context.Context, t *testing.T, h *lab.Host, random *rand.Rand, limit time.Duration, argv []string) (killed bool) {
	t.Helper()
	after := time.Duration(random.Int64N(int64(limit)))
	seconds := strconv.FormatFloat(after.Seconds(), 'f', 3, 64)
	_, stderr, err := h.Exec(ctx, nil, append([]string{"timeout", "--signal", "KILL", seconds}, argv...)...)
	t.Logf("%s, given %s: killed %t", argv[1], after.Round(time.Millisecond), err != nil)
	if exit, ok := err.(*lab.ExitError); err != nil && (!ok || exit.Code != 137) {
		t.Fatalf("%v: %s", err, errorsOf(stderr))
	}
	return err != nil
}

func errorsOf(events string) (lines []string) {
	for line := range strings.Lines(events) {
		if strings.Contains(line, `"failed"`) || strings.Contains(line, `"Error"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

// sameCA wants the CA of before (empty: none yet), and returns what there is.
func sameCA(ctx context.Context, t *testing.T, h *lab.Host, before string) string {
	t.Helper()
	now := run(ctx, t, h, "sh", "-c", "cat /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/sa.key /etc/kubernetes/pki/etcd/ca.key 2>/dev/null; true")
	if !strings.HasPrefix(now, before) {
		t.Fatal("a key of the cluster is another one than before")
	}
	return now
}

func joinArgv(ctx context.Context, t *testing.T, cp *lab.Host) []string {
	t.Helper()
	argv := strings.Fields(kubewright(ctx, t, cp, "token", "create", "--print-join-command"))
	return append(append([]string{tool, "join", "-o", "json"}, argv[2:]...), cluster.Bundle...)
}

// listing is all of a host that reset must bring back.
func listing(ctx context.Context, t *testing.T, h *lab.Host) string {
	t.Helper()
	return run(ctx, t, h, "sh", "-c", listingScript)
}

// noOp runs init and join where all is done: no event says that something changed, no file
// gets another time, and no object another version. The journal may get a line: flannel's pod
// writes its plugin once more, with the same bytes, and that was read.
func noOp(ctx context.Context, t *testing.T, c *cluster.Cluster, init, join []string) {
	t.Helper()
	files := func() string {
		var all strings.Builder
		for _, h := range []*lab.Host{c.ControlPlane, c.Workers[0]} {
			all.WriteString(run(ctx, t, h, "find", "/etc", "/usr/local", "/opt", "/root", "/var/lib/kubelet/pki", "/var/lib/kubelet/config.yaml", "/lib/systemd", "-printf", "%p %T@ %C@\n"))
		}
		return all.String()
	}
	before, versions := files(), versionsOf(ctx, t, c)
	for h, argv := range map[*lab.Host][]string{c.ControlPlane: init, c.Workers[0]: join} {
		begin := time.Now()
		_, stderr, err := h.Exec(ctx, nil, argv...)
		if err != nil {
			t.Fatalf("%v: %s", err, errorsOf(stderr))
		}
		t.Logf("a no-op %s: %.2f s", argv[1], time.Since(begin).Seconds())
		for line := range strings.Lines(stderr) {
			if strings.Contains(line, `"state":"done"`) {
				t.Errorf("a second %s changed something: %s", argv[1], line)
			}
		}
	}
	if diff := cmp.Diff(before, files()); diff != "" {
		t.Errorf("files were touched:\n%s", diff)
	}
	if diff := cmp.Diff(versions, versionsOf(ctx, t, c)); diff != "" {
		t.Errorf("objects were changed:\n%s", diff)
	}
	for h, argv := range map[*lab.Host][]string{c.ControlPlane: init, c.Workers[0]: join} {
		var plan struct{ Phases []phases.Planned }
		if out := run(ctx, t, h, append(argv, "--dry-run")...); json.Unmarshal([]byte(out), &plan) != nil || len(plan.Phases) > 0 {
			t.Errorf("where nothing is to be done, the dry run of %s says %s", argv[1], out)
		}
	}
}

// ourKinds are the kinds of objects that init makes.
var ourKinds = []schema.GroupVersionResource{
	{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "services"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"}, {Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}, {Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
}

// ourObjects calls f for every object of which we own fields.
func ourObjects(ctx context.Context, t *testing.T, c *cluster.Cluster, f func(*unstructured.Unstructured)) {
	t.Helper()
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range ourKinds {
		list, err := client.Resource(kind).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if slices.ContainsFunc(o.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == phases.FieldManager }) {
				f(o)
			}
		}
	}
}

func versionsOf(ctx context.Context, t *testing.T, c *cluster.Cluster) map[string]string {
	t.Helper()
	versions := map[string]string{}
	ourObjects(ctx, t, c, func(o *unstructured.Unstructured) {
		version := o.GetResourceVersion()
		if _, has := o.Object["status"]; has && o.GetKind() != "Namespace" { // of which others keep writing
			version = fmt.Sprint("generation ", o.GetGeneration())
		}
		versions[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = version
	})
	return versions
}

// dated are parts of names that are not the same in two runs.
var dated = regexp.MustCompile(`kubelet-client-[0-9-]+|bootstrap-token-[a-z0-9]{6}`)

// plannedOn is what a command would do on a host, as a set: files, commands, images and objects.
func plannedOn(ctx context.Context, t *testing.T, h *lab.Host, argv ...string) map[string]bool {
	t.Helper()
	var plan struct{ Phases []phases.Planned }
	out := run(ctx, t, h, append(append([]string{tool}, argv...), "-o", "json", "--dry-run")...)
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatalf("--dry-run printed %q: %v", out, err)
	}
	all := map[string]bool{}
	for _, p := range plan.Phases {
		for _, s := range p.Steps {
			if strings.HasPrefix(s.Name, "Node ") || strings.HasPrefix(s.Name, "CertificateSigningRequest ") {
				continue // an update, which leaves no mark of its own; and one that is gone soon
			}
			all[s.Kind+" "+dated.ReplaceAllString(s.Name, "X")] = true
		}
	}
	return all
}

// doneOn is what the journal of a host says was done, in the same words.
func doneOn(ctx context.Context, t *testing.T, h *lab.Host) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for line := range strings.Lines(run(ctx, t, h, "cat", "/var/lib/kubewright/journal")) {
		var s phases.Step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		switch {
		case s.Kind == "file" && s.After == "dir 0755" && s.Name != "/lib/modules": // a folder above something, of which no plan speaks
		case s.Kind == "file", s.Kind == "image":
			all[string(s.Kind)+" "+dated.ReplaceAllString(s.Name, "X")] = true
		case s.Kind == "command":
			all["command "+strings.Join(s.Argv, " ")] = true
		}
	}
	return all
}
