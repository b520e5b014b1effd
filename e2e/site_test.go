package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/phases"
)

// site is an operator, the hosts of their document, and the cluster on them.
type site struct {
	*cluster.Operator
	t       *testing.T
	ctx     context.Context
	name    string
	members []cluster.Member
	events  *eventLog
}

// newSite has an operator whose document lists the first host as the control plane, and the others as workers.
func newSite(ctx context.Context, t *testing.T, l *lab.Lab, name, spec string, hosts ...*lab.Host) *site {
	t.Helper()
	o, err := cluster.NewOperator(ctx, l, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Operator: o, t: t, ctx: ctx, name: name, events: newEventLog(t)}
	for i, h := range hosts {
		s.members = append(s.members, cluster.Member{Host: h, Role: []string{"control-plane", "worker"}[min(i, 1)]})
	}
	s.write(spec)
	return s
}

// on is the same site for a subtest.
func (s *site) on(t *testing.T) *site {
	own := *s
	own.t = t
	return &own
}

func (s *site) write(spec string) {
	s.t.Helper()
	if err := s.Write(s.ctx, s.name, spec, s.members...); err != nil {
		s.t.Fatal(err)
	}
}

// result is what commands of the operator print as JSON.
type result struct {
	Kind    string
	Changes int
	Hosts   json.RawMessage
	Digest  string
}

// do runs a command of the operator's with -o json, which must end with that code.
func (s *site) do(code int, name string, args ...string) (stdout, stderr string) {
	s.t.Helper()
	begin := time.Now()
	stdout, stderr, err := s.Run(s.ctx, name, append([]string{"-o", "json"}, args...)...)
	for line := range strings.Lines(stderr) {
		s.events.add([]byte(strings.TrimSpace(line)))
	}
	s.t.Logf("%s %s: %.1f s", name, strings.Join(short(args), " "), time.Since(begin).Seconds())
	if got := codeOf(err); got != code {
		s.t.Fatalf("%s ended with %d, not with %d: %v", name, got, code, err)
	}
	return stdout, stderr
}

func short(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "/") || a == "--bundle" })
}

// codeOf is the exit code of a command.
func codeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// up must end with that code; it returns how much it has changed, where it has ended well.
func (s *site) up(code int, args ...string) (changes int) {
	s.t.Helper()
	out, _ := s.do(code, "up", append([]string{"--bundle", s.Bundle}, args...)...)
	var r result
	if err := json.Unmarshal([]byte(out), &r); code == 0 && (err != nil || r.Kind != "Up") {
		s.t.Fatalf("up printed %q: %v", out, err)
	}
	return r.Changes
}

// steps are what is done to each host, and under "" to the cluster's objects, in the words of a plan.
type steps map[string]map[string]bool

func (s steps) add(host, step string) {
	if s[host] == nil {
		s[host] = map[string]bool{}
	}
	s[host][step] = true
}

// plan is what up would do, and the plan as it was printed.
func (s *site) plan(args ...string) (steps, string) {
	s.t.Helper()
	out, _ := s.do(0, "plan", append([]string{"--bundle", s.Bundle}, args...)...)
	var plan struct{ Hosts []phases.HostPlan }
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		s.t.Fatalf("plan printed %q: %v", out, err)
	}
	all := steps{}
	for _, h := range plan.Hosts {
		for _, p := range h.Phases {
			for _, c := range p.Steps {
				name := dated.ReplaceAllString(c.Name, "X")
				switch {
				case strings.HasPrefix(name, "Node "): // an update, which leaves no mark of its own
				case c.Kind == "object":
					all.add("", name)
				default:
					all.add(h.Host, c.Kind+" "+name)
				}
			}
		}
	}
	return all, out
}

// moment is what is known of all hosts and objects at one moment.
type moment struct {
	journals map[string]string
	objects  map[string]string
}

func (s *site) now() moment {
	s.t.Helper()
	now := moment{map[string]string{}, map[string]string{}}
	for _, m := range s.members {
		now.journals[m.Name] = run(s.ctx, s.t, m.Host, "sh", "-c", "cat /var/lib/kubewright/journal 2>/dev/null || true")
	}
	if s.made() {
		for name, version := range versionsOf(s.ctx, s.t, s.cluster()) {
			now.objects[dated.ReplaceAllString(strings.Replace(name, " /", " ", 1), "X")] = version
		}
	}
	return now
}

// made tells whether the operator has been given a cluster.
func (s *site) made() bool {
	_, err := os.Stat(s.Kubeconfig())
	return err == nil
}

func (s *site) cluster() *cluster.Cluster {
	s.t.Helper()
	var workers []*lab.Host
	for _, m := range s.members[1:] {
		workers = append(workers, m.Host)
	}
	c, err := s.Connect(s.members[0].Host, workers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

var inHosts = regexp.MustCompile(`^(dd of=|truncate .*)/etc/hosts`)

// since is what was done since then, as journals and the API tell.
func (s *site) since(then moment) steps {
	s.t.Helper()
	now, all := s.now(), steps{}
	for host, journal := range now.journals {
		added, ok := strings.CutPrefix(journal, then.journals[host])
		if !ok {
			s.t.Fatalf("the journal of %s was written anew", host)
		}
		for line := range strings.Lines(added) {
			var step phases.Step
			if err := json.Unmarshal([]byte(line), &step); err != nil {
				s.t.Fatal(err)
			}
			switch command := strings.Join(step.Argv, " "); {
			case step.Kind == "file" && step.After == "dir 0755": // a folder above something, of which no plan speaks
			case step.Kind == "command" && inHosts.MatchString(command): // for a plan, a file like others
			case step.Kind == "command":
				all.add(host, "command "+command)
			case step.Kind == "lines":
				all.add(host, "file "+step.Name)
			case step.Kind == "file", step.Kind == "image", step.Kind == "etcd":
				all.add(host, string(step.Kind)+" "+dated.ReplaceAllString(step.Name, "X"))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.objects)) {
		if now.objects[name] != then.objects[name] {
			all.add("", name)
		}
	}
	return all
}

// asPlanned wants up to do what a plan has said, and nothing else.
func (s *site) asPlanned(planned, done steps) {
	s.t.Helper()
	for _, account := range []string{"kube-system/coredns", "kube-system/kube-proxy", "kube-system/metrics-server", "local-path-storage/local-path-provisioner"} { // an apply that gives nothing but a name leaves no mark of who made it
		delete(planned[""], "ServiceAccount "+account)
	}
	if diff := cmp.Diff(planned, done); diff != "" {
		s.t.Errorf("- planned, + done:\n%s", diff)
	}
}

// nothing wants the cluster to be as the document says: to plan, to up, and to the journals.
func (s *site) nothing() {
	s.t.Helper()
	before := s.now()
	if planned, _ := s.plan(); len(planned) > 0 {
		s.t.Errorf("where nothing is to be done, plan says %v", planned)
	}
	if n := s.up(0); n != 0 {
		s.t.Errorf("a second up says that it has made %d changes", n)
	}
	if done := s.since(before); len(done) > 0 {
		s.t.Errorf("a second up has done %v", done)
	}
	for host, journal := range s.now().journals {
		for line := range strings.Lines(strings.TrimPrefix(journal, before.journals[host])) {
			// When each phase ran; and flannel's pod writes its plugin once more, with the same bytes, and that was read.
			if !strings.Contains(line, `"kind":"phase"`) && !strings.Contains(line, `"kind":"stamp","name":"/opt/cni/bin/flannel"`) {
				s.t.Errorf("a second up has written to the journal of %s: %s", host, line)
			}
		}
	}
}
