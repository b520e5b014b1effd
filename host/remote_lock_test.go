package host

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func leaseOf(t *testing.T, path string) (l Lease) {
	t.Helper()
	if err := json.Unmarshal([]byte(text(t, path)), &l); err != nil {
		t.Fatalf("%q: %v", text(t, path), err)
	}
	return l
}

func TestARemoteLockKeepsALocalRunOutAndBack(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		path := filepath.Join(t.TempDir(), "run dir", "lock")
		_, release, err := r.lock(t.Context(), path, "up")
		if err != nil {
			t.Fatal(err)
		}
		if n := r.RoundTrips(); n != 1 {
			t.Errorf("%d round trips", n)
		}
		if perm(t, path) != 0o600 || perm(t, filepath.Dir(path)) != 0o700 {
			t.Error("others can read it")
		}
		own := leaseOf(t, path)
		started, err := processStart(own.PID)
		if err != nil || started != own.Started || own.Run != r.run || own.Command != "up" || time.Since(own.Since) > time.Minute {
			t.Errorf("%+v, %s, %v", own, started, err)
		}
		if age := time.Duration(sinceBoot() - own.Renewed); age < -leaseRenewed || age > leaseRenewed {
			t.Errorf("it was renewed %s ago", age)
		}
		other := remote(t, "dash")
		for name, take := range map[string]func() (context.Context, func(), error){
			"local":  func() (context.Context, func(), error) { return lock(t.Context(), path, "init") },
			"remote": func() (context.Context, func(), error) { return other.lock(t.Context(), path, "up") },
		} {
			_, _, err := take()
			var locked *LockedError
			if !errors.As(err, &locked) || locked.Lease.PID != own.PID || !strings.Contains(err.Error(), "kubewright up, process ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		release()
		_, release, err = lock(t.Context(), path, "init")
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = r.lock(t.Context(), path, "up")
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Lease.PID != os.Getpid() || locked.Lease.Command != "init" {
			t.Errorf("%v", err)
		}
		release()
		_, release, err = r.lock(t.Context(), path, "up")
		if err != nil {
			t.Fatal(err)
		}
		release()
		if text(t, path) != "" {
			t.Errorf("given back, it holds %q", text(t, path))
		}
	})
}

func TestARemoteTakesAStaleLockOver(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		for _, run := range []string{"old-run", ""} { // by what it started, and by its process
			hanging := exec.Command("sleep", "600")
			if run != "" {
				hanging.Env = append(os.Environ(), runVariable+"="+run)
			}
			if err := hanging.Start(); err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() { gone <- hanging.Wait() }()
			started, err := processStart(hanging.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			boot := strings.TrimSpace(text(t, "/proc/sys/kernel/random/boot_id"))
			stale := Lease{Run: "old-run", Command: "init", PID: hanging.Process.Pid, Started: started, Boot: boot, Since: time.Now(), Renewed: sinceBoot() - int64(leaseStale+time.Second)}
			if run != "" {
				stale.PID = 1 << 22
			}
			b, err := json.Marshal(stale)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "lock")
			put(t, path, string(b), 0o600)
			_, release, err := r.lock(t.Context(), path, "up")
			if err != nil {
				t.Fatal(err)
			}
			if err := <-gone; err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("what the old run had started ended with %v", err)
			}
			release()
		}
		started, err := processStart(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(Lease{Run: "x", Command: "init", PID: os.Getpid(), Started: started, Boot: "another", Renewed: sinceBoot()})
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{"cut short": `{"run":"x","comm`, "empty": "", "of another boot": string(b)} {
			path := filepath.Join(t.TempDir(), "lock")
			put(t, path, content, 0o600)
			_, release, err := r.lock(t.Context(), path, "up")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if own := leaseOf(t, path); own.Run != r.run {
				t.Errorf("%s: %+v", name, own)
			}
			release()
		}
	})
}

func TestTheKeeperRenewsItsLeaseOnly(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		path := filepath.Join(t.TempDir(), "lock")
		keeper, err := startAgent(t.Context(), r.transport, r.shell, r.run)
		if err != nil {
			t.Fatal(err)
		}
		run, _ := json.Marshal(r.run)
		if _, code, err := keeper.ask(t.Context(), "lock", path, string(run), `"up"`, `"2026-01-02T03:04:05Z"`); err != nil || code != 0 {
			t.Fatal(code, err)
		}
		old := leaseOf(t, path)
		old.Renewed -= int64(time.Second)
		b, _ := json.Marshal(old)
		put(t, path, string(b), 0o600)

		if out, code, err := keeper.ask(t.Context(), "renew"); err != nil || code != 0 {
			t.Fatal(out, code, err)
		}
		if l := leaseOf(t, path); l.Renewed <= old.Renewed || l.Run != old.Run || l.PID != old.PID || !l.Since.Equal(old.Since) {
			t.Errorf("%+v after %+v", l, old)
		}
		put(t, path, `{"run":"another"}`, 0o600)
		ctx, cancel := context.WithCancelCause(t.Context())
		tick := make(chan time.Time, 1)
		tick <- time.Now()
		r.keep(ctx, keeper, path, tick, cancel)
		if cause := context.Cause(ctx); cause == nil || cause.Error() != errTaken.Error() {
			t.Errorf("it ended by %v", cause)
		}
		if text(t, path) != `{"run":"another"}` {
			t.Errorf("it wrote %q", text(t, path))
		}
	})
}

func TestARunWhoseKeeperWasEndedEnds(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		for name, tt := range map[string]struct {
			content string
			want    string
		}{
			"by another run":   {`{"run":"another"}`, errTaken.Error()},
			"by who knows who": {"", "this host is no longer kept for this run: "},
		} {
			path := filepath.Join(t.TempDir(), "lock")
			keeper, err := startAgent(t.Context(), r.transport, r.shell, r.run)
			if err != nil {
				t.Fatal(err)
			}
			run, _ := json.Marshal(r.run)
			if _, code, err := keeper.ask(t.Context(), "lock", path, string(run), `"up"`, `"2026-01-02T03:04:05Z"`); err != nil || code != 0 {
				t.Fatal(code, err)
			}
			process, err := os.FindProcess(leaseOf(t, path).PID)
			if err != nil {
				t.Fatal(err)
			}
			put(t, path, tt.content, 0o600)
			if err := process.Kill(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			tick := make(chan time.Time, 1)
			tick <- time.Now()
			r.keep(ctx, keeper, path, tick, cancel)
			if cause := context.Cause(ctx); cause == nil || !strings.HasPrefix(cause.Error(), tt.want) {
				t.Errorf("%s: it ended by %v", name, cause)
			}
		}
	})
}

func TestALostLinkEndsTheRunAndGivesTheLockBack(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		path := filepath.Join(t.TempDir(), "lock")
		if _, _, err := r.lock(t.Context(), path, "up"); err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() {
			_, err := r.Run(t.Context(), Cmd("sh", "-c", "echo >>"+path+".started; sleep 600"))
			started <- err
		}()
		poll(t, func() bool { _, err := os.Stat(path + ".started"); return err == nil })
		r.Close() // which waits for the shells there
		if err := <-started; err == nil {
			t.Error("the command has ended well")
		}
		if text(t, path) != "" {
			t.Errorf("the lock holds %q", text(t, path))
		}
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, e := range environs {
			if b, _ := os.ReadFile(e); strings.Contains(string(b), r.run) {
				t.Errorf("%s still runs", e)
			}
		}
	})
}

// poll waits for what becomes true.
func poll(t *testing.T, is func() bool) {
	t.Helper()
	for !is() {
		if t.Context().Err() != nil {
			t.Fatal("it did not come")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestALocalRunEndsARemoteOneThatHangs(t *testing.T) {
	onRemotes(t, func(t *testing.T, r *Remote) {
		path := filepath.Join(t.TempDir(), "lock")
		ctx, _, err := r.lock(t.Context(), path, "up")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Stat(ctx, "/"); err != nil {
			t.Fatal(err)
		}
		stale := leaseOf(t, path)
		stale.Renewed -= int64(leaseStale + time.Second)
		b, _ := json.Marshal(stale)
		put(t, path, string(b), 0o600)
		_, release, err := lock(t.Context(), path, "init")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if _, err := processStart(stale.PID); err == nil {
			t.Error("its keeper still runs")
		}
		if _, err := r.Run(ctx, Query("true")); err == nil {
			t.Error("its shells still run")
		}
	})
}
