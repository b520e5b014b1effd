package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/aws"
)

// useCloud begins an account of AWS's that a stand-in plays: cloud.
func useCloud(ts *testscript.TestScript, _ bool, _ []string) {
	c := cloud.New(cloud.Options{})
	s := httptest.NewServer(c)
	ts.Defer(func() { s.Close(); c.Close() })
	*ts.Value("cloud").(**cloud.Cloud) = c
	for _, v := range append(cloud.Env(s.URL), "AWS_REGION=eu-west-1", "XDG_DATA_HOME="+ts.MkAbs("data"), "AWS_CONFIG_FILE="+ts.MkAbs("none"), "AWS_SHARED_CREDENTIALS_FILE="+ts.MkAbs("none")) {
		name, value, _ := strings.Cut(v, "=")
		ts.Setenv(name, value)
	}
}

// made fails where there are not so many of a kind: made N KIND.
func made(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: made N KIND")
	}
	all := (*ts.Value("cloud").(**cloud.Cloud)).Resources()
	n := strings.Count("\n"+strings.Join(all, "\n"), "\n"+args[1]+" ")
	if fmt.Sprint(n) != args[0] {
		ts.Fatalf("not %s %s, but %d: %s", args[0], args[1], n, strings.Join(all, ", "))
	}
}

// hold takes a lock as a run that is called so would, or gives it back: hold FILE COMMAND.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Check(os.Remove(ts.MkAbs(args[0])))
		return
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o700))
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { f.Close() })
	fmt.Fprintf(f, `{"command": %q, "pid": %d}`, args[1], os.Getpid())
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
}

func TestAPlanSaysWhoLeaves(t *testing.T) {
	write := func(p clusterPlan) string {
		p.Kind = "ClusterPlan"
		var err error
		if p.Digest, err = phases.PlanDigest(p.Document, p.Version, p.Lock, p.Hosts); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(p)
		path := filepath.Join(t.TempDir(), "plan.json")
		if err := errors.Join(err, os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	end := aws.Change{Action: "delete", Kind: "instance", Name: "w-1", Detail: "i-1"}
	now := clusterPlan{Leaving: []string{"w-1"}, Infrastructure: []aws.Change{end}}
	now.Digest, _ = phases.PlanDigest("", "", "", nil)
	if err := samePlan(write(now), now); err != nil {
		t.Error(err)
	}
	other := end
	other.Detail = "i-2"
	for _, then := range []clusterPlan{{}, {Infrastructure: now.Infrastructure}, {Leaving: now.Leaving}, {Leaving: now.Leaving, Infrastructure: []aws.Change{other}}} {
		if err := samePlan(write(then), now); err == nil || !strings.Contains(err.Error(), "other machines would leave the cluster") {
			t.Errorf("%+v is taken for %+v: %v", then, now, err)
		}
	}
	var b strings.Builder
	now.Hosts = []phases.HostPlan{{Host: "cp-1"}, {Host: "w-1"}}
	printClusterPlan(&b, now)
	if want := "## cp-1: nothing\n\n## w-1 would leave the cluster\n\n"; b.String() != want {
		t.Errorf("%q, not %q", b.String(), want)
	}
}

// Who is waited for does not depend on which run has made the machines.
func TestWhoMayBeBooting(t *testing.T) {
	all := []*phases.Machine{{Node: config.Node{Name: "w-1"}}}
	for made, want := range map[int]int{0: 0, 1: 1} {
		o := awsOptions{cloud: &aws.Cloud{}, changes: make([]aws.Change, made)}
		if n := len(o.booting(all)); n != want {
			t.Errorf("%d changes, and %d are waited for", made, n)
		}
	}
}
