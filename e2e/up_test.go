package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/phases"
)

// One control plane and one worker over SSH; then all that is refused, that drifts, grows and
// goes. The order is what needs what.
func TestUp(t *testing.T) {
	ctx, l := needLab(t, 8*time.Minute)
	hosts := preparedHosts(ctx, t, "up-1", "up-2", "up-3")
	explainFailure(t, hosts...)
	s := newSite(ctx, t, l, "prod", withAddons, hosts[:2]...)
	step := func(name string, do func(*site)) {
		begin := time.Now()
		t.Run(name, func(t *testing.T) { do(s.on(t)) })
		t.Logf("%s: %.1f s", name, time.Since(begin).Seconds())
	}
	step("refused", (*site).refusals)
	step("sshd forwards nothing", (*site).forbidden)
	step("made, by a user whose sudo wants a password", (*site).madeWithPassword)
	if t.Failed() {
		return // there is no cluster
	}
	step("again", func(s *site) { s.nothing(); s.well() })
	step("addons", (*site).addons)
	step("drift is mended, by a plan that is not stale", (*site).driftIsMended)
	s.members = append(s.members, cluster.Member{Host: hosts[2], Role: "worker", Lines: "labels: {rack: a}"})
	s.write(withAddons)
	step("a worker is added, and nothing else is touched", (*site).workerIsAdded)
	step("one host only", (*site).oneOnly)
	step("a host is down", (*site).oneIsDown)
	step("down", (*site).down)
}

// status is what the operator is told, which must end with that code.
func (s *site) status(code int, args ...string) map[string]phases.HostStatus {
	s.t.Helper()
	out, _ := s.do(code, "status", args...)
	var report struct{ Hosts []phases.HostStatus }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		s.t.Fatalf("status printed %q: %v", out, err)
	}
	all := map[string]phases.HostStatus{}
	for _, h := range report.Hosts {
		all[h.Host] = h
	}
	return all
}

// well wants status to have nothing to say, but of the hosts that are named.
func (s *site) well(but ...string) {
	s.t.Helper()
	for name, h := range s.status(min(len(but), 1)) {
		if h.Well() == slices.Contains(but, name) {
			s.t.Errorf("status of %s: %+v", name, h)
		}
	}
}

// workerIsAdded wants plan to say what up then does, and that is nothing on the other hosts.
func (s *site) workerIsAdded() {
	before := s.now()
	planned, _ := s.plan()
	for host := range planned {
		if host != "" && host != "up-3" {
			s.t.Errorf("plan says of %s %v", host, planned[host])
		}
	}
	s.up(0)
	s.asPlanned(planned, s.since(before))
	s.nothing()
	if out, _, err := s.cluster().Kubectl(s.ctx, "get", "nodes", "-l", "rack=a", "-o", "name"); err != nil || out != "node/up-3\n" {
		s.t.Errorf("the nodes with the label are %q: %v", out, err)
	}
}

const sysctls = "/etc/sysctl.d/99-kubewright.conf"

func (s *site) oneOnly() {
	for _, m := range s.members {
		run(s.ctx, s.t, m.Host, "cp", "/dev/null", sysctls)
	}
	before := s.now()
	s.up(0, "--only", "up-2")
	if done := s.since(before); len(done) != 1 || !done["up-2"]["file "+sysctls] {
		s.t.Errorf("with --only up-2 it has done %v", done)
	}
	s.well("up-1", "up-3")
	s.up(0)
	s.nothing()
}

// oneIsDown wants the others to be mended, and to be told of the one.
func (s *site) oneIsDown() {
	if err := s.members[2].Kill(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	worker := s.members[1].Host
	run(s.ctx, s.t, worker, "cp", "/dev/null", sysctls)
	_, said := s.do(1, "up", "--bundle", s.Bundle)
	if !strings.Contains(said, "up-3 was left as it is") || !strings.Contains(said, "see that the host is up") {
		s.t.Errorf("up said %s", errorsOf(said))
	}
	run(s.ctx, s.t, worker, "test", "-s", sysctls)
	down := s.status(1)["up-3"]
	if down.Reachable || down.Error == "" {
		s.t.Errorf("status of a host that is down: %+v", down)
	}
	if err := s.members[2].Start(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	// Its machine has written /etc/hosts anew; before the kubelet starts, our lines are back.
	run(s.ctx, s.t, s.members[2].Host, "timeout", "60", "sh", "-c", "until grep -q kubewright.internal /etc/hosts; do sleep 0.2; done")
	s.up(0)
	s.nothing()
	s.well()
}

func (s *site) down() {
	_, said := s.do(2, "down")
	if !strings.Contains(said, "--yes") {
		s.t.Errorf("down without a terminal said %s", said)
	}
	s.do(0, "down", "--yes")
	if b, err := os.ReadFile(s.Kubeconfig()); err != nil || strings.Contains(string(b), "name: prod") {
		s.t.Errorf("down left in the operator's kubeconfig %s: %v", b, err)
	}
	for _, m := range s.members {
		if left := run(s.ctx, s.t, m.Host, "sh", "-c", "find /etc/kubernetes /var/lib/kubelet /var/lib/etcd /var/lib/kubewright /run/kubewright/lock -type f -size +0 2>/dev/null; grep kubewright /etc/hosts || true"); left != "" {
			s.t.Errorf("down left on %s:\n%s", m.Name, left)
		}
	}
}

// file is one of the operator's.
func (s *site) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// edited changes a file of the operator's, until the function that it returns is called.
func (s *site) edited(name, old, new string) (restore func()) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil || !strings.Contains(string(b), old) {
		s.t.Fatalf("%s has no %q: %v", name, old, err)
	}
	s.file(name, strings.ReplaceAll(string(b), old, new))
	return func() { s.file(name, string(b)) }
}

// everywhere runs a script on all hosts of the document.
func (s *site) everywhere(script string) (out string) {
	s.t.Helper()
	for _, m := range s.members {
		out += run(s.ctx, s.t, m.Host, "sh", "-c", script)
	}
	return out
}
