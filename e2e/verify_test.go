package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/verify"
)

// notHere are the rows that no flannel cluster of ours can show.
var notHere = []int{21, 23, 27, 29}

// verified wants every row to be shown but these, which say why.
func verified(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	stdout, stderr, err := c.ControlPlane.Exec(ctx, nil, tool, "verify", "-o", "json")
	shown(t, stdout, stderr, err)
}

// shown wants a run of verify to have shown what it can.
func shown(t *testing.T, stdout, stderr string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
	results, seconds := resultsOf(t, stdout)
	var names []string
	for _, r := range results {
		want := verify.Pass
		if slices.Contains(notHere, r.Row) {
			want = verify.Skipped
		}
		if r.Status != want || r.Detail == "" {
			t.Errorf("row %d, %s: %s: %s", r.Row, r.Name, r.Status, r.Detail)
		}
		names = append(names, r.Name)
	}
	for _, c := range append(verify.Checks(), verify.Check{Name: "cleanup"}) {
		if !slices.Contains(names, c.Name) {
			t.Errorf("%s was not shown, only %v", c.Name, names)
		}
	}
	t.Logf("verify: %.1f s", seconds)
}

func resultsOf(t *testing.T, stdout string) (results []verify.Result, seconds float64) {
	t.Helper()
	var report struct {
		Seconds float64
		Results []verify.Result
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("verify printed %q: %v", stdout, err)
	}
	return report.Results, report.Seconds
}

// damage is something that is broken on a host.
type damage struct {
	what        string
	host        *lab.Host
	break_, fix string // scripts
	row         int
	line        []string // parts of one line of the row's detail
}

// findsWhatIsBroken breaks what does not hide one another at a time, and wants verify to name each in one line.
func findsWhatIsBroken(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	w1, w2 := c.Workers[0], c.Workers[1]
	const kubectl = "kubectl --kubeconfig /etc/kubernetes/admin.conf "
	lease := strings.TrimSpace(run(ctx, t, c.ControlPlane, "sed", "-n", "s/^FLANNEL_SUBNET=//p", "/run/flannel/subnet.env"))
	rounds := [][]damage{{
		{what: "a wrong MTU", host: w1, row: 20,
			break_: `sed -i.before 's/"mtu": 1450/"mtu": 1500/' /etc/cni/net.d/10-flannel.conflist`,
			fix:    "mv /etc/cni/net.d/10-flannel.conflist.before /etc/cni/net.d/10-flannel.conflist; ip link set cni0 mtu 1450",
			line:   []string{"pod on " + w1.Name + " -> ", "pod on " + w2.Name, "pod on " + c.ControlPlane.Name, "packets of 1500 bytes, the MTU of eth0, are lost"}},
		{what: "a deleted CoreDNS Service", host: c.ControlPlane, row: 4,
			break_: kubectl + "-n kube-system get service kube-dns -o json > /root/dns.json; " + kubectl + "-n kube-system delete service kube-dns",
			fix:    kubectl + "create -f /root/dns.json",
			line:   []string{"no Service has this address", "kube-system/kube-dns"}},
		{what: "a kube-proxy that stopped", host: w2, row: 6,
			break_: "pkill -STOP -x kube-proxy",
			fix:    "pkill -CONT -x kube-proxy",
			line:   []string{"node " + w2.Name, "kube-proxy does not answer", "no answer within 3s"}},
	}, {
		{what: "a blocked VXLAN port", host: w1, row: 20,
			break_: "iptables -I INPUT -p udp --dport 8472 -j DROP",
			fix:    "iptables -D INPUT -p udp --dport 8472 -j DROP",
			line:   []string{"nothing gets through between node " + w1.Name + " and the others", "UDP 8472"}},
		{what: "an nft rule that cuts DNS", host: w2, row: 4,
			break_: "nft add table inet cut; nft add chain inet cut forward '{ type filter hook forward priority -10; }'; nft add rule inet cut forward udp dport 53 drop",
			fix:    "nft delete table inet cut",
			line:   []string{"node " + w2.Name, "did not answer within"}},
	}, {
		{what: "overlapping leases", host: w1, row: 22,
			break_: "sed -i.before s,^FLANNEL_SUBNET=.*,FLANNEL_SUBNET=" + lease + ", /run/flannel/subnet.env",
			fix:    "mv /run/flannel/subnet.env.before /run/flannel/subnet.env",
			line:   []string{"overlaps", "node " + w1.Name, "node " + c.ControlPlane.Name}},
	}}
	for _, round := range rounds {
		argv := []string{tool, "verify", "-o", "json"}
		var rows []string
		for _, d := range round {
			run(ctx, t, d.host, "sh", "-ec", d.break_)
			rows = append(rows, (verify.Check{Row: d.row}).ID())
		}
		stdout, _, err := c.ControlPlane.Exec(ctx, nil, append(argv, "--only", strings.Join(rows, ","))...)
		for _, d := range round {
			run(ctx, t, d.host, "sh", "-ec", d.fix)
		}
		if err == nil {
			t.Error("verify found nothing")
		}
		results, _ := resultsOf(t, stdout)
		for _, d := range round {
			i := slices.IndexFunc(results, func(r verify.Result) bool { return r.Row == d.row })
			if i < 0 || results[i].Status != verify.Fail || !hasLine(results[i].Detail, d.line) {
				t.Errorf("%s on %s: no line with %q in row %d of\n%s", d.what, d.host.Name, d.line, d.row, stdout)
			}
		}
	}
	cleansUp(ctx, t, c)
}

// hasLine tells whether one line has all parts.
func hasLine(text string, parts []string) bool {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return true
		}
	}
	return false
}

// cleansUp kills a run while it has cordoned a node, which lasts as long as no scheduler looks, and wants --cleanup to
// undo what it left.
func cleansUp(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	const script = `pkill -STOP -x kube-scheduler; trap 'pkill -CONT -x kube-scheduler' EXIT
"$0" verify --only 12,20 > /dev/null 2>&1 & pid=$!
until kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o jsonpath='{.items[*].metadata.annotations}' | grep -q verify-cordoned; do kill -0 $pid; done
kill -KILL $pid`
	run(ctx, t, c.ControlPlane, "timeout", "60", "sh", "-ec", script, tool)
	out := run(ctx, t, c.ControlPlane, tool, "verify", "--cleanup")
	for _, want := range []string{"cordon of node w-2", "kubewright-verify-pods-"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify --cleanup does not say %q: %s", want, out)
		}
	}
	left, _, err := c.Kubectl(ctx, "get", "namespaces,nodes", "-l", "kubewright.dev/verify", "-o", "name")
	if unschedulable, _, _ := c.Kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}"); err != nil || left != "" || unschedulable != "" {
		t.Errorf("left: %s, unschedulable: %s, %v", left, unschedulable, err)
	}
}
