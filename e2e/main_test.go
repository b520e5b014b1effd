package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// The lab of all tests, or why there is none.
var (
	shared  *lab.Lab
	without string
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case testing.Short():
		without = "real hosts take minutes: not with -short"
	case os.Geteuid() != 0:
		without = "real hosts are containers with systemd, which only root can make: run as root"
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if without != "" {
		return m.Run(), nil
	}
	klog.SetLogger(logr.Discard()) // client-go's watches tell what they try again by themselves
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	unlock, err := onlyOne()
	if err != nil {
		return 1, err
	}
	defer unlock()
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "e2e: "+format+"\n", args...) }
	shared, err = lab.New(ctx, lab.Options{Name: "test", Log: say})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.Close(context.WithoutCancel(ctx))) }()
	if _, err := shared.Kubewright(ctx); err != nil {
		return 1, err
	}
	done := make(chan int)
	go func() { done <- m.Run() }()
	select {
	case code = <-done:
		return code, nil
	case <-ctx.Done(): // hosts must not stay because somebody pressed Ctrl-C
		return 1, ctx.Err()
	}
}

// onlyOne waits until no other run of these tests has the lab: each would take the other's hosts for a killed run's.
func onlyOne() (unlock func() error, err error) {
	cache, err := lab.Cache()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache, "test.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	return f.Close, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
}

// needLab skips a test where there is no lab, and gives it a deadline. Call it after t.Parallel, which waits.
func needLab(t *testing.T, limit time.Duration) (context.Context, *lab.Lab) {
	t.Helper()
	if without != "" {
		t.Skip(without)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx, shared
}

// prepared is where kubeadm can begin. Whoever asks first makes it, if the binary is new.
var prepared = sync.OnceValues(func() (lab.HostOptions, error) {
	image, err := cluster.Prepared(context.Background(), shared)
	return lab.HostOptions{Image: image}, err
})

// preparedHosts have containerd running, the images, the kubelet and kubeadm, and no cluster.
func preparedHosts(ctx context.Context, t *testing.T, names ...string) []*lab.Host {
	t.Helper()
	o, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	return hosts(ctx, t, o, names...)
}

// hosts last as long as the test: two idle control planes take a tenth of the machine.
func hosts(ctx context.Context, t *testing.T, o lab.HostOptions, names ...string) []*lab.Host {
	t.Helper()
	hosts, err := shared.HostsFrom(ctx, o, names...)
	t.Cleanup(func() {
		var g errgroup.Group
		for _, h := range hosts {
			if h != nil {
				g.Go(func() error { return h.Remove(context.WithoutCancel(ctx)) })
			}
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return hosts
}

const tool = lab.ToolDir + "/kubewright"

// kubewright runs our command on a host as root, and fails the test if it fails.
func kubewright(ctx context.Context, t *testing.T, h *lab.Host, args ...string) (stdout string) {
	t.Helper()
	return run(ctx, t, h, append([]string{tool}, args...)...)
}

func run(ctx context.Context, t *testing.T, h *lab.Host, argv ...string) (stdout string) {
	t.Helper()
	stdout, stderr, err := h.Exec(ctx, nil, argv...)
	if err != nil {
		t.Fatalf("%v\nstdout: %s\nstderr: %s", err, stdout, stderr)
	}
	return stdout
}

// refused wants a command to fail with a message that has all of these parts.
func refused(ctx context.Context, t *testing.T, h *lab.Host, argv []string, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // one that is not refused may wait for long
	defer cancel()
	stdout, stderr, err := h.Exec(ctx, nil, argv...)
	var exit *lab.ExitError
	switch {
	case err == nil:
		t.Fatalf("%q was not refused, and said:\n%s%s", argv, stdout, stderr)
	case !errors.As(err, &exit):
		t.Fatal(err)
	case exit.Code < 1 || exit.Code > 4: // as kubewright's help has them
		t.Errorf("exit code %d", exit.Code)
	}
	for _, p := range parts {
		if !strings.Contains(stderr, p) {
			t.Errorf("the message lacks %q:\n%s", p, stderr)
		}
	}
	if strings.Contains(stderr, "goroutine ") || strings.Contains(stderr, "Usage:") {
		t.Errorf("a stack or the usage is no answer to a person:\n%s", stderr)
	}
}

// explainFailure keeps what the hosts and the cluster of a failed test looked like in a file of the lab's cache: in the log
// it would hide what failed. The first host is the one that would be a control plane.
func explainFailure(t *testing.T, hosts ...*lab.Host) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		cache, err := lab.Cache()
		if err != nil {
			t.Log(err)
			return
		}
		file := filepath.Join(cache, "failures", t.Name()+".log")
		var all strings.Builder
		defer func() {
			err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(all.String()), 0o644))
			t.Log("what its hosts looked like: ", file, err)
		}()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		look := func(h *lab.Host, argv ...string) {
			out, stderr, err := h.Exec(ctx, nil, argv...)
			if err != nil {
				out += stderr
			}
			fmt.Fprintf(&all, "%s# %s\n%s\n", h.Name, strings.Join(argv, " "), out)
		}
		look(hosts[0], "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "--request-timeout", "10s", "get", "nodes,pods", "-A", "-o", "wide")
		for _, h := range hosts {
			for _, unit := range []string{"kubelet", "containerd"} {
				look(h, "journalctl", "--no-pager", "--lines", "200", "--unit", unit, "--output", "cat")
			}
			look(h, "crictl", "ps", "--all")
		}
	})
}

// eventLog keeps what kubewright said, for the log of a test that fails.
type eventLog struct {
	mu    sync.Mutex
	lines strings.Builder
}

func newEventLog(t *testing.T) *eventLog {
	l := &eventLog{}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.Failed() {
			t.Logf("kubewright said:\n%s", l.lines.String())
		}
	})
	return l
}

func (l *eventLog) add(line []byte) {
	if strings.Contains(string(line), `"state":"progress"`) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines.Write(append(line, '\n'))
}
