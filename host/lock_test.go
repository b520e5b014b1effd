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

func TestLockKeepsOthersOutUntilItIsGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lock")
	_, release, err := lock(t.Context(), path, "init")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = lock(t.Context(), path, "join")
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Lease.Command != "init" || locked.Lease.PID != os.Getpid() {
		t.Fatalf("a second lock gave %v", err)
	}
	if !strings.Contains(err.Error(), "wait until it ends") {
		t.Errorf("%q does not say what to do", err)
	}
	release()
	_, release, err = lock(t.Context(), path, "join")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestStaleLocksAreTakenOver(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	// A run that hangs, and a command that it has started.
	hanging := exec.Command("sleep", "600")
	hanging.Env = append(os.Environ(), runVariable+"=old-run")
	if err := hanging.Start(); err != nil {
		t.Fatal(err)
	}
	started, err := processStart(hanging.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	alive := Lease{Run: "old-run", Command: "init", PID: hanging.Process.Pid, Started: started, Boot: strings.TrimSpace(string(boot)), Since: now, Renewed: sinceBoot()}
	if !alive.held(alive.Boot, sinceBoot()) {
		t.Error("a lease of a living process that was just renewed is held")
	}
	for name, change := range map[string]func(*Lease){
		"a process that has ended":        func(l *Lease) { l.PID = 1 << 22 },
		"another process of the same PID": func(l *Lease) { l.Started = "1" },
		"before the machine booted":       func(l *Lease) { l.Boot = "another" },
		"not renewed":                     func(l *Lease) { l.Renewed -= int64(leaseStale) },
	} {
		l := alive
		change(&l)
		if l.held(alive.Boot, sinceBoot()) {
			t.Errorf("%s: the lease is still held", name)
		}
	}

	path := filepath.Join(t.TempDir(), "lock")
	alive.Renewed -= int64(leaseStale)
	b, err := json.Marshal(alive)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- hanging.Wait() }()
	_, release, err := lock(t.Context(), path, "init")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := <-gone; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what the old run had started ended with %v", err)
	}
}

func TestLockCutShortIsNobodys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, []byte(`{"run":"x","comm`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, release, err := lock(t.Context(), path, "init")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestARunThatWasTakenOverEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l := Lease{Run: "mine"}
	if err := os.WriteFile(path, []byte(`{"run":"another"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	tick := make(chan time.Time, 1)
	tick <- time.Now()
	l.keep(ctx, path, tick, cancel)
	if cause := context.Cause(ctx); cause == nil || !strings.Contains(cause.Error(), "has taken this host over") {
		t.Errorf("it ended by %v", cause)
	}
}
