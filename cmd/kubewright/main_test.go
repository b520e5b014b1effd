package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubewright": main})
}

// TestScripts runs testdata/script/*.txtar. What could change this machine runs as
// somebody who may not: `nobody 3 root.err kubewright init`.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			if err := makeBundle(filepath.Join(e.WorkDir, "bundle")); err != nil {
				return err
			}
			b, err := bundle.Open(filepath.Join(e.WorkDir, "bundle"))
			if err != nil {
				return err
			}
			kubelet, _ := b.Find("kubelet", "linux/amd64")
			s := httptest.NewServer(http.FileServer(http.Dir(e.WorkDir)))
			e.Defer(s.Close)
			e.Values["cloud"] = new(*cloud.Cloud)
			e.Setenv("SERVER", s.URL)
			e.Setenv("LOCK", b.Lock().Digest())
			e.Setenv("KUBELET", strings.TrimPrefix(kubelet.Digest, "sha256:"))
			return errors.Join(
				b.Pack(context.Background(), b.Lock().Artifacts, filepath.Join(e.WorkDir, "bundle.tar"), nil),
				b.Pack(context.Background(), b.Lock().Artifacts, filepath.Join(e.WorkDir, "bundle.tar.zst"), nil),
			)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"nobody": asNobody, "flip": flip, "noleak": noLeak, "certs": makeCerts, "mode": mode, "readlink": readlink, "code": code, "cloud": useCloud, "made": made, "hold": hold,
		},
	})
}

// makeBundle makes a bundle of one file.
func makeBundle(dir string) error {
	w, err := bundle.Create(dir, bundle.Built)
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(dir), "kubelet")
	if err := os.WriteFile(file, []byte("kubelet"), 0o755); err != nil {
		return err
	}
	if err := w.AddFile(context.Background(), bundle.Artifact{Name: "kubelet", Version: "v1.35.1", Platform: "linux/amd64"}, file); err != nil {
		return err
	}
	return w.Close()
}

// asNobody runs a command that must fail, as a user without rights; its standard error is
// compared with the rest of the line: nobody CODE FILE COMMAND...
func asNobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nobody CODE FILE COMMAND...")
	}
	code, args := args[0], args[1:]
	var path string
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[1]); path == "" && exists(p) {
			path = p
		}
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if os.Geteuid() == 0 {
		for _, dir := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path)), cmd.Dir, filepath.Dir(cmd.Dir)} {
			ts.Check(os.Chmod(dir, 0o755))
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	err := cmd.Run()
	if errors.Is(err, syscall.EPERM) {
		ts.Logf("skipped: this machine lets root become nobody else")
		return
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || fmt.Sprint(exit.ExitCode()) != code {
		ts.Fatalf("%v, not exit code %s:\n%s", err, code, &stderr)
	}
	want, open := strings.CutSuffix(ts.ReadFile(args[0]), "...\n") // the list of phases goes on growing
	if got := stderr.String(); got != want && !(open && strings.HasPrefix(got, want)) {
		ts.Fatalf("standard error is\n%s\nand not\n%s", &stderr, want)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// code runs a command that must fail with an exit code: code CODE COMMAND...
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code CODE COMMAND...")
	}
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); !errors.As(err, &exit) || fmt.Sprint(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v, not exit code %s:\n%s", err, args[0], ts.ReadFile("stderr"))
	}
}

// flip changes one byte of a file: flip FILE OLD NEW.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	i := bytes.Index(b, []byte(args[1]))
	if i < 0 || len(args[1]) != len(args[2]) {
		ts.Fatalf("%s has no %q", path, args[1])
	}
	copy(b[i:], args[2])
	ts.Check(os.WriteFile(path, b, 0o644))
}

// noLeak fails where the last command printed the secret half of a token.
func noLeak(ts *testscript.TestScript, neg bool, args []string) {
	for _, stream := range []string{"stdout", "stderr"} {
		for _, secret := range args {
			if strings.Contains(ts.ReadFile(stream), secret) {
				ts.Fatalf("%s on %s", secret, stream)
			}
		}
	}
}

// all are the commands of ours, with those that hold them.
func all(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		list = append(list, all(c)...)
	}
	return list
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, cmd := range all(newRoot()) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: Short %q, Example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for line := range strings.Lines(cmd.Example) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			// What it shows must be a command that exists, with flags that exist.
			args := strings.Fields(strings.NewReplacer("'", "", "> cluster.yaml", "").Replace(line))
			if args[0] != "kubewright" {
				t.Errorf("%s: example %q", cmd.CommandPath(), line)
				continue
			}
			found, rest, err := newRoot().Find(args[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil && found.Args != nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err != nil && !strings.Contains(line, "'") {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	}
}

// What is in backticks in a flag's usage takes the place of its type.
func TestPlaceholdersOfFlagsAreOneWord(t *testing.T) {
	for _, cmd := range all(newRoot()) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); strings.Contains(name, " ") {
				t.Errorf("%s --%s %s", cmd.CommandPath(), f.Name, name)
			}
		})
	}
}

func TestHelpOfEveryCommandIsPrinted(t *testing.T) {
	for _, cmd := range all(newRoot()) {
		root := newRoot()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(strings.Fields(cmd.CommandPath())[1:], "--help"))
		if err := root.Execute(); err != nil || !strings.Contains(out.String(), "Examples:\n") || !strings.Contains(out.String(), "Usage:\n") {
			t.Errorf("%s --help: %v\n%s", cmd.CommandPath(), err, &out)
		}
	}
}
