package phases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// fakeHost is a machine in memory: files, units of systemd, and answers to commands. What
// it is not told about, it refuses.
type fakeHost struct {
	t        *testing.T
	mu       sync.Mutex
	files    map[string]host.File         // of folders, those alone that somebody made
	units    map[string]string            // "enabled active"
	answers  map[string]string            // standard output, by argv
	dial     map[string]dialer            // by "network address"
	after    map[string]func(h *fakeHost) // what follows from a command, by argv
	stdin    map[string]string            // what a command was given, by argv
	readOnly map[string]bool              // folders
	done     []string                     // what changed the host, in order
}

type dialer func(ctx context.Context) (net.Conn, error)

// accepts is a listener that says nothing.
func accepts(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	there.Close()
	return here, nil
}

// to leads to a real listener on this machine's loopback.
func to(addr net.Addr) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

func text(s string) host.File { return host.File{Content: host.Text(s)} }

// newFakeHost is a Debian machine as it comes: nothing of Kubernetes on it.
func newFakeHost(t *testing.T) *fakeHost {
	h := &fakeHost{t: t, files: map[string]host.File{}, units: map[string]string{}, dial: map[string]dialer{}, after: map[string]func(*fakeHost){}, stdin: map[string]string{}}
	for path, content := range map[string]string{
		"/proc/sys/kernel/hostname":                     "cp-1\n",
		"/proc/sys/kernel/osrelease":                    "6.12.0-1-amd64\n",
		"/etc/os-release":                               "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
		"/proc/meminfo":                                 "MemTotal:        4015504 kB\nMemFree: 1 kB\n",
		"/proc/swaps":                                   "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
		"/proc/self/status":                             "Name:\tcat\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
		"/proc/net/tcp":                                 "",
		"/proc/net/tcp6":                                "",
		"/proc/mounts":                                  "",
		"/proc/sys/fs/inotify/max_user_instances":       "128\n",
		"/proc/sys/fs/inotify/max_user_watches":         "1048576\n",
		"/proc/sys/net/ipv4/ip_forward":                 "0\n",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "1\n",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "1\n",
		"/sys/fs/cgroup/cgroup.controllers":             "cpu memory",
		"/usr/share/ca-certificates/x.crt":              "",
		"/run/systemd/system/x":                         "",
		"/sys/module/vxlan/x":                           "",
	} {
		h.files[path] = text(content)
	}
	for _, c := range []string{"mount", "umount", "losetup", "cp", "ip", "nproc", "systemctl", "modprobe", "iptables", "ethtool"} {
		h.files["/usr/bin/"+c] = text("")
	}
	h.answers = map[string]string{
		"uname -m": "x86_64\n", "nproc": "2\n",
		"ip -j addr": `[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8,"scope":"host"}]},` +
			`{"ifname":"eth0","mtu":1500,"addr_info":[{"local":"192.0.2.11","prefixlen":24,"scope":"global"}]}]`,
		"ip -4 -j route":   `[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"},{"dst":"192.0.2.0/24","dev":"eth0","prefsrc":"192.0.2.11"}]`,
		"ip -6 -j route":   `[]`,
		"nft list ruleset": "",
	}
	standIn{name: "containerd", version: "v2.3.7", driver: "systemd"}.listen(h, containerdAt) // once it is started
	h.dial["tcp 127.0.0.1:2379"] = accepts
	return h
}

func (h *fakeHost) Run(_ context.Context, c host.Command) (host.Output, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	argv := strings.Join(c.Argv, " ")
	if c.Stdin != nil {
		b, err := io.ReadAll(c.Stdin)
		if err != nil {
			return host.Output{}, err
		}
		h.stdin[argv] = string(b)
	}
	if !c.Reads {
		h.run(c.Argv)
		return host.Output{}, nil
	}
	if out, ok := h.answers[argv]; ok {
		return host.Output{Stdout: []byte(out)}, nil
	}
	switch {
	case c.Argv[0] == "find" && c.Argv[1] == "-H":
		var below []string
		for p := range h.files {
			if rest, ok := strings.CutPrefix(p, c.Argv[2]+"/"); ok {
				below = append(below, rest)
			}
		}
		slices.Sort(below)
		return host.Output{Stdout: []byte(strings.Join(below, "\x00"))}, nil
	case c.Argv[0] == "find":
		return host.Output{}, nil // no cgroups
	case c.Argv[0] == "test":
		if h.readOnly[c.Argv[2]] {
			break
		}
		return host.Output{}, nil
	case c.Argv[0] == "readlink":
		return host.Output{Stdout: []byte(c.Argv[2] + "\n")}, nil
	case c.Argv[0] == "systemctl" && c.Argv[1] == "show":
		state, file := "inactive", "disabled"
		if strings.Contains(h.units[c.Argv[4]], "active") {
			state = "active"
		}
		if strings.Contains(h.units[c.Argv[4]], "enabled") {
			file = "enabled"
		}
		return host.Output{Stdout: []byte("ActiveState=" + state + "\nUnitFileState=" + file + "\n")}, nil
	}
	if c.Argv[0] == "systemctl" {
		state := h.units[c.Argv[len(c.Argv)-1]]
		if strings.Contains(state, strings.TrimPrefix(c.Argv[1], "is-")) {
			return host.Output{}, nil
		}
	}
	return host.Output{}, &host.ExitError{Argv: c.Argv, Code: 1}
}

// run does what a command would do.
func (h *fakeHost) run(argv []string) {
	line := strings.Join(argv, " ")
	h.done = append(h.done, "$ "+line)
	last := argv[len(argv)-1]
	switch argv[0] {
	case "systemctl":
		switch argv[1] {
		case "enable":
			h.units[last] += " enabled"
		case "start", "restart":
			h.units[last] += " active"
		case "disable":
			delete(h.units, last)
		}
	case "sysctl":
		for _, word := range argv[slices.Index(argv, "-w")+1:] {
			name, value, _ := strings.Cut(word, "=")
			h.files[sysctlPath(name)] = text(value + "\n")
		}
	case "modprobe":
		h.files["/sys/module/"+last+"/x"] = text("")
	case "umount":
		b, _ := bytesOf(h.files["/proc/mounts"].Content)
		var rest string
		for mount := range strings.Lines(string(b)) {
			if !strings.Contains(mount, " "+last+" ") {
				rest += mount
			}
		}
		h.files["/proc/mounts"] = text(rest)
	case "cp":
		h.files[last] = h.files[argv[len(argv)-2]]
	case "mv":
		from := argv[len(argv)-2]
		if f, ok := h.files[from]; ok {
			h.files[last] = f
			delete(h.files, from)
		}
		for p, f := range maps.Clone(h.files) {
			if rest, ok := strings.CutPrefix(p, from+"/"); ok {
				h.files[last+"/"+rest] = f
				delete(h.files, p)
			}
		}
	case "rm", "rmdir":
		for _, dir := range argv[slices.Index(argv, "--")+1:] {
			maps.DeleteFunc(h.files, func(p string, _ host.File) bool { return p == dir || strings.HasPrefix(p, dir+"/") })
		}
	}
	if f := h.after[line]; f != nil {
		f(h)
	}
}

func (h *fakeHost) ReadFile(_ context.Context, path string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, ok := h.files[path]
	if ok && f.Link != "" {
		f, ok = h.files[f.Link]
	}
	if !ok || f.Content == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return bytesOf(f.Content)
}

func bytesOf(s host.Source) ([]byte, error) {
	r, err := s.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (h *fakeHost) Stat(_ context.Context, paths ...string) (map[string]host.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	infos := map[string]host.Info{}
	for _, p := range paths {
		if i, ok := h.stat(p); ok {
			infos[p] = i
		}
	}
	return infos, nil
}

func (h *fakeHost) stat(p string) (host.Info, bool) {
	if f, ok := h.files[p]; ok {
		switch {
		case f.Link != "":
			return host.Info{Mode: fs.ModeSymlink | 0o777, Link: f.Link, Owner: "0:0"}, true
		case f.Dir:
			return host.Info{Mode: fs.ModeDir | f.Perm(), Owner: "0:0"}, true
		}
		return host.Info{Mode: f.Perm(), Size: f.Content.Size(), Owner: "0:0"}, true
	}
	for other := range h.files {
		if strings.HasPrefix(other, p+"/") {
			return host.Info{Mode: fs.ModeDir | 0o755, Owner: "0:0"}, true
		}
	}
	return host.Info{}, false
}

func (h *fakeHost) List(_ context.Context, dir string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := map[string]bool{}
	for p := range h.files {
		if rest, ok := strings.CutPrefix(p, dir+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	if i, ok := h.stat(dir); !ok || !i.Mode.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// WriteFiles lets a Recorder compare, and then does it.
func (h *fakeHost) WriteFiles(ctx context.Context, files ...host.File) ([]host.Change, error) {
	r := &host.Recorder{Host: h}
	changes, err := r.WriteFiles(ctx, files...)
	if err := h.apply(r.Steps()); err != nil {
		return nil, err
	}
	return changes, err
}

// apply does what a Recorder has listed.
func (h *fakeHost) apply(steps []host.Step) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range steps {
		switch {
		case s.Note != "":
			continue
		case s.File == nil:
			h.run(s.Argv)
			continue
		case s.File.Absent:
			delete(h.files, s.File.Path)
		default:
			f := *s.File
			if f.Content != nil {
				b, err := bytesOf(f.Content)
				if err != nil {
					return err
				}
				f.Content = host.Bytes(b)
			}
			h.files[f.Path] = f
		}
		h.done = append(h.done, s.Action+" "+s.File.Path)
	}
	return nil
}

func (h *fakeHost) Digest(ctx context.Context, paths ...string) (map[string]string, error) {
	digests := map[string]string{}
	for _, p := range paths {
		b, err := h.ReadFile(ctx, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		digests[p] = host.Digest(b)
	}
	return digests, nil
}

func (h *fakeHost) Append(_ context.Context, path string, b []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var have []byte
	if f, ok := h.files[path]; ok {
		have, _ = bytesOf(f.Content)
	}
	h.files[path] = host.File{Mode: 0o600, Content: host.Bytes(append(have, b...))}
	return nil
}

func (h *fakeHost) Lock(ctx context.Context, _ string) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

func (h *fakeHost) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	h.mu.Lock()
	d := h.dial[network+" "+addr]
	h.mu.Unlock()
	if d == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%s: %w", addr, syscall.ECONNREFUSED)}
	}
	return d(ctx)
}

// target is h as phases see it.
func (h *fakeHost) target(c *config.Cluster, role config.Role) *Target {
	h.t.Helper()
	facts, err := Facts(h.t.Context(), h)
	if err != nil {
		h.t.Fatal(err)
	}
	return &Target{Cluster: c, Facts: facts, Host: h, Node: c.Node("", role, facts)}
}

func cluster() *config.Cluster {
	c := &config.Cluster{}
	c.Default(config.Versions{})
	return c
}

// events collects what a target reports, in order.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) report(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// last is the last state of each phase.
func (e *events) last() map[string]State {
	e.mu.Lock()
	defer e.mu.Unlock()
	states := map[string]State{}
	for _, ev := range e.all {
		if ev.State != Progress && ev.State != Notice {
			states[ev.Phase] = ev.State
		}
	}
	return states
}

func (e *events) messages() (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.State == Notice {
			out = append(out, ev.Message)
		}
	}
	return out
}
