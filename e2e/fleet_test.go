package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/phases"
)

// fleet is a cluster that an operator makes by up, and the hosts that it is made of now.
type fleet struct {
	*cluster.Operator
	ctx             context.Context
	t               *testing.T
	name            string
	planes, workers []*lab.Host
	spec, kubelet   string    // further lines of the document, of spec and of spec.kubelet
	lost            *lab.Host // who does not answer now
	events          *eventLog
}

func newFleet(ctx context.Context, t *testing.T, l *lab.Lab, name string, hosts ...*lab.Host) *fleet {
	t.Helper()
	explainFailure(t, hosts...)
	o, err := cluster.NewOperator(ctx, l, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{Operator: o, ctx: ctx, t: t, name: name, events: newEventLog(t)}
}

// step is a subtest without which the next ones make no sense.
func (f *fleet) step(name string, do func(*testing.T)) {
	f.t.Helper()
	begin := time.Now()
	if !f.t.Run(name, do) {
		f.t.FailNow()
	}
	f.t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), name)
}

// write has the document list these hosts, from now on.
func (f *fleet) write(t *testing.T, planes []*lab.Host, workers ...*lab.Host) {
	t.Helper()
	f.planes, f.workers = planes, workers
	var members []cluster.Member
	for _, h := range planes {
		members = append(members, cluster.Member{Host: h, Role: "control-plane"})
	}
	for _, h := range workers {
		members = append(members, cluster.Member{Host: h, Role: "worker"})
	}
	if err := f.Write(f.ctx, f.name, f.spec, members...); err != nil {
		t.Fatal(err)
	}
	if f.kubelet != "" {
		if err := f.Edit("failSwapOn: false\n", "failSwapOn: false\n    "+f.kubelet+"\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// up has to succeed. It returns what it said.
func (f *fleet) up(t *testing.T, args ...string) string {
	t.Helper()
	begin := time.Now()
	_, stderr, err := f.Up(f.ctx, append(args, "-o", "json")...)
	var slow []string
	for line := range strings.Lines(stderr) {
		f.events.add([]byte(strings.TrimSpace(line)))
		var e phases.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Seconds > 3 {
			slow = append(slow, fmt.Sprintf("%s %s %.0f", e.Host, e.Phase, e.Seconds))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up: %.1f s, of which phases longer than 3 s: %s", time.Since(begin).Seconds(), strings.Join(slow, ", "))
	return stderr
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// alive are those that answer now.
func (f *fleet) alive(hosts []*lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(hosts), func(h *lab.Host) bool { return h == f.lost })
}

// voters wants etcd to consist of these, each with a vote; all but who is lost have to be well.
func (f *fleet) voters(t *testing.T, hosts ...*lab.Host) {
	t.Helper()
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	voters(f.ctx, t, f.alive(hosts)[0], names...)
}

// answers wants the API to answer on every node that is alive, through the name that only nodes know.
func (f *fleet) answers(t *testing.T, within time.Duration) {
	t.Helper()
	const script = `until kubectl --kubeconfig /etc/kubernetes/kubelet.conf --server "https://$0" --request-timeout 3s get --raw "/api/v1/nodes/$1" > /dev/null 2> /tmp/last; do :; done`
	begin := time.Now()
	var g errgroup.Group
	for _, h := range f.alive(slices.Concat(f.planes, f.workers)) {
		g.Go(func() error {
			limit := fmt.Sprint(within.Seconds())
			if _, _, err := h.Exec(f.ctx, nil, "timeout", limit, "sh", "-c", script, f.name+".kubewright.internal:6443", h.Name); err != nil {
				last, _ := h.ReadFile(f.ctx, "/tmp/last")
				return fmt.Errorf("the API did not answer on %s within %s: %w: %s", h.Name, within, err, last)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the API answers on all nodes: after %.1f s", time.Since(begin).Seconds())
}

// client talks to whichever control plane answers, over a new connection each time: one of before may
// lead to a host that is gone.
func (f *fleet) client() (*kubernetes.Clientset, error) {
	c, err := f.Connect(f.planes[0])
	if err != nil {
		return nil, err
	}
	planes := slices.Clone(f.planes)
	c.Config.Host = "https://" + f.name + ".kubewright.internal:6443"
	c.Config.Timeout = 10 * time.Second
	c.Config.Dial = func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		for _, h := range planes {
			if conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, net.JoinHostPort(h.IP, "6443")); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
	return kubernetes.NewForConfig(c.Config)
}

// renewed waits until each worker's kubelet has told the API since then that it lives.
func (f *fleet) renewed(t *testing.T, since time.Time) {
	t.Helper()
	client, err := f.client()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range f.workers {
		f.until(t, "the kubelet of "+h.Name+" renews its lease", func() error {
			lease, err := client.CoordinationV1().Leases("kube-node-lease").Get(f.ctx, h.Name, metav1.GetOptions{})
			if err == nil && !lease.Spec.RenewTime.After(since) {
				err = fmt.Errorf("it was renewed at %s, and not after %s", lease.Spec.RenewTime, since)
			}
			return err
		})
	}
	t.Logf("the workers' leases are renewed: after %.1f s", time.Since(since).Seconds())
}

// until looks until there is nothing to say against it.
func (f *fleet) until(t *testing.T, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 2*time.Minute)
	defer cancel()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
