package lab

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubewright/kubewright/manifests"
)

// Engine is a dockerd of the lab's own, on its own socket, so that it neither needs nor disturbs one that the
// machine runs. It outlives the process that started it: hosts of `lab up` stay.
type Engine struct {
	*Builder
	dir string // in the cache: data, configuration, log
}

// The engine's socket, process id and mounts: gone after a reboot, as they should be.
const runDir = "/run/kubewright-lab"

// Start returns the engine, starting it if it does not run.
func Start(ctx context.Context, b *Builder) (*Engine, error) {
	e := &Engine{Builder: b, dir: filepath.Join(b.cache, "engine")}
	for _, dir := range []string{e.dir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	unlock, err := lock(ctx, filepath.Join(runDir, "start.lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for another process that starts the engine: %w", err)
	}
	defer unlock()
	if err := moreWatchers(); err != nil {
		return nil, err
	}
	if _, err := e.docker(ctx, nil, "version"); err == nil {
		return e, nil
	}
	if err := e.start(ctx); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	return e, nil
}

// moreWatchers raises the kernel's 128 inotify instances a user, which all hosts of all labs share: without it the
// third or fourth host does not even boot. Nor does the kernel phase of one host change what another has been told of its own.
func moreWatchers() error {
	for _, s := range manifests.Sysctls(false) {
		file, ours := strings.CutPrefix(s.Name, "fs.inotify.")
		if !ours {
			continue
		}
		file = "/proc/sys/fs/inotify/" + file
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if s.Holds(strings.TrimSpace(string(b))) {
			continue
		}
		if err := os.WriteFile(file, []byte(s.Value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Running returns the engine only if it runs.
func Running(ctx context.Context, b *Builder) (*Engine, bool) {
	e := &Engine{Builder: b, dir: filepath.Join(b.cache, "engine")}
	_, err := e.docker(ctx, nil, "version")
	return e, err == nil
}

func (e *Engine) start(ctx context.Context) error {
	wrapper, err := e.runtimeWrapper(ctx)
	if err != nil {
		return err
	}
	config, err := json.MarshalIndent(map[string]any{
		"hosts":     []string{"unix://" + runDir + "/docker.sock"},
		"data-root": filepath.Join(e.dir, "data"),
		"exec-root": filepath.Join(runDir, "exec"),
		"pidfile":   e.pidFile(),
		// No docker0: it would be a second dockerd's as well. Each lab makes a network of its own.
		"bridge": "none",
		// Nor its addresses, which kind's network would get: rules that a dockerd leaves behind hide who sends from them.
		"default-address-pools": []map[string]any{{"base": "10.214.0.0/16", "size": 24}},
		"runtimes":              map[string]any{"lab": map[string]any{"path": wrapper}},
		"default-runtime":       "lab",
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.configFile(), config, 0o644); err != nil {
		return err
	}
	logName := filepath.Join(e.dir, "dockerd.log")
	logFile, err := os.Create(logName)
	if err != nil {
		return err
	}
	defer logFile.Close()
	// Not CommandContext: the engine stays when we go.
	cmd := exec.Command("dockerd", "--config-file", e.configFile())
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	e.log("starting dockerd (log: %s)", logName)
	if err := cmd.Start(); err != nil {
		return err
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return poll(ctx, func() error {
		select {
		case err := <-died:
			cancel() // no use in asking further
			tail, _ := os.ReadFile(logName)
			return commandError(cmd, fmt.Errorf("ended: %v", err), tail)
		default:
		}
		_, err := e.docker(ctx, nil, "version")
		return err
	})
}

func (e *Engine) configFile() string { return filepath.Join(e.dir, "daemon.json") }
func (e *Engine) pidFile() string    { return filepath.Join(runDir, "docker.pid") }

// runtimeWrapper builds e2e/cmd/lab-runc and returns where it is for as long as the engine lives.
func (e *Engine) runtimeWrapper(ctx context.Context) (string, error) {
	src := filepath.Join(e.source, "e2e/cmd/lab-runc")
	srcKey, err := treeKey(src, func(p string) bool { return !strings.HasSuffix(p, "_test.go") })
	if err != nil {
		return "", err
	}
	dir, err := e.make(ctx, "lab-runc", "OCI runtime wrapper", key(srcKey, runtime.Version()), func(ctx context.Context, dir string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(dir, "lab-runc"), ".")
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return run(cmd)
	})
	return filepath.Join(dir, "lab-runc"), err
}

// Stop ends the engine and waits until it is gone. Its hosts are stopped with it.
func (e *Engine) Stop(ctx context.Context) error {
	text, err := os.ReadFile(e.pidFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", e.pidFile(), err)
	}
	// A pid file can outlive its process, and the number then be somebody else's.
	ours := func() bool {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return bytes.HasPrefix(cmdline, []byte("dockerd\x00")) && bytes.Contains(cmdline, []byte(e.configFile()))
	}
	if !ours() {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	return poll(ctx, func() error {
		if ours() {
			return fmt.Errorf("dockerd (process %d) still runs", pid)
		}
		return nil
	})
}

// errOverlap is a network's range that is taken.
var errOverlap = errors.New("the range is taken")

// docker runs the engine's client and returns what it printed.
func (e *Engine) docker(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := e.Docker(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if strings.Contains(stderr.String(), "overlaps with other one") {
			err = errOverlap
		}
		return "", commandError(cmd, err, stderr.Bytes())
	}
	return stdout.String(), nil
}

// Docker is a command of the engine's client, for whatever has no method here.
func (e *Engine) Docker(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	// The user's own contexts and credentials are none of the lab's business.
	cmd.Env = append(os.Environ(), e.Env()...)
	return cmd
}

// Remove deletes the hosts, networks, volumes and the SSH key of the lab of that name; an empty name is all labs.
func (e *Engine) Remove(ctx context.Context, lab string) error {
	filter := "label=" + label
	if lab != "" {
		filter += "=" + lab
	}
	for _, what := range []struct{ list, remove []string }{
		{[]string{"ps", "-aq", "--filter", filter}, []string{"rm", "--force", "--volumes"}},
		{[]string{"network", "ls", "-q", "--filter", filter}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "-q", "--filter", filter}, []string{"volume", "rm", "--force"}},
	} {
		out, err := e.docker(ctx, nil, what.list...)
		if err != nil {
			return err
		}
		if ids := strings.Fields(out); len(ids) > 0 {
			if _, err := e.docker(ctx, nil, append(what.remove, ids...)...); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(e.sshDir(lab))
}

func (e *Engine) networkName(lab string) string         { return "lab-" + lab }
func (e *Engine) containerName(lab, host string) string { return lab + "." + host }
