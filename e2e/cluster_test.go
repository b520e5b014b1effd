package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// One control plane and two workers from bare hosts, by our commands alone; then all that a
// living cluster can show. The order is what needs what: those that only look run at the same
// time, those that change the cluster after them, one by one.
func TestCluster(t *testing.T) {
	ctx, l := needLab(t, 8*time.Minute)
	hosts := hosts(ctx, t, lab.HostOptions{}, "cp-1", "w-1", "w-2")
	explainFailure(t, hosts...)
	events := newEventLog(t)
	begin := time.Now()
	o := cluster.Options{Document: cluster.Document(""), Args: cluster.Bundle, Log: events.add}
	if err := hosts[0].Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(o.Document)); err != nil {
		t.Fatal(err)
	}
	planned := plannedOn(ctx, t, hosts[0], append([]string{"init", "--config", "/root/cluster.yaml"}, cluster.Bundle...)...)
	if left := run(ctx, t, hosts[0], "sh", "-c", "ls -d /var/lib/kubewright /run/kubewright /etc/kubernetes 2>/dev/null; true"); left != "" {
		t.Errorf("a dry run wrote %s", left)
	}
	begin = time.Now()
	c, err := cluster.Kubewright(ctx, hosts[0], hosts[1:], o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("bare hosts to a cluster with DNS: %.1f s", time.Since(begin).Seconds())
	t.Run("a dry run says what the run does", func(t *testing.T) {
		done := doneOn(ctx, t, c.ControlPlane)
		ourObjects(ctx, t, c, func(o *unstructured.Unstructured) {
			done["object "+dated.ReplaceAllString(strings.Replace(o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName(), " /", " ", 1), "X")] = true
		})
		// An apply that gives nothing but a name leaves no mark of who made it.
		for _, account := range []string{"coredns", "kube-proxy"} {
			if _, err := c.Client.CoreV1().ServiceAccounts("kube-system").Get(ctx, account, metav1.GetOptions{}); err == nil {
				done["object ServiceAccount kube-system/"+account] = true
			}
		}
		if diff := cmp.Diff(planned, done); diff != "" {
			t.Errorf("- planned, + done:\n%s", diff)
		}
	})
	spare := preparedHosts(ctx, t, "spare")[0]
	explainFailure(t, c.ControlPlane, spare)
	kubeadm, err := l.Binary(ctx, "kubeadm")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ControlPlane.CopyTo(ctx, kubeadm, cluster.KubeadmPath); err != nil {
		t.Fatal(err)
	}

	t.Run("looked at", func(t *testing.T) {
		t.Run("verify", parallel(ctx, c, verified))
		t.Run("tokens are made, listed and deleted", parallel(ctx, c, tokens))
		t.Run("kubeadm certs check-expiration", parallel(ctx, c, certsCheckExpiration))
		t.Run("a join is refused", parallel(ctx, c, func(ctx context.Context, t *testing.T, c *cluster.Cluster) { refusedJoins(ctx, t, c, spare) }))
	})
	t.Run("a join is refused by tampered cluster-info", func(t *testing.T) { tamperedClusterInfo(ctx, t, c, spare) })
	t.Run("a second init leaves CA and keys alone", func(t *testing.T) { secondInit(ctx, t, c) })
	t.Run("kubeadm upgrade plan", func(t *testing.T) { upgradePlan(ctx, t, c) })
	t.Run("verify finds what is broken", func(t *testing.T) { findsWhatIsBroken(ctx, t, c) })
	t.Run("changed", func(t *testing.T) {
		t.Run("kubeadm joins a worker by the command that it prints", parallel(ctx, c, func(ctx context.Context, t *testing.T, c *cluster.Cluster) { kubeadmJoins(ctx, t, c, spare) }))
		t.Run("a worker is reset and joins again", parallel(ctx, c, resetAndJoin))
	})
}

// parallel is a subtest that runs beside others.
func parallel(ctx context.Context, c *cluster.Cluster, test func(context.Context, *testing.T, *cluster.Cluster)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		test(ctx, t, c)
	}
}

var joinCommand = regexp.MustCompile(`^(\S+ join) 10\.213\.\d+\.\d+:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --discovery-token-ca-cert-hash sha256:[0-9a-f]{64}\s*$`)

func tokens(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	cp := c.ControlPlane
	list := func() map[string]string {
		t.Helper()
		var tokens []struct{ ID, Description string }
		out := kubewright(ctx, t, cp, "token", "list", "-o", "json")
		if err := json.Unmarshal([]byte(out), &tokens); err != nil {
			t.Fatalf("token list printed %q: %v", out, err)
		}
		found := map[string]string{}
		for _, tk := range tokens {
			found[tk.ID] = tk.Description
		}
		return found
	}
	printed := strings.TrimSpace(kubewright(ctx, t, cp, "token", "create", "--ttl", "1h", "--description", "for a test"))
	id, secret, _ := strings.Cut(printed, ".")
	if list()[id] != "for a test" {
		t.Errorf("token %s is not in the list: %v", id, list())
	}
	if out := kubewright(ctx, t, cp, "token", "list"); strings.Contains(out, secret) || !strings.Contains(out, id) {
		t.Errorf("token list shows a secret, or lacks %s:\n%s", id, out)
	}
	refused(ctx, t, cp, []string{tool, "token", "create", printed}, "there is a token "+id+" already", "kubewright token delete "+id)
	if out := kubewright(ctx, t, cp, "token", "delete", id); !strings.Contains(out, "token "+id+" deleted") {
		t.Errorf("token delete printed %q", out)
	}
	if _, ok := list()[id]; ok {
		t.Errorf("token %s is still in the list", id)
	}
	refused(ctx, t, cp, []string{tool, "token", "delete", id}, "there is no token "+id, "kubewright token list")

	join := kubewright(ctx, t, cp, "token", "create", "--print-join-command")
	if m := joinCommand.FindStringSubmatch(join); m == nil || m[1] != "kubewright join" {
		t.Errorf("token create --print-join-command printed %q", join)
	}
}

// certsCheckExpiration wants kubeadm to know every certificate, and to find none missing.
func certsCheckExpiration(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	out := run(ctx, t, c.ControlPlane, cluster.KubeadmPath, "certs", "check-expiration")
	for _, name := range strings.Fields(`admin.conf apiserver apiserver-etcd-client apiserver-kubelet-client controller-manager.conf
		etcd-healthcheck-client etcd-peer etcd-server front-proxy-client scheduler.conf super-admin.conf ca etcd-ca front-proxy-ca`) {
		years := "364d"
		if strings.HasSuffix(name, "ca") {
			years = "9y"
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` .* ` + years + ` .* no\s*$`).MatchString(out) {
			t.Errorf("kubeadm does not see %s valid for %s, and managed by itself:\n%s", name, years, out)
		}
	}
	if strings.Contains(out, "MISSING") {
		t.Errorf("kubeadm misses something:\n%s", out)
	}
}

// secondInit runs init where a control plane runs.
func secondInit(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	digests := func() string {
		return run(ctx, t, c.ControlPlane, "sh", "-c", "find /etc/kubernetes -type f | sort | xargs sha256sum; find /var/lib/kubelet/pki | sort")
	}
	before := digests()
	kubewright(ctx, t, c.ControlPlane, append([]string{"init", "--config", "/root/cluster.yaml"}, cluster.Bundle...)...)
	if after := digests(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	// Without the bundle, and without the document, what runs goes on.
	for _, args := range [][]string{{"init", "--config", "/root/cluster.yaml"}, {"init"}} {
		if plan := plannedOn(ctx, t, c.ControlPlane, args...); len(plan) > 0 {
			t.Errorf("%v without the bundle would %v", args, plan)
		}
	}
	refusedWith(ctx, t, c.Workers[0], 3, append([]string{tool, "init"}, cluster.Bundle...), "this host is a node of the cluster at "+c.ControlPlane.IP+":6443 already", "kubewright reset")
}

// upgradePlan wants kubeadm to find everything that it would upgrade. Where to is said, as
// there is no internet to ask; the release after its own needs a newer kubeadm only to apply it.
func upgradePlan(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	out := run(ctx, t, c.ControlPlane, cluster.KubeadmPath, "upgrade", "plan", "v1.36.4",
		// kubeadm knows the CoreDNS releases until its own; the lab has built a later one.
		"--ignore-preflight-errors=SystemVerification,CoreDNSUnsupportedPlugins,CoreDNSMigration")
	version := regexp.QuoteMeta(strings.TrimPrefix(lab.KubernetesVersion, "v"))
	want := []string{`kubeadm upgrade apply v1\.36\.4`, `kube-proxy +` + version + ` +v1\.36\.4`, `CoreDNS +v1\.15\.0 +v1\.14\.2`,
		`etcd +cp-1 +3\.6\.8-0 +3\.6\.8-0`, `kubeproxy\.config\.k8s\.io +v1alpha1 +v1alpha1 +no`, `kubelet\.config\.k8s\.io +v1beta1 +v1beta1 +no`}
	for _, component := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		want = append(want, component+` +cp-1 +v`+version+` +v1\.36\.4`)
	}
	for _, node := range c.NodeNames() {
		want = append(want, `kubelet +`+node+` +v`+version+` +v1\.36\.4`)
	}
	for _, line := range want {
		if !regexp.MustCompile(`(?m)^\s*` + line + `\s*$`).MatchString(out) {
			t.Errorf("kubeadm's plan has no line %s:\n%s", line, out)
		}
	}
}

// kubeadmJoins has the real kubeadm print a command and obey it, on a host where our joins were refused.
func kubeadmJoins(ctx context.Context, t *testing.T, c *cluster.Cluster, worker *lab.Host) {
	out := run(ctx, t, c.ControlPlane, cluster.KubeadmPath, "token", "create", "--print-join-command")
	if m := joinCommand.FindStringSubmatch(out); m == nil || m[1] != "kubeadm join" {
		t.Fatalf("kubeadm token create --print-join-command printed %q", out)
	}
	if err := cluster.KubeadmJoin(ctx, worker, strings.Fields(out)[2:]...); err != nil {
		t.Fatal(err)
	}
	own := *c
	own.Workers = []*lab.Host{worker}
	if err := own.WaitNodes(ctx); err != nil {
		t.Error(err)
	}
}

// resetAndJoin takes a worker out of the cluster and in again.
func resetAndJoin(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	worker := c.Workers[1]
	uid := nodeUID(ctx, t, c, worker.Name)
	kubewright(ctx, t, worker, "reset", "--yes")
	if _, _, err := c.Kubectl(ctx, "delete", "node", worker.Name); err != nil {
		t.Fatal(err)
	}
	unreachableInTheMiddle(ctx, t, c, worker)
	if err := c.WaitNodes(ctx); err != nil {
		t.Error(err)
	}
	if nodeUID(ctx, t, c, worker.Name) == uid {
		t.Errorf("node %s is the one from before", worker.Name)
	}
}

func nodeUID(ctx context.Context, t *testing.T, c *cluster.Cluster, name string) string {
	t.Helper()
	node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(node.UID)
}

// clusterInfo waits until cluster-info is as wanted.
func waitClusterInfo(ctx context.Context, t *testing.T, c *cluster.Cluster, what string, want func(*corev1.ConfigMap) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w, err := c.Client.CoreV1().ConfigMaps("kube-public").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=cluster-info"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if cm, ok := e.Object.(*corev1.ConfigMap); ok && want(cm) {
			return
		}
	}
	t.Fatal(fmt.Errorf("cluster-info: waited in vain until %s: %w", what, ctx.Err()))
}
