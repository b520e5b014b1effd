package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// The same documents to the real kubeadm and to us, on like hosts: what differs is intended,
// and listed with its reason. Then a worker of ours joins the cluster that kubeadm made.
func TestKubeadmAsJudge(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 6*time.Minute)
	hosts := preparedHosts(ctx, t, "judge-a", "judge-b", "judge-w")
	explainFailure(t, hosts[0], hosts[2])
	explainFailure(t, hosts[1])
	var theirs, ours *cluster.Cluster
	events := newEventLog(t)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if theirs, err = cluster.Kubeadm(gctx, hosts[0], nil); err == nil {
			err = theirs.WaitReady(gctx)
		}
		return err
	})
	g.Go(func() (err error) {
		o := cluster.Options{Document: cluster.KubeadmConfig(""), Args: cluster.Bundle, Log: events.add}
		if ours, err = cluster.Kubewright(gctx, hosts[1], nil, o); err == nil {
			err = ours.WaitReady(gctx)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	t.Run("differs only where we mean to", func(t *testing.T) {
		// Controllers finish their work some time after the node is Ready.
		var problems []string
		for deadline := time.Now().Add(30 * time.Second); ; {
			kubeadms, mine := filesOf(ctx, t, hosts[0]), filesOf(ctx, t, hosts[1])
			maps.Copy(kubeadms, objectsOf(ctx, t, theirs))
			maps.Copy(mine, objectsOf(ctx, t, ours))
			if problems = judge(Differences(), kubeadms, mine); len(problems) == 0 || time.Now().After(deadline) {
				break
			}
		}
		for _, p := range problems {
			t.Error(p)
		}
	})
	t.Run("a worker of ours joins kubeadm's cluster by its documents", func(t *testing.T) { joinKubeadms(ctx, t, theirs, hosts[2]) })
	t.Run("reset of what kubeadm made", func(t *testing.T) { resetKubeadms(ctx, t, hosts[0]) })
}

// judge finds what differs and is not listed, and what is listed and does not differ.
// resetKubeadms wants what `kubeadm reset` removes to go, and what it leaves of the pod
// network as well; and what it does not touch to stay.
func resetKubeadms(ctx context.Context, t *testing.T, h *lab.Host) {
	run(ctx, t, h, "rm", "-r", "/var/lib/kubewright") // the host was prepared by our phases: kubeadm's hosts are not
	kubewright(ctx, t, h, "reset", "--yes")
	left := run(ctx, t, h, "sh", "-c", `find /etc/kubernetes /var/lib/kubelet /var/lib/etcd /etc/cni/net.d /var/lib/cni -type f; ls -d /var/lib/kubewright 2>/dev/null; crictl pods -q
		iptables-save | grep -e KUBE- -e CNI- -e FLANNEL -e flanneld; ip6tables-save | grep KUBE-; ls -d /sys/class/net/cni0 /sys/class/net/flannel.1 2>/dev/null
		ps -eo comm | grep -e ^kube -e ^etcd -e ^flanneld; true`)
	if left != "" {
		t.Errorf("reset left:\n%s", left)
	}
	run(ctx, t, h, "test", "-x", "/usr/local/bin/kubelet")
	run(ctx, t, h, "systemctl", "is-active", "containerd")
}

func judge(list []Difference, theirs, ours map[string]thing) (problems []string) {
	occurred := make([]bool, len(list))
	differ := func(where, field, a, b string) {
		listed := false
		for i, d := range list {
			if d.covers(where, field, a, b) {
				occurred[i], listed = true, true
			}
		}
		if !listed {
			problems = append(problems, fmt.Sprintf("%s: %s: kubeadm %q, ours %q", where, field, a, b))
		}
	}
	for _, where := range union(theirs, ours) {
		a, inTheirs := theirs[where]
		b, inOurs := ours[where]
		if !inTheirs || !inOurs {
			differ(where, "exists", fmt.Sprint(inTheirs), fmt.Sprint(inOurs))
			continue
		}
		for _, field := range union(a, b) {
			if a[field] != b[field] {
				differ(where, field, a[field], b[field])
			}
		}
	}
	for i, d := range list {
		if !occurred[i] {
			problems = append(problems, fmt.Sprintf("listed as a difference, but there is none: %s: %s", d.Where, d.Field))
		}
	}
	return problems
}

// covers tells whether a difference is this one.
func (d Difference) covers(where, field, kubeadm, ours string) bool {
	anyValue := d.Kubeadm == "" && d.Ours == ""
	return pattern(d.Where, "$").MatchString(where) && pattern(d.Field, `($|[.\[])`).MatchString(field) &&
		(anyValue || d.Kubeadm == kubeadm && d.Ours == ours)
}

func pattern(s, end string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, ".*") + end)
}

func union[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// joinKubeadms joins by a JoinConfiguration. Its three forms of discovery find the same
// cluster: the second and the third have nothing left to do.
func joinKubeadms(ctx context.Context, t *testing.T, c *cluster.Cluster, worker *lab.Host) {
	const file, document = "/root/discovery.conf", "/root/join.yaml"
	argv := strings.Fields(run(ctx, t, c.ControlPlane, cluster.KubeadmPath, "token", "create", "--print-join-command"))
	endpoint, token, pin := argv[2], argv[slices.Index(argv, "--token")+1], argv[slices.Index(argv, "--discovery-token-ca-cert-hash")+1]
	info, err := c.Client.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A kubeconfig of one cluster without a name; the user is ours.
	withUser := strings.Replace(info.Data["kubeconfig"], "contexts: null\ncurrent-context: \"\"", "contexts: [{name: a, context: {cluster: \"\", user: a}}]\ncurrent-context: a", 1)
	withUser = strings.Replace(withUser, "users: null", "users: [{name: a, user: {token: "+token+"}}]", 1)
	for _, form := range []struct{ name, file, discovery, state string }{
		{"file and tlsBootstrapToken", info.Data["kubeconfig"], "file: {kubeConfigPath: " + file + "}\n  tlsBootstrapToken: " + token, "done"},
		{"bootstrapToken", "", "bootstrapToken: {apiServerEndpoint: \"" + endpoint + "\", token: " + token + ", caCertHashes: [\"" + pin + "\"]}", "unchanged"},
		{"file with credentials", withUser, "file: {kubeConfigPath: " + file + "}", "unchanged"},
	} {
		join := "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\nnodeRegistration: {taints: [{key: e2e, effect: PreferNoSchedule}]}\ndiscovery:\n  " + form.discovery + "\n"
		for path, content := range map[string]string{document: join, file: form.file} {
			if err := worker.Write(ctx, path, 0o600, strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		out, said, err := worker.Exec(ctx, nil, append([]string{tool, "join", "-o", "json", "--config", document}, cluster.Bundle...)...)
		if err != nil {
			t.Fatalf("by %s: %v\n%s%s", form.name, err, out, said)
		}
		if !regexp.MustCompile(`"phase":"kubelet-start","state":"` + form.state + `"`).MatchString(string(said)) {
			t.Errorf("by %s: the kubelet's phase is not %s", form.name, form.state)
		}
	}
	c.Workers = []*lab.Host{worker}
	if err := c.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	node, err := c.Client.CoreV1().Nodes().Get(ctx, worker.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "e2e" }) {
		t.Errorf("the taints of the document are not there: %v", node.Spec.Taints)
	}
}

func TestJudge(t *testing.T) {
	same := map[string]thing{"a": {"x.y": "1"}}
	listed := []Difference{{Where: "a*", Field: "x", Why: "of a reason"}}
	valued := []Difference{{Where: "a", Field: "*y", Kubeadm: "1", Ours: "2"}}
	for name, tt := range map[string]struct {
		list []Difference
		ours map[string]thing
		want []string
	}{
		"alike":                    {nil, same, nil},
		"unlisted":                 {nil, map[string]thing{"a": {"x.y": "2"}}, []string{`a: x.y: kubeadm "1", ours "2"`}},
		"unlisted field":           {nil, map[string]thing{"a": {"x.y": "1", "z": "3"}}, []string{`a: z: kubeadm "", ours "3"`}},
		"only theirs":              {nil, nil, []string{`a: exists: kubeadm "true", ours "false"`}},
		"only ours":                {nil, map[string]thing{"a": same["a"], "b": {}}, []string{`b: exists: kubeadm "false", ours "true"`}},
		"listed":                   {listed, map[string]thing{"a": {"x.y": "2"}}, nil},
		"listed, but none":         {listed, same, []string{"listed as a difference, but there is none: a*: x"}},
		"listed values":            {valued, map[string]thing{"a": {"x.y": "2"}}, nil},
		"other values":             {valued, map[string]thing{"a": {"x.y": "3"}}, []string{`a: x.y: kubeadm "1", ours "3"`, "listed as a difference, but there is none: a: *y"}},
		"a field that only begins": {listed, map[string]thing{"a": {"x.y": "1", "xy": "2"}}, []string{`a: xy: kubeadm "", ours "2"`, "listed as a difference, but there is none: a*: x"}},
	} {
		if got := judge(tt.list, same, tt.ours); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestEveryDifferenceHasAReason(t *testing.T) {
	for _, d := range Differences() {
		if d.Where == "" || d.Field == "" || d.Why == "" {
			t.Errorf("%+v", d)
		}
	}
}
