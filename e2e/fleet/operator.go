package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a fleet in a process of its own: e2e/cmd/fleet.
type Process struct {
	dir    string
	hosts  int
	cmd    *exec.Cmd
	stdin  io.Closer
	visits chan Visit // closed when it has ended
}

// Spawn starts the command with a folder for what the operator needs, and returns when the hosts can be reached.
func Spawn(ctx context.Context, command, dir string, hosts int) (*Process, error) {
	p := &Process{dir: dir, hosts: hosts, visits: make(chan Visit, hosts)}
	p.cmd = exec.CommandContext(ctx, command, "-hosts", strconv.Itoa(hosts), "-dir", dir)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return nil, errors.Join(errors.New("the fleet did not start"), p.Close())
	}
	go func() {
		defer close(p.visits)
		for lines.Scan() {
			var v Visit
			if json.Unmarshal(lines.Bytes(), &v) == nil {
				p.visits <- v
			}
		}
	}()
	return p, nil
}

// Close ends it.
func (p *Process) Close() error {
	p.stdin.Close()
	for range p.visits {
	}
	return p.cmd.Wait()
}

// Result is what one run of the operator cost, and what it did.
type Result struct {
	Seconds float64
	Memory  float64 // the most that it ever had, MB
	CPU     float64 // seconds
	Changes int
	Visits  []Visit
}

// Trips are the most that a host took, after the login.
func (r Result) Trips() (most int) {
	for _, v := range r.Visits {
		most = max(most, v.Trips)
	}
	return most
}

var changes = regexp.MustCompile(`\((\d+) changes? in`)

// Prepare has the operator bring all hosts to where only the cluster is missing.
func (p *Process) Prepare(ctx context.Context, kubewright string) (r Result, err error) {
	cmd := exec.CommandContext(ctx, kubewright, "up", "-f", "cluster.yaml", "--ssh-config", "ssh_config", "--bundle", "bundle", "--prepare")
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "KUBECONFIG="+filepath.Join(p.dir, "kubeconfig"), "SSH_AUTH_SOCK=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		said := errs.String()
		return r, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said[max(0, len(said)-4<<10):])
	}
	r.Seconds = time.Since(begin).Seconds()
	r.Memory = float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024 / 1e6
	r.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if found := changes.FindStringSubmatch(out.String()); found != nil {
		r.Changes, _ = strconv.Atoi(found[1])
	}
	for range p.hosts {
		v, ok := <-p.visits
		if !ok {
			return r, errors.New("the fleet has ended")
		}
		r.Visits = append(r.Visits, v)
	}
	return r, nil
}
