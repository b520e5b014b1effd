package main

import (
	"cmp"
	"context"
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

// saved writes a plan as `plan -o json` would have.
func saved(t *testing.T, p clusterPlan) string {
	t.Helper()
	p.Kind, p.Version = "ClusterPlan", version
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

func TestAPlanSaysWhoLeaves(t *testing.T) {
	end := aws.Change{Action: "delete", Kind: "instance", Name: "w-1", Detail: "i-1"}
	now, around := clusterPlan{Leaving: []string{"w-1"}}, awsPlan{changes: []aws.Change{end}}
	now.Digest, _ = phases.PlanDigest("", version, "", nil)
	check := func(then clusterPlan) error {
		p, err := readPlan(saved(t, then))
		if err != nil {
			return err
		}
		return cmp.Or(p.fits(around), p.same(now))
	}
	if err := check(clusterPlan{Leaving: now.Leaving, Infrastructure: around.changes}); err != nil {
		t.Error(err)
	}
	other := end
	other.Detail = "i-2"
	for _, then := range []clusterPlan{{}, {Infrastructure: around.changes}, {Leaving: now.Leaving}, {Leaving: now.Leaving, Infrastructure: []aws.Change{other}}} {
		if err := check(then); err == nil || !strings.Contains(err.Error(), "other machines would leave the cluster") {
			t.Errorf("%+v is taken for %+v: %v", then, now, err)
		}
	}
	var b strings.Builder
	now.Hosts, now.Infrastructure = []phases.HostPlan{{Host: "cp-1"}, {Host: "w-1"}}, around.changes
	printClusterPlan(&b, now)
	if want := "## cp-1: nothing\n\n## w-1 would leave the cluster\n\n"; b.String() != want {
		t.Errorf("%q, not %q", b.String(), want)
	}
}

// What can be told of a plan without asking a host is told before; and hosts that are down are not waited for.
func TestAPlanWaitsForNobody(t *testing.T) {
	c := cloud.New(cloud.Options{})
	s := httptest.NewServer(c)
	t.Cleanup(func() { s.Close(); c.Close() })
	dir := t.TempDir()
	for _, v := range append(cloud.Env(s.URL), "AWS_REGION=eu-west-1", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "XDG_DATA_HOME="+dir) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	file := filepath.Join(dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: prod}\nspec: {provider: {name: aws, aws: {ssh: {proxyJump: 'me@127.0.0.1:1'}}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), boots/2)
	defer cancel()
	up := func(only, plan string) error {
		o := &fleetOptions{file: file, out: func() output { return "json" }, concurrency: 1}
		if o.aws.makes = true; only != "" {
			o.only = []string{only}
		}
		return o.runUp(ctx, "none", plan, "")
	}
	if err := up(infrastructure, ""); err != nil {
		t.Fatal(err)
	}
	o := &fleetOptions{file: file}
	around, err := o.planAWS(ctx)
	if err != nil || len(around.hosts) != 1 {
		t.Fatal(around, err)
	}
	for name, tt := range map[string]struct {
		then clusterPlan
		want string
	}{
		"of other machines":     {clusterPlan{Hosts: []phases.HostPlan{{Host: "ip-10-9-9-9"}}}, "it is of other machines"},
		"of other changes":      {clusterPlan{Infrastructure: []aws.Change{{Action: "delete"}}}, "other machines would leave"},
		"that knew of no hosts": {clusterPlan{Error: "down"}, "it could not tell what the hosts would get"},
		"of who is down now":    {clusterPlan{Hosts: []phases.HostPlan{{Host: around.hosts[0]}}}, "no control plane that answers"},
	} {
		if err := up("", saved(t, tt.then)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("a plan %s: %v", name, err)
		}
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
