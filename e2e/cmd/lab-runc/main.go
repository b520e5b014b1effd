// Command lab-runc is the OCI runtime of the lab's engine: runc, asked for no capability that this machine lacks.
//
// A machine may lack some (CAP_SYS_RESOURCE, in a sandbox) in its bounding set. A privileged container asks for all
// that the engine knows, and runc refuses what cannot be given. So they are taken out of the configuration, and
// runc takes over this process.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := runc(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "lab-runc:", err)
		os.Exit(1)
	}
}

func runc(args []string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	bounding, err := boundingSet(string(status))
	if err != nil {
		return err
	}
	if file := configOf(args[1:]); file != "" {
		if err := filterFile(file, bounding); err != nil {
			return fmt.Errorf("take missing capabilities out of %s: %w", file, err)
		}
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{"runc"}, args[1:]...), os.Environ())
}

// configOf is the file that holds the capabilities a runc command asks for; empty if it asks for none.
func configOf(args []string) string {
	value := func(names ...string) string {
		for i, a := range args {
			name, v, joined := strings.Cut(a, "=")
			if !slices.Contains(names, name) {
				continue
			}
			if joined {
				return v
			}
			if i+1 < len(args) {
				return args[i+1]
			}
		}
		return ""
	}
	switch {
	case slices.Contains(args, "create"), slices.Contains(args, "run"):
		return filepath.Join(value("--bundle", "-bundle", "-b"), "config.json")
	case slices.Contains(args, "exec"):
		return value("--process", "-process", "-p")
	}
	return ""
}

// boundingSet reads CapBnd of a /proc/PID/status.
func boundingSet(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, fmt.Errorf("no CapBnd in /proc/self/status")
}

func filterFile(file string, bounding uint64) error {
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	after, err := filter(before, bounding)
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	return os.WriteFile(file, after, 0o600)
}

// filter takes what is not in the bounding set out of an OCI config.json or process.json. A document that asks for
// nothing missing comes back as it is.
func filter(document []byte, bounding uint64) ([]byte, error) {
	var top map[string]any
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber() // a limit of 2^64-1 is no float
	if err := decoder.Decode(&top); err != nil {
		return nil, err
	}
	process := top
	if p, ok := top["process"].(map[string]any); ok {
		process = p
	}
	sets, _ := process["capabilities"].(map[string]any)
	changed := false
	for name, set := range sets {
		list, _ := set.([]any)
		kept := slices.DeleteFunc(slices.Clone(list), func(c any) bool { return missing(c, bounding) })
		if len(kept) < len(list) {
			sets[name], changed = kept, true
		}
	}
	if !changed {
		return document, nil
	}
	return json.Marshal(top)
}

// missing says whether the machine lacks the capability. One that we do not know is left to runc.
func missing(capability any, bounding uint64) bool {
	name, _ := capability.(string)
	i := slices.Index(capabilities(), strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	return i >= 0 && bounding&(1<<i) == 0
}

// capabilities by number, as in linux/capability.h.
func capabilities() []string {
	return strings.Fields(`
		CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
		NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
		SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
		MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
}
