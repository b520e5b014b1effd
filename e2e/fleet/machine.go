package fleet

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
)

// machine is one simulated host.
type machine struct {
	name    string
	number  int
	runtime *runtime

	mu sync.Mutex
	files
	units  map[string]map[string]bool // by unit: enabled, active
	leased string
}

const socketPath = "/run/containerd/containerd.sock"

// debian is a machine as it comes, as far as anybody asks.
func debian() map[string]*file {
	f := files{own: map[string]*file{}}
	for p, content := range map[string]string{
		"/proc/sys/kernel/osrelease":        "6.12.0-1-amd64\n",
		"/etc/os-release":                   "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
		"/etc/hosts":                        "127.0.0.1 localhost\n",
		"/proc/meminfo":                     "MemTotal:        8015504 kB\nMemFree: 1 kB\n",
		"/proc/swaps":                       "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
		"/proc/self/status":                 "Name:\tcat\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
		"/proc/net/tcp":                     "",
		"/proc/net/tcp6":                    "",
		"/proc/mounts":                      "",
		"/sys/fs/cgroup/cgroup.controllers": "cpu memory",
		"/usr/share/ca-certificates/x.crt":  "",
		"/run/systemd/resolve/resolv.conf":  "",
	} {
		f.put(p, file{mode: 0o644, content: []byte(content)})
	}
	for name, value := range map[string]string{
		"fs.inotify.max_user_instances": "128", "fs.inotify.max_user_watches": "1048576", "net.ipv4.ip_forward": "0",
		"net.ipv6.conf.all.forwarding": "0", "vm.overcommit_memory": "0", "vm.panic_on_oom": "0", "kernel.panic": "0",
		"kernel.panic_on_oops": "0", "kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
		"net.ipv4.conf.all.route_localnet": "0", "net.ipv4.conf.all.arp_ignore": "0", "net.ipv4.conf.all.arp_announce": "0",
	} {
		f.put(sysctlPath(name), file{mode: 0o644, content: []byte(value + "\n")})
	}
	for _, c := range strings.Fields("mount umount losetup cp ip nproc systemctl modprobe iptables ethtool conntrack socat nft tar flock sha256sum") {
		f.put("/usr/bin/"+c, file{mode: 0o755})
	}
	for _, dir := range strings.Fields("/etc /usr/local/bin /usr/local/sbin /opt /var/lib /run/systemd/system /sys/class/net/lo /sys/class/net/eth0 /etc/systemd/system /etc/cni /tmp") {
		f.put(dir, file{mode: fs.ModeDir | 0o755})
	}
	return f.own
}

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

func newMachine(number int, base map[string]*file) *machine {
	m := &machine{name: fmt.Sprintf("h-%d", number), number: number, units: map[string]map[string]bool{}}
	m.files = files{base: base, own: map[string]*file{}, last: uint64(len(base))}
	m.runtime = newRuntime()
	for p, content := range map[string]string{
		"/proc/sys/kernel/hostname":      m.name,
		"/etc/machine-id":                host.Digest([]byte(m.name))[7:39],
		"/sys/class/dmi/id/product_uuid": host.Digest([]byte("uuid of " + m.name))[7:43],
	} {
		m.put(p, file{mode: 0o444, content: []byte(content + "\n")})
	}
	return m
}

// address is in 10.128.0.0/12, away from the pods' and the services'.
func (m *machine) address() string {
	return fmt.Sprintf("10.128.%d.%d", m.number/256, m.number%256)
}

// answers to commands that read, by argv.
var answers = map[string]string{
	"uname -m": "x86_64\n", "nproc": "2\n", "ip -6 -j route": "[]\n", "nft list ruleset": "",
	"ip -4 -j route": `[{"dst":"default","gateway":"172.31.255.254","dev":"eth0"}]` + "\n",
	"df --output=avail --block-size=1 /var/lib": "       Avail\n100000000000\n",
}

// command does what a command would do. The machine is locked.
func (m *machine) command(argv []string, stdin []byte, out, errs io.Writer) int {
	line := strings.Join(argv, " ")
	if answer, ok := answers[line]; ok {
		io.WriteString(out, answer)
		return 0
	}
	last := argv[len(argv)-1]
	switch argv[0] {
	case "ip":
		if line == "ip -j addr" {
			fmt.Fprintf(out, `[{"ifname":"eth0","link_type":"ether","address":"02:00:00:%02x:%02x:%02x","addr_info":[{"local":"%s","prefixlen":12,"scope":"global"}]}]`,
				m.number>>16, m.number>>8&255, m.number&255, m.address())
			return 0
		}
	case "date":
		now := time.Now()
		fmt.Fprintf(out, "%d.%09d\n", now.Unix(), now.Nanosecond())
		return 0
	case "test":
		_, ok := m.get(last)
		return map[bool]int{true: 0, false: 1}[ok]
	case "find":
		return m.find(argv, out)
	case "readlink":
		fmt.Fprintln(out, last)
		return 0
	case "systemctl":
		return m.systemctl(argv[1:], last, out)
	case "modprobe":
		m.put("/sys/module/"+last, file{mode: fs.ModeDir | 0o755})
		if last == "br_netfilter" {
			for _, name := range []string{"iptables", "ip6tables"} {
				m.put("/proc/sys/net/bridge/bridge-nf-call-"+name, file{mode: 0o644, content: []byte("1\n")})
			}
		}
		return 0
	case "sysctl":
		for _, word := range argv[slices.Index(argv, "-w")+1:] {
			name, value, _ := strings.Cut(word, "=")
			m.put(sysctlPath(name), file{mode: 0o644, content: []byte(value + "\n")})
		}
		return 0
	case "sync", "journalctl":
		return 0
	case "cp", "mv":
		from := argv[len(argv)-2]
		f, ok := m.get(from)
		if !ok {
			return 1
		}
		m.put(last, *f)
		if argv[0] == "mv" {
			m.remove(from)
		}
		return 0
	}
	fmt.Fprintf(errs, "env: '%s': the simulated host does not know: %s\n", argv[0], line)
	return 127
}

func (m *machine) find(argv []string, out io.Writer) int {
	if len(argv) < 3 || argv[1] != "-H" {
		return 0 // no cgroups
	}
	for _, p := range m.below(argv[2]) {
		fmt.Fprintf(out, "%s\x00", p)
	}
	return 0
}

func (m *machine) systemctl(argv []string, unit string, out io.Writer) int {
	unit = strings.TrimSuffix(unit, ".service")
	state := m.units[unit]
	if state == nil {
		state = map[string]bool{}
		m.units[unit] = state
	}
	word := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	switch verb := argv[0]; verb {
	case "is-enabled", "is-active":
		if !state[strings.TrimPrefix(verb, "is-")] {
			return 3
		}
	case "enable":
		state["enabled"] = true
	case "start", "restart":
		state["active"] = true
		if unit == "containerd" {
			m.put(socketPath, file{mode: fs.ModeSocket | 0o660})
		}
	case "show":
		all := map[string]string{"NeedDaemonReload": "no", "ActiveState": word(state["active"], "active", "inactive"), "UnitFileState": word(state["enabled"], "enabled", "disabled")}
		for _, name := range regexp.MustCompile(`[A-Z]\w+`).FindAllString(strings.Join(argv[1:len(argv)-1], " "), -1) {
			fmt.Fprintf(out, "%s=%s\n", name, all[name])
		}
	}
	return 0
}

// listens tells whether somebody listens at a socket.
func (m *machine) listens(p string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.get(path.Clean(p)); !ok {
		return "absent"
	}
	return "listens"
}
