package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"
)

// Host is a machine of a lab.
type Host struct {
	Name string // its hostname, known to the other hosts by DNS
	IP   string // the same for its whole life; of a host with IPv6 alone, that one
	IPv6 string // of a host that has one

	engine        *Engine
	network, ipv4 string // as the engine knows them
	id            string // of the container: kubewright.lab's name and the host's
}

// How long a host may take until its systemd is up; it is done within two seconds on an idle machine.
const bootTimeout = 2 * time.Minute

func (l *Lab) start(ctx context.Context, h *Host, o HostOptions) (*Host, error) {
	if err := l.create(ctx, h, o); err != nil {
		return nil, fmt.Errorf("host %s: %w", h.Name, err)
	}
	if err := h.waitBooted(ctx); err != nil || o.Families != IPv6 {
		return h, err
	}
	// Docker knows no network without IPv4.
	_, _, err := h.Exec(ctx, nil, "ip", "-4", "addr", "flush", "dev", "eth0")
	return h, err
}

func (l *Lab) create(ctx context.Context, h *Host, o HostOptions) error {
	image := o.Image
	if image.ref == "" {
		var err error
		if image, err = l.bareImage(ctx); err != nil {
			return err
		}
	}
	volume, err := l.varVolume(ctx, h.id, image)
	if err != nil {
		return err
	}
	args := []string{"run", "--detach", "--name", h.id, "--hostname", h.Name, "--env", "LAB_SSH_KEY=" + l.sshKey,
		"--label", label + "=" + l.name, "--label", hostLabel + "=" + h.Name, "--label", ipLabel + "=" + h.IP,
		"--network", h.network, "--ip", h.ipv4, "--network-alias", h.Name,
		// All that systemd, a kubelet and containers in a container need; cgroups of its own, so that hosts side by side
		// each have their /kubepods.
		"--privileged", "--cgroupns=private", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"--tmpfs", "/run", "--tmpfs", "/tmp:exec",
		"--stop-signal", "SIGRTMIN+3", // systemd's for "shut down"
		// The kernel has no overlayfs on overlayfs: containerd's needs a real file system below.
		"--volume", volume + ":/var"}
	if h.IPv6 != "" {
		// Docker turns it on for its own interface alone, and flannel's and the pods' are to come.
		args = append(args, "--ip6", h.IPv6, "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.default.disable_ipv6=0")
	}
	for flag, value := range map[string]string{"--dns": o.Resolver, "--dns-search": o.Search} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if modules, err := os.ReadDir("/lib/modules"); err == nil && len(modules) > 0 { // kind leaves an empty folder on machines without
		args = append(args, "--volume", "/lib/modules:/lib/modules:ro")
	}
	for _, m := range append(l.mounts, o.Mounts...) {
		args = append(args, "--volume", m.Source+":"+m.Target+":ro")
	}
	_, err = l.Engine.docker(ctx, nil, append(args, image.ref)...)
	return err
}

// waitBooted waits until systemd has started everything that it starts. Failed units do not matter here.
func (h *Host) waitBooted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	pid, err := h.engine.docker(ctx, nil, "inspect", "--format", "{{.State.Pid}}", h.id)
	if err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	socket := path.Join("/proc", strings.TrimSpace(pid), "root/run/systemd/private")
	err = poll(ctx, func() error {
		// Looking at systemd's socket from outside costs nothing; a process in a host that boots would slow it down.
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		stdout, stderr, err := h.Exec(ctx, nil, "systemctl", "is-system-running", "--wait")
		if state := strings.TrimSpace(stdout); state == "running" || state == "degraded" {
			return nil
		} else if err == nil {
			err = fmt.Errorf("systemd says %q", state)
		}
		return fmt.Errorf("%w %s", err, stderr)
	})
	if err != nil {
		logs, _ := h.engine.Docker(context.WithoutCancel(ctx), "logs", "--tail", "20", h.id).CombinedOutput()
		return fmt.Errorf("host %s does not boot: %w; its console: %s", h.Name, err, bytes.TrimSpace(logs))
	}
	return nil
}

// ExitError is a command on a host that ran and failed.
type ExitError struct {
	Host   string
	Argv   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit code %d: %s", e.Host, strings.Join(e.Argv, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Exec runs a command as root and waits for it. A non-zero exit is an *[ExitError]; stdin may be nil.
func (h *Host) Exec(ctx context.Context, stdin io.Reader, argv ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := h.Command(ctx, stdin, argv...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = &ExitError{h.Name, argv, exit.ExitCode(), errOut.String()}
	} else if err != nil {
		err = fmt.Errorf("%s: %s: %w", h.Name, strings.Join(argv, " "), err)
	}
	return out.String(), errOut.String(), err
}

// Command is Exec for who wants the output as it comes. Killing it leaves the command on the host alone.
func (h *Host) Command(ctx context.Context, stdin io.Reader, argv ...string) *exec.Cmd {
	args := []string{"exec"}
	if stdin != nil {
		args = append(args, "--interactive")
	}
	cmd := h.engine.Docker(ctx, append(append(args, h.id), argv...)...)
	cmd.Stdin = stdin
	return cmd
}

// Attach is a command for a person at a terminal, or in a script that feeds it.
func (h *Host) Attach(ctx context.Context, terminal bool, argv ...string) *exec.Cmd {
	// As a person on the host would have it, kubectl and our tool at hand.
	args := []string{"exec", "--interactive", "--env", "KUBECONFIG=/etc/kubernetes/admin.conf",
		"--env", "PATH=" + ToolDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if terminal {
		args = append(args, "--tty")
	}
	cmd := h.engine.Docker(ctx, append(append(args, h.id), argv...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// Write makes a file on the host, its folder as well, with that mode.
func (h *Host) Write(ctx context.Context, file string, mode os.FileMode, content io.Reader) error {
	_, _, err := h.Exec(ctx, content, "sh", "-ec", `mkdir -p "$(dirname "$1")"; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"`,
		"sh", file, fmt.Sprintf("%o", mode.Perm()))
	return err
}

// CopyTo copies a file of this machine to the host, with its mode.
func (h *Host) CopyTo(ctx context.Context, local, file string) error {
	f, err := os.Open(local)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return h.Write(ctx, file, info.Mode(), f)
}

// ReadFile returns a file of the host.
func (h *Host) ReadFile(ctx context.Context, file string) ([]byte, error) {
	out, _, err := h.Exec(ctx, nil, "cat", file)
	return []byte(out), err
}

// Kill ends the host as a power cut does: no process on it is asked.
func (h *Host) Kill(ctx context.Context) error {
	_, err := h.engine.docker(ctx, nil, "kill", h.id)
	return err
}

// Stop shuts the host down in order.
func (h *Host) Stop(ctx context.Context) error {
	_, err := h.engine.docker(ctx, nil, "stop", "--time", "60", h.id)
	return err
}

// Start boots a host that was killed or stopped, with its disk and address, and waits until it is up.
func (h *Host) Start(ctx context.Context) error {
	if _, err := h.engine.docker(ctx, nil, "start", h.id); err != nil {
		return err
	}
	return h.waitBooted(ctx)
}

// Restart is a power cut and a boot.
func (h *Host) Restart(ctx context.Context) error {
	if err := h.Kill(ctx); err != nil {
		return err
	}
	return h.Start(ctx)
}

// CutOff has the host drop every packet that comes or goes: it lives, and nobody reaches it. [Host.Exec] does.
func (h *Host) CutOff(ctx context.Context) error { return h.drop(ctx, "-I") }

// Reconnect ends CutOff. So does Restart.
func (h *Host) Reconnect(ctx context.Context) error { return h.drop(ctx, "-D") }

func (h *Host) drop(ctx context.Context, how string) error {
	// Before any rule of kube-proxy's, and before connections that are known.
	_, _, err := h.Exec(ctx, nil, "sh", "-ec", `iptables -t raw $0 PREROUTING -i eth0 -j DROP; iptables -t raw $0 OUTPUT -o eth0 -j DROP`, how)
	return err
}

// Remove deletes the host and its disk.
func (h *Host) Remove(ctx context.Context) error {
	if _, err := h.engine.docker(ctx, nil, "rm", "--force", h.id); err != nil {
		return err
	}
	_, err := h.engine.docker(ctx, nil, "volume", "rm", "--force", h.id)
	return err
}

// Status of a host, for people.
type Status struct{ Lab, Host, IP, State string }

// Status of all hosts of all labs, sorted by lab and name. One list from the engine: to ask about each host in turn
// fails when another process removes one in between.
func (e *Engine) Status(ctx context.Context) ([]Status, error) {
	format := fmt.Sprintf(`{{.Label %q}}\t{{.Label %q}}\t{{.Label %q}}\t{{.State}}`, label, hostLabel, ipLabel)
	out, err := e.docker(ctx, nil, "ps", "--all", "--filter", "label="+label, "--format", format)
	if err != nil {
		return nil, err
	}
	var all []Status
	for line := range strings.Lines(out) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 4 {
			all = append(all, Status{Lab: f[0], Host: f[1], IP: f[2], State: f[3]})
		}
	}
	sortStatus(all)
	return all, nil
}

// Container returns a machine that runs in the engine and that no lab made: one of kind's, say.
func (e *Engine) Container(ctx context.Context, name string) (*Host, error) {
	ip, err := e.docker(ctx, nil, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
	if ip = strings.TrimSpace(ip); err == nil && ip == "" {
		err = fmt.Errorf("container %s has no address", name)
	}
	return &Host{Name: name, IP: ip, engine: e, id: name}, err
}

// Find returns a host that an earlier process made.
func (e *Engine) Find(ctx context.Context, lab, host string) (*Host, error) {
	all, err := e.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Lab == lab && s.Host == host {
			return &Host{Name: host, IP: s.IP, engine: e, id: e.containerName(lab, host)}, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no host %s", lab, host)
}

func sortStatus(all []Status) {
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(strings.Compare(a.Lab, b.Lab), strings.Compare(a.Host, b.Host))
	})
}
