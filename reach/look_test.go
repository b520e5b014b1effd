package reach

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/host"
)

// testbed is three hosts, network namespaces with a bridge between them, each with a /run of its own
// in which no program can be run.
type testbed struct {
	t     *testing.T
	hosts []Host
}

func newTestbed(t *testing.T) *testbed {
	if testing.Short() {
		t.Skip("skipped: it is no short test")
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: network namespaces need root")
	}
	if _, err := program("amd64"); err != nil {
		t.Skip("skipped: ", err)
	}
	n := &testbed{t: t}
	id := fmt.Sprintf("kwr%d", os.Getpid())
	bridge := id + "-br"
	n.do("ip", "netns", "add", bridge)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", bridge).Run() })
	n.do("ip", "-n", bridge, "link", "add", "br0", "type", "bridge")
	n.do("ip", "-n", bridge, "link", "set", "br0", "up")
	for i, name := range []string{"cp-1", "w-1", "w-2"} {
		ns, port, address := id+"-"+name, fmt.Sprintf("p%d", i), fmt.Sprintf("192.0.2.%d", 11+i)
		n.do("ip", "netns", "add", ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		n.do("ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		n.do("ip", "-n", bridge, "link", "set", port, "master", "br0", "up")
		n.do("ip", "-n", ns, "addr", "add", address+"/24", "dev", "eth0")
		n.do("ip", "-n", ns, "addr", "add", fmt.Sprintf("2001:db8::%d/64", 11+i), "dev", "eth0", "nodad")
		n.do("ip", "-n", ns, "link", "set", "eth0", "up")
		n.do("ip", "-n", ns, "link", "set", "lo", "up")
		n.hosts = append(n.hosts, Host{Name: name, Address: netip.MustParseAddr(address), Machine: "amd64", Start: func(ctx context.Context, program string) (*host.Pipe, error) {
			return start(ctx, ns, program)
		}})
	}
	return n
}

func start(ctx context.Context, ns, program string) (*host.Pipe, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "unshare", "--mount", "sh", "-c", "mount -t tmpfs -o noexec tmpfs /run && mount -t tmpfs tmpfs /dev/shm && "+"{ "+program+"\n}")
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, outEnd := io.Pipe()
	errs, errsEnd := io.Pipe()
	cmd.Stdout, cmd.Stderr = outEnd, errsEnd
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		cmd.Wait()
		outEnd.Close()
		errsEnd.Close()
	}()
	return &host.Pipe{In: in, Out: out, Err: errs, Close: func() error { cancel(); return nil }}, nil
}

func (n *testbed) do(argv ...string) {
	n.t.Helper()
	if b, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, b)
	}
}

// in runs a command on a host.
func (n *testbed) in(name string, argv ...string) {
	n.t.Helper()
	n.do(append([]string{"ip", "netns", "exec", fmt.Sprintf("kwr%d-%s", os.Getpid(), name)}, argv...)...)
}

// look asks for the same ports between all.
func (n *testbed) look() Result {
	var asks []Ask
	for a := range n.hosts {
		for b := range n.hosts {
			if a != b {
				asks = append(asks, Ask{From: a, To: b, Ports: []Port{{"tcp", 6443, "API server", false}, {"tcp", 10250, "kubelet", false}, {"udp", 8472, "flannel vxlan", false}}})
			}
		}
	}
	return Look(n.t.Context(), n.hosts, asks)
}

// lost are the ways, and sizes, that do not get through.
func lost(r Result) (all []string) {
	for _, w := range r.Ways {
		if !w.Reached {
			all = append(all, fmt.Sprintf("%s>%s %s %s", w.From, w.To, w.Port, w.Why))
		}
	}
	for _, p := range r.Packets {
		if p.Passed < p.Wanted {
			all = append(all, fmt.Sprintf("%s>%s %d of %d", p.From, p.To, p.Passed, p.Wanted))
		}
	}
	for name, why := range r.Unseen {
		all = append(all, name+" unseen: "+why)
	}
	slices.Sort(all)
	return all
}

func TestLookFindsWhatIsLostOnTheWay(t *testing.T) {
	n := newTestbed(t)
	chain := []string{"nft", "add table inet t; add chain inet t input { type filter hook input priority 0; }; add rule inet t input"}
	for _, tt := range []struct {
		name  string
		where string
		with  []string
		mend  []string
		want  []string
	}{
		{name: "nothing"},
		{"TCP, dropped", "w-1", []string{chain[0], chain[1] + " tcp dport 6443 drop"}, nil, []string{"cp-1>w-1 6443/tcp no answer", "w-2>w-1 6443/tcp no answer"}},
		{"TCP, rejected", "w-1", []string{chain[0], chain[1] + " ip saddr 192.0.2.11 tcp dport 6443 reject with tcp reset"}, nil, []string{"cp-1>w-1 6443/tcp connection refused"}},
		{"UDP, one way", "w-1", []string{chain[0], chain[1] + " ct state established accept; add rule inet t input udp dport 8472 drop"}, nil, []string{"cp-1>w-1 8472/udp nothing arrived", "w-2>w-1 8472/udp nothing arrived"}},
		{"large packets, dropped", "w-2", []string{chain[0], chain[1] + " meta length > 1400 drop"}, nil, []string{"cp-1>w-2 1400 of 1500", "w-1>w-2 1400 of 1500"}},
		{"a smaller interface", "w-2", []string{"ip", "link", "set", "eth0", "mtu", "1300"}, []string{"ip", "link", "set", "eth0", "mtu", "1500"}, []string{"cp-1>w-2 1300 of 1500", "w-1>w-2 1300 of 1500"}},
		{"somebody else listens", "w-2", []string{"sh", "-c", "ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0; ip link set flannel.1 up"}, []string{"ip", "link", "del", "flannel.1"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.with != nil {
				n.in(tt.where, tt.with...)
			}
			r := n.look()
			if len(r.Ways) < 16 || len(r.Packets) == 0 {
				t.Errorf("%d ways and %d packets", len(r.Ways), len(r.Packets))
			}
			if got := lost(r); !slices.Equal(got, tt.want) {
				t.Errorf("lost are %q", got)
			}
			if len(tt.mend) > 0 {
				n.in(tt.where, tt.mend...)
			} else if tt.with != nil {
				n.in(tt.where, "nft", "delete table inet t")
			}
		})
	}
}

func TestLookOverIPv6(t *testing.T) {
	n := newTestbed(t)
	for i := range n.hosts {
		n.hosts[i].Address = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i))
	}
	r := n.look()
	if got := lost(r); got != nil || len(r.Ways) != 18 || len(r.Packets) != 6 {
		t.Errorf("%d ways, %d packets, lost are %q", len(r.Ways), len(r.Packets), got)
	}
	n.in("w-1", "nft", "add table inet t; add chain inet t input { type filter hook input priority 0; }; add rule inet t input meta l4proto udp meta length > 1400 drop")
	if got, want := lost(n.look()), []string{"cp-1>w-1 1400 of 1500", "w-2>w-1 1400 of 1500"}; !slices.Equal(got, want) {
		t.Errorf("lost are %q", got)
	}
}

// Who dies while it is sent the program, or whose host lets nothing run, leaves nothing.
func TestStartLeavesNothing(t *testing.T) {
	n := newTestbed(t)
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		program string
		cut     int // bytes that do not come
		want    string
	}{
		"cut short":      {startProgram, 1000, "gzip: stdin: unexpected end of file"},
		"nowhere to run": {strings.ReplaceAll(startProgram, `"$dir/reach" </dev/null`, "false"), 0, "no program can be run in /run"},
	} {
		packed, err := program("amd64")
		if err != nil {
			t.Fatal(err)
		}
		// The folders are looked at when it has ended, by what started it.
		script := fmt.Sprintf("( length=%d task=reach folders='%s'\n%s\n)\n ls -d /run/kube* /dev/shm/* /tmp/kubewright-reach.* /var/tmp/kubewright-reach.* > %s/left 2>/dev/null", len(packed), folders, tt.program, dir)
		pipe, err := n.hosts[0].Start(t.Context(), script)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			pipe.In.Write(packed[:len(packed)-tt.cut])
			pipe.In.Close()
		}()
		go io.Copy(io.Discard, pipe.Out)
		said, err := io.ReadAll(pipe.Err)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(said), tt.want) {
			t.Errorf("%s: it said %s", name, said)
		}
		if left, err := os.ReadFile(dir + "/left"); err != nil || len(left) > 0 {
			t.Errorf("%s: it left %s: %v", name, left, err)
		}
	}
}
