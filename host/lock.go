package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lockPath = "/run/kubewright/lock"
	// A lease is renewed often enough to survive a few seconds of a machine that does nothing else.
	leaseRenewed = 5 * time.Second
	leaseStale   = 20 * time.Second
	runVariable  = "KUBEWRIGHT_RUN" // in the environment of every command that a run starts
)

// Lease says who is at work on a host.
type Lease struct {
	Run     string    `json:"run"`     // unlike any other
	Command string    `json:"command"` // init, join, reset
	PID     int       `json:"pid"`
	Started string    `json:"started"` // of the process: a PID comes again
	Boot    string    `json:"boot"`    // of the kernel
	Since   time.Time `json:"since"`
	// Renewed is when, in nanoseconds since boot: nobody sets that clock.
	Renewed int64 `json:"renewed"`
}

// LockedError tells that somebody else is at work on the host.
type LockedError struct{ Lease Lease }

func (e *LockedError) Error() string {
	return fmt.Sprintf("another run is at work on this host: kubewright %s, process %d, since %s: wait until it ends, or end it with `kill %d`, and run this again",
		e.Lease.Command, e.Lease.PID, e.Lease.Since.Local().Format(time.TimeOnly), e.Lease.PID)
}

var errTaken = errors.New("another run has taken this host over, as this one had stopped for a while")

// Lock gives a lease. It is over when its process has ended, or has not renewed it for 20 s;
// what that run left running is then ended first.
func (Local) Lock(ctx context.Context, command string) (context.Context, func(), error) {
	if runtime.GOOS != "linux" {
		return nil, nil, fmt.Errorf("this machine runs %s, and a node is a Linux host: from here, `kubewright up` makes clusters of hosts that SSH reaches", runtime.GOOS)
	}
	return lock(ctx, lockPath, command)
}

func lock(ctx context.Context, path, command string) (context.Context, func(), error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil, err
	}
	started, err := processStart(os.Getpid())
	if err != nil {
		return nil, nil, err
	}
	now, uptime := time.Now(), sinceBoot()
	own := Lease{Run: fmt.Sprintf("%d-%d", os.Getpid(), now.UnixNano()), Command: command, PID: os.Getpid(), Started: started,
		Boot: string(bytes.TrimSpace(boot)), Since: now, Renewed: uptime}
	err = alone(path, func(have *Lease) (*Lease, error) {
		if have != nil && have.held(own.Boot, uptime) {
			return nil, &LockedError{*have}
		}
		if have != nil && have.Boot == own.Boot {
			if err := have.end(); err != nil {
				return nil, err
			}
		}
		return &own, nil
	})
	if err != nil {
		return nil, nil, err
	}
	os.Setenv(runVariable, own.Run)
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(leaseRenewed)
		defer tick.Stop()
		own.keep(ctx, path, tick.C, cancel)
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		alone(path, func(have *Lease) (*Lease, error) { // best effort: a lease of a process that has ended holds nobody up
			if have == nil || have.Run != own.Run {
				return have, nil
			}
			return nil, nil
		})
	}, nil
}

// keep renews the lease until ctx ends, and ends it where somebody else has taken over.
func (l Lease) keep(ctx context.Context, path string, tick <-chan time.Time, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		err := alone(path, func(have *Lease) (*Lease, error) {
			if have == nil || have.Run != l.Run {
				return nil, errTaken
			}
			l.Renewed = sinceBoot()
			return &l, nil
		})
		if err != nil {
			cancel(err)
			return
		}
	}
}

// held tells whether the owner is alive and keeps its lease.
func (l Lease) held(boot string, uptime int64) bool {
	if l.Boot != boot {
		return false
	}
	started, err := processStart(l.PID)
	return err == nil && started == l.Started && time.Duration(uptime-l.Renewed) < leaseStale
}

// end kills what a run has left: itself, if it hangs, and the commands that it started. It
// returns when they are gone.
func (l Lease) end() error {
	var pids []int
	if started, err := processStart(l.PID); err == nil && started == l.Started {
		pids = append(pids, l.PID)
	}
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, environ := range all {
		b, err := os.ReadFile(environ)
		if err != nil || !bytes.Contains(append([]byte{0}, b...), []byte("\x00"+runVariable+"="+l.Run+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(environ))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if !kill(pid) {
			return fmt.Errorf("process %d of an earlier kubewright %s does not end, though it was killed: see what it waits for with `cat /proc/%d/stack`, and run this again", pid, l.Command, pid)
		}
	}
	return nil
}

// alone reads the lease, lets change decide, and writes what it returns (nil: none), while
// nobody else can do the same.
func alone(path string, change func(*Lease) (*Lease, error)) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var have *Lease
	if err := json.Unmarshal(b, &have); err != nil {
		have = nil // empty, or cut short by a machine that went down: nobody's
	}
	wanted, err := change(have)
	if err != nil {
		return err
	}
	var content []byte
	if wanted != nil {
		if content, err = json.Marshal(wanted); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(content, 0); err != nil { // what is there stays there on a full file system
		return err
	}
	return f.Truncate(int64(len(content)))
}

// processStart is when a process began, in ticks since boot (field 22 of proc(5)'s stat); an
// error if there is none of that PID, or only its remains.
func processStart(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The command's name, in parentheses, may hold blanks.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}
