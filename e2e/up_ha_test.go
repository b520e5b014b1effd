package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// A cluster by up, from one control plane to three; then what may happen to control planes:
// each time the others go on as if nothing were, and up brings back what is missing. Each step
// begins with what the one before left.
func TestUpHA(t *testing.T) {
	ctx, l := needLab(t, 15*time.Minute)
	bare := hosts(ctx, t, lab.HostOptions{}, "plane-1", "work-1", "work-2")
	more := preparedHosts(ctx, t, "plane-2", "plane-3", "spare")
	f := newFleet(ctx, t, l, "ha", append(bare, more...)...)
	plane1, work1, work2, plane2, plane3, spare := bare[0], bare[1], bare[2], more[0], more[1], more[2]

	f.step("one control plane and two workers, from bare hosts", func(t *testing.T) {
		f.write(t, []*lab.Host{plane1}, work1, work2)
		f.up(t)
	})
	f.step("two more control planes", func(t *testing.T) {
		f.write(t, []*lab.Host{plane1, plane2, plane3}, work1, work2)
		f.up(t)
		f.voters(t, f.planes...)
	})
	f.step("verify", func(t *testing.T) {
		stdout, stderr, err := f.Run(ctx, "verify", "-o", "json", "--kubeconfig", f.Kubeconfig())
		shown(t, stdout, stderr, err)
		if !strings.Contains(stdout, "none of 2 workers holds etcd's files") || !strings.Contains(stdout, "active and enabled units on 5 of 5 hosts") {
			t.Errorf("hosts were not looked at: %s", stdout)
		}
	})
	w := f.witness()
	f.step("the first control plane is cut off, and boots", func(t *testing.T) {
		f.lose(t, plane1, plane1.CutOff)
		f.bringBack(t, plane1.Restart)
	})
	f.step("a flag of API servers and the kubelet's configuration are changed", func(t *testing.T) {
		p := f.prober(t)
		f.spec = "apiServer: {extraArgs: [{name: event-ttl, value: 2h0m0s}]}"
		f.kubelet = "maxPods: 111"
		f.write(t, f.planes, f.workers...)
		f.up(t)
		p.end(t, "API servers", "kubelets")
		for _, h := range f.planes {
			run(ctx, t, h, "pgrep", "-f", "kube-apiserver .*--event-ttl=2h0m0s")
		}
	})
	f.step("the first is lost for ever, and another machine takes its place", func(t *testing.T) {
		f.lose(t, plane1, plane1.Kill)
		f.upWithout(t, plane1)
		_, _, err := f.Run(ctx, "remove", "--yes", plane3.Name)
		refusal(t, err, 3, "without it 1 of etcd's 2 members would answer, which is no majority", plane1.Name)
		f.members(t, f.planes...)
		f.bringBack(t, func(ctx context.Context) (err error) {
			plane1, err = l.Replace(ctx, plane1, lab.HostOptions{})
			f.planes[0] = plane1
			return err
		})
		f.sameCA(t)
	})
	w.end()
	f.step("kubeadm joins a worker by the command that token create prints", func(t *testing.T) { f.kubeadmJoins(t, spare) })
	f.step("a worker and the first control plane are removed", func(t *testing.T) {
		f.remove(t, plane1, "remove", "--yes", work2.Name, plane1.Name)
		f.members(t, plane2, plane3)
		f.gone(t, plane1, work2)
		for _, h := range []*lab.Host{plane1, work2} {
			if left := run(ctx, t, h, "sh", "-c", "ls -d /etc/kubernetes /var/lib/etcd /var/lib/kubelet /var/lib/kubewright 2> /dev/null; systemctl is-active kubelet; true"); left != "inactive\n" {
				t.Errorf("on %s is left: %s", h.Name, left)
			}
		}
	})
	f.step("who was a worker takes the place of the first control plane", func(t *testing.T) {
		f.write(t, []*lab.Host{plane2, plane3, work2}, work1)
		if said := f.up(t); !strings.Contains(said, spare.Name+" is a node of the cluster that the document does not list") {
			t.Errorf("up says nothing of %s, which kubeadm has joined:\n%s", spare.Name, said)
		}
		f.voters(t, f.planes...)
		f.answers(t, 10*time.Second)
	})
	f.step("a dead control plane is removed", func(t *testing.T) {
		f.lose(t, plane3, plane3.Kill)
		f.remove(t, plane3, "remove", "--yes", "--dead", plane3.Name)
		f.voters(t, plane2, work2)
		f.gone(t, plane3)
		f.answers(t, 10*time.Second)
	})
}

// remove runs a removal, which has to succeed. Nobody looks for the control plane any more.
func (f *fleet) remove(t *testing.T, plane *lab.Host, argv ...string) {
	t.Helper()
	begin := time.Now()
	if _, _, err := f.Run(f.ctx, argv[0], argv[1:]...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %.1f s", strings.Join(argv, " "), time.Since(begin).Seconds())
	f.planes = slices.DeleteFunc(f.planes, func(h *lab.Host) bool { return h == plane })
	worker := f.workers[0]
	if got := run(f.ctx, t, worker, "sh", "-c", "grep -w "+plane.IP+" /etc/hosts /etc/kubernetes/haproxy.cfg || true"); got != "" {
		t.Errorf("%s looks for %s still:\n%s", worker.Name, plane.Name, got)
	}
}

// gone wants the nodes to be.
func (f *fleet) gone(t *testing.T, hosts ...*lab.Host) {
	t.Helper()
	client, err := f.client()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if _, err := client.CoreV1().Nodes().Get(f.ctx, h.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("node %s: %v", h.Name, err)
		}
	}
}

// members wants etcd to consist of these, whether they are well or not.
func (f *fleet) members(t *testing.T, hosts ...*lab.Host) {
	t.Helper()
	got := members(f.ctx, t, f.alive(f.planes)[0])
	for _, h := range hosts {
		if !slices.ContainsFunc(got, func(m member) bool { return m.Name == h.Name && !m.IsLearner }) {
			t.Errorf("%s is no member of etcd: %v", h.Name, got)
		}
	}
	if len(got) != len(hosts) {
		t.Errorf("etcd consists of %v", got)
	}
}

// refusal wants a command of the operator's to end with that code and these words.
func refusal(t *testing.T, err error, code int, parts ...string) {
	t.Helper()
	if got := exitCode(err); got != code {
		t.Errorf("it ended with %d: %v", got, err)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the message lacks %q: %v", p, err)
		}
	}
}

// upWithout runs up while a host is down: it does for the others what is to be done, and says which one was left.
func (f *fleet) upWithout(t *testing.T, down *lab.Host) {
	t.Helper()
	begin := time.Now()
	_, _, err := f.Up(f.ctx)
	refusal(t, err, 1, down.Name+" was left as it is")
	t.Logf("up without %s: %.1f s", down.Name, time.Since(begin).Seconds())
}

// lose takes a control plane from the others: within ten seconds the API answers on each of
// them, and the kubelets of the workers tell it that they live.
func (f *fleet) lose(t *testing.T, h *lab.Host, lose func(context.Context) error) {
	t.Helper()
	begin := time.Now()
	if err := lose(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.lost = h
	f.answers(t, 10*time.Second)
	f.renewed(t, begin)
}

// bringBack has up mend what is to be mended once the host is there again: then all vote, and its own API server answers.
func (f *fleet) bringBack(t *testing.T, mend func(context.Context) error) {
	t.Helper()
	if err := mend(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.lost = nil
	if err := f.Trust(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.up(t)
	f.voters(t, f.planes...)
	f.answers(t, 10*time.Second)
}

// sameCA wants one certificate authority on all hosts.
func (f *fleet) sameCA(t *testing.T) {
	t.Helper()
	var first string
	for _, h := range slices.Concat(f.planes, f.workers) {
		ca := run(f.ctx, t, h, "sha256sum", "/etc/kubernetes/pki/ca.crt")
		if first == "" {
			first = ca
		}
		if ca != first {
			t.Errorf("%s has another CA: %s, and not %s", h.Name, ca, first)
		}
	}
}

// is nil when the node's readiness is that.
func (f *fleet) is(h *lab.Host, want corev1.ConditionStatus) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	n, err := client.CoreV1().Nodes().Get(f.ctx, h.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == want {
			return nil
		}
	}
	return fmt.Errorf("node %s: %v", h.Name, n.Status.Conditions)
}

// kubeadmJoins has the real kubeadm obey our command, once its host knows the lines that come with it.
func (f *fleet) kubeadmJoins(t *testing.T, h *lab.Host, args ...string) {
	t.Helper()
	stdout, stderr, err := f.planes[0].Exec(f.ctx, nil, tool, "token", "create", "--print-join-command")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(stderr) {
		if strings.HasSuffix(line, f.name+".kubewright.internal # kubewright\n") {
			lines = append(lines, line)
		}
	}
	if len(lines) != len(f.planes) {
		t.Fatalf("token create says no line of /etc/hosts for each control plane:\n%s", stderr)
	}
	if _, _, err := h.Exec(f.ctx, strings.NewReader(strings.Join(lines, "")), "sh", "-c", "cat >> /etc/hosts"); err != nil {
		t.Fatal(err)
	}
	run(f.ctx, t, h, "rm", "-r", "/var/lib/kubewright") // that kubeadm's host was prepared by us is our secret
	if err := cluster.KubeadmJoin(f.ctx, h, append(strings.Fields(stdout)[2:], args...)...); err != nil {
		t.Fatal(err)
	}
	f.until(t, "node "+h.Name+" is ready", func() error { return f.is(h, corev1.ConditionTrue) })
}
