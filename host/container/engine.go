package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubewright/kubewright/host"
)

// Engine is the command of what runs containers: docker, podman, nerdctl.
type Engine string

// The engines, in the order in which they are looked for.
var engines = []Engine{"docker", "nerdctl", "podman"}

// answering is how long an engine may take to say something, or to begin or remove a few containers.
const answering = 2 * time.Minute

// Detect finds an engine that answers: the one that KIND_EXPERIMENTAL_PROVIDER names, as for kind,
// else the first that is installed.
func Detect(ctx context.Context) (Engine, error) {
	if name := os.Getenv("KIND_EXPERIMENTAL_PROVIDER"); name != "" {
		e := Engine(name)
		if !slices.Contains(engines, e) {
			return "", fmt.Errorf("KIND_EXPERIMENTAL_PROVIDER is %q: set it to docker, nerdctl or podman, or unset it", name)
		}
		if _, err := exec.LookPath(name); err != nil {
			return "", fmt.Errorf("KIND_EXPERIMENTAL_PROVIDER is %q: %w: install it, or unset the variable", name, err)
		}
		return e, e.answers(ctx)
	}
	for _, e := range engines {
		if _, err := exec.LookPath(string(e)); err != nil {
			continue
		}
		answer := make(chan error, 1)
		go func() { answer <- e.answers(ctx) }()
		podman := e.isPodman(ctx)
		if err := <-answer; !podman {
			return e, err
		}
	}
	return "", errors.New("no container engine: none of docker, nerdctl, podman is in PATH: install one of them (on Debian: apt-get install docker.io)")
}

func (e Engine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("it did not answer within 20s"))
	defer cancel()
	_, err := e.Do(ctx, "ps", "--quiet") // of all questions the quickest to answer
	if err == nil {
		return nil
	}
	if Advice(err.Error()) == "" {
		err = fmt.Errorf("%w: start it (sudo systemctl start docker), or set DOCKER_HOST to where it is", err)
	}
	return &host.UnreachableError{Err: err}
}

// isPodman tells of a docker that is podman by another name, which kind's library takes for podman, too.
func (e Engine) isPodman(ctx context.Context) bool {
	if e != "docker" {
		return false
	}
	said, err := e.soon(ctx, "-v")
	return err == nil && strings.HasPrefix(said, "podman version")
}

// advice is what to do where an engine says something.
var advice = []struct{ says, do string }{
	{"permission denied while trying to connect", "you may not use the engine: log in as root, or join the group that may (sudo usermod -aG docker $USER, and log in again)"},
	{"Cannot connect to the", "start it (sudo systemctl start docker), or set DOCKER_HOST to where it is"},
	{"port is already allocated", "another container has the port: choose another one (hostPort, apiServerPort), or remove that container"},
	{"address already in use", "another program has the port: choose another one (hostPort, apiServerPort), or end that program"},
	{"no space left on device", "the engine's disk is full: see `docker system df`, and make room with `docker system prune`"},
	{"No such image", "build the image with `kubewright build node-image`, load it with `docker load`, or name another with --image"},
	{"Could not find the file /kind in", notKinds},
	{`"/kind" could not be found on container`, notKinds}, // podman
	{"could not find a log line", "systemd does not come up in this image: build one with `kubewright build node-image`, or name another with --image"},
}

const notKinds = "the image is not one of kind's: build one with `kubewright build node-image`, or name another with --image"

// Advice is what to do where an engine, or kind, says this; empty: nothing is known of it.
func Advice(said string) string {
	for _, a := range advice {
		if strings.Contains(said, a.says) {
			return a.do
		}
	}
	return ""
}

// Do runs the engine's command and returns what it prints, trimmed.
func (e Engine) Do(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, string(e), args...)
	cmd.WaitDelay = time.Second // what it has started may hold its outputs
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(errs.String())
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if said != "" {
			err = errors.New(said)
		}
		if do := Advice(said); do != "" {
			err = fmt.Errorf("%w: %s", err, do)
		}
		return "", fmt.Errorf("%s %s: %w", e, args[0], err)
	}
	return strings.TrimSpace(out.String()), nil
}

// soon is Do for what an engine does at once, or not at all.
func (e Engine) soon(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answering, fmt.Errorf("it did not end within %s: the engine has too much to do, or hangs: see its log, and run this again", answering))
	defer cancel()
	return e.Do(ctx, args...)
}

// Container is one as its engine describes it.
type Container struct {
	Name      string
	Running   bool
	Labels    map[string]string
	Addresses []netip.Addr      // none where it does not run
	Published map[string]string // ports such as 6443/tcp: where they are here, HOST:PORT
}

// Names are those of the containers with a label, NAME or NAME=VALUE, running or not.
func (e Engine) Names(ctx context.Context, label string) ([]string, error) {
	names, err := e.soon(ctx, "ps", "--all", "--filter", "label="+label, "--format", "{{.Names}}")
	return strings.Fields(names), err
}

// Containers are those with a label, NAME or NAME=VALUE, in the order of their names.
func (e Engine) Containers(ctx context.Context, label string) ([]Container, error) {
	for before := []string(nil); ; {
		names, err := e.Names(ctx, label)
		if err != nil || len(names) == 0 {
			return nil, err
		}
		all, err := e.Inspect(ctx, names...)
		if err == nil || slices.Equal(names, before) { // else one of them has gone meanwhile
			return all, err
		}
		before = names
	}
}

// Inspect describes containers, in the order of their names. That one of them is not there is an error.
func (e Engine) Inspect(ctx context.Context, names ...string) (all []Container, err error) {
	out, err := e.soon(ctx, append([]string{"inspect"}, names...)...)
	if err != nil {
		return nil, err
	}
	var said []struct {
		Name   string
		State  struct{ Running bool }
		Config struct{ Labels map[string]string }

		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
			Ports    json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		return nil, fmt.Errorf("%s inspect: %w", e, err)
	}
	for _, s := range said {
		c := Container{Name: strings.TrimPrefix(s.Name, "/"), Running: s.State.Running, Labels: s.Config.Labels, Published: published(s.NetworkSettings.Ports)}
		for _, n := range s.NetworkSettings.Networks {
			for _, text := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if a, err := netip.ParseAddr(text); err == nil {
					c.Addresses = append(c.Addresses, a)
				}
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// published is where ports are published; of several places the first. What podman 1 says is read by kind's library alone.
func published(said json.RawMessage) map[string]string {
	var ports map[string][]struct{ HostIP, HostPort string }
	if json.Unmarshal(said, &ports) != nil {
		return nil
	}
	at := map[string]string{}
	for port, here := range ports {
		if len(here) > 0 && here[0].HostPort != "" {
			at[port] = net.JoinHostPort(cmp.Or(here[0].HostIP, "127.0.0.1"), here[0].HostPort) // no address is any
		}
	}
	return at
}

// Remove removes containers with their volumes, running or not.
func (e Engine) Remove(ctx context.Context, names ...string) error {
	_, err := e.soon(ctx, append([]string{"rm", "--force", "--volumes"}, names...)...)
	if e != "podman" || err != nil {
		return err
	}
	for _, n := range names { // kind makes them of their own there, with the container's name as their label
		volumes, err := e.soon(ctx, "volume", "ls", "--quiet", "--filter", "label="+n)
		if err == nil && volumes != "" {
			_, err = e.soon(ctx, append([]string{"volume", "rm", "--force"}, strings.Fields(volumes)...)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Has tells whether an image is here.
func (e Engine) Has(ctx context.Context, image string) bool {
	_, err := e.soon(ctx, "inspect", "--type=image", "--format", "{{.Id}}", image)
	return err == nil
}

// Write writes a file into a container, which may have stopped. Its folder is there.
func (e Engine) Write(ctx context.Context, name, path string, b []byte) error {
	f, err := os.CreateTemp("", "kubewright-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, err = e.soon(ctx, "cp", f.Name(), name+":"+path)
	return err
}

// Read reads a file of a container, which may have stopped.
func (e Engine) Read(ctx context.Context, name, path string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "kubewright-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := e.soon(ctx, "cp", name+":"+path, dir+"/file"); err != nil {
		return nil, err
	}
	return os.ReadFile(dir + "/file")
}

// Absent tells whether an error of Read says that there is no such file, or no such container.
func Absent(err error) bool {
	return slices.ContainsFunc([]string{"could not find the file", "could not be found on container", "no such file", "no such container"}, func(words string) bool {
		return strings.Contains(strings.ToLower(err.Error()), words)
	})
}

// Running tells how many containers with a label run: that costs an engine less than to describe them.
func (e Engine) Running(ctx context.Context, label string) (int, error) {
	ids, err := e.soon(ctx, "ps", "--quiet", "--filter", "label="+label, "--filter", "status=running")
	return len(strings.Fields(ids)), err
}

// booting is how long systemd may take in a container; it takes some two seconds.
const booting = 2 * time.Minute

// Booted waits until systemd in a container has started everything that it starts; h leads into it.
func (e Engine) Booted(ctx context.Context, name string, h host.Host) error {
	bounded, cancel := context.WithTimeoutCause(ctx, booting, fmt.Errorf("systemd was not up within %s", booting))
	defer cancel()
	// dash's sleep is that of coreutils: a tenth of a second is fine with it.
	const wait = `until [ -S /run/systemd/private ]; do sleep 0.1; done; systemctl is-system-running --wait || true`
	out, err := h.Run(bounded, host.Query("sh", "-c", wait))
	if bounded.Err() != nil {
		err = context.Cause(bounded)
	}
	if state := strings.TrimSpace(string(out.Stdout)); err == nil && state != "running" && state != "degraded" {
		err = fmt.Errorf("systemd says %q", state)
	}
	if err != nil && ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		said, _ := e.Console(ctx, name, 10)
		return fmt.Errorf("the machine %s does not boot: %w; its console:\n%s", name, err, bytes.TrimSpace(said))
	}
	return err
}

// Console is what a container has printed: its last lines, or with 0 all.
func (e Engine) Console(ctx context.Context, name string, lines int) ([]byte, error) {
	args := []string{"logs", name}
	if lines > 0 {
		args = []string{"logs", "--tail", strconv.Itoa(lines), name}
	}
	cmd := exec.CommandContext(ctx, string(e), args...)
	cmd.WaitDelay = time.Second
	said, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s logs %s: %w", e, name, err)
	}
	return said, err
}
