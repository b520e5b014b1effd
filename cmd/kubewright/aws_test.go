package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubewright/kubewright/e2e/cloud"
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
