package verify

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pathScript gets peers, NAME=ADDRESS, and writes a line for each thing that it sees:
//
//	addr ADDRESS/BITS                     of this network namespace
//	seen NAME CODE ANSWER                 of the peer: the source address as it saw it, its name
//	mtu NAME DEVICE BYTES STATE           a datagram as large as the device takes: whole, fragmented, lost, silent, unknown
//	ping NAME MILLISECONDS
//	rate NAME BYTES CENTISECONDS          of a transfer from the first peer, where $1 is rate
//
// "May not be fragmented": Linux sets that bit on every datagram up to the path's MTU while
// ip_no_pmtu_disc is 0 (busybox's ping and traceroute have no say in it), and counts what it
// fragments, here or because a router on the path asked for it: then the datagram was not whole.
const pathScript = `
frags() { awk '/^Ip: [0-9]/ {print $20}' /proc/net/snmp; }
reply() { # ADDRESS BYTES: an ICMP answer of the peer itself to a UDP datagram for a closed port
  for try in 1 2; do traceroute -n -f 64 -m 64 -q 1 -w 1 $1 $2 2>&1 | grep -q "^64  $1  [0-9.]* ms$" && return 0; done; return 1; }
mtu() {
  state=unknown; case $2 in *:*) echo "mtu $1 - 0 unknown"; return;; esac
  route=$(ip route get $2 | tr '\n' ' ')
  dev=$(echo "$route" | sed 's/.* dev \([^ ]*\).*/\1/'); size=$(cat /sys/class/net/$dev/mtu)
  case $route in *expires*) ;; *" mtu "*) size=$(echo "$route" | sed 's/.* mtu \([0-9]*\).*/\1/');; esac
  before=$(frags)
  if reply $2 $size; then state=whole; elif reply $2 60; then state=lost; else state=silent; fi
  [ $(frags) = $before ] || state=fragmented
  [ $(cat /proc/sys/net/ipv4/ip_no_pmtu_disc) = 0 ] || state=unknown
  echo "mtu $1 $dev $size $state"; }
url() { case $1 in *:*) echo "http://[$1]:8080$2";; *) echo "http://$1:8080$2";; esac; }
now() { read up idle </proc/uptime; echo ${up%.*}${up#*.}; }

rate=$1; shift
ip -o addr | awk '$3 ~ /^inet/ {print "addr", $4}'
dir=/tmp/path; mkdir -p $dir
for p; do ( out=$(timeout 3 wget -qO- $(url ${p#*=} /cgi-bin/who) 2>&1); echo "$? "$out >$dir/${p%%=*} ) & done; wait
for p; do
  name=${p%%=*}; ip=${p#*=}; read code answer <$dir/$name
  echo "seen $name $code $answer"
  [ $code = 0 ] || continue
  mtu $name $ip
  echo "ping $name $(ping -c 1 -W 1 $ip | sed -n 's/.* time=\([0-9.]*\) ms/\1/p')"
  [ $rate = rate ] && [ $state != lost ] || continue
  start=$(now); timeout 8 wget -qO /dev/null $(url $ip /zeros) && echo "rate $name 16777216 $(($(now) - start))"
  rate=done
done
`

// path is what a sender saw of one receiver.
type path struct {
	code, answer string // as complaint takes them
	source       string // of the sender, as the receiver saw it
	by           string // the pod that answered
	device       string
	bytes        int
	state        string
	ping         float64 // ms; 0: not answered
	rate         float64 // MB/s; 0: not measured
}

// sender is one end of paths.
type sender struct {
	pod   *corev1.Pod
	node  node
	addrs []string         // of its network namespace
	paths map[string]*path // by the receiver's name
}

// podNetwork sends from every node's pod and from every node to the pods of all nodes.
func podNetwork(ctx context.Context, c *Cluster) (string, error) {
	var mu sync.Mutex
	var receivers []*corev1.Pod
	err := c.onEveryNode(func(p *probe) error {
		if pod, err := p.pod(); err == nil { // else the sender, which is the same pod, says it
			mu.Lock()
			defer mu.Unlock()
			receivers = append(receivers, pod)
		}
		return nil
	})
	slices.SortFunc(receivers, func(a, b *corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	var sum summary
	errPaths := c.onEveryNode(func(p *probe) error {
		return onEach([]func() (*corev1.Pod, error){p.pod, p.host}, func(get func() (*corev1.Pod, error)) error {
			pod, err := get()
			if err != nil {
				return err
			}
			return c.paths(ctx, sender{pod: pod, node: p.node}, receivers, &sum)
		})
	})
	if err := lines(err, errPaths); err != nil {
		return "", err
	}
	return sum.String(), nil
}

// paths asks one sender about all receivers but itself, until all have answered.
func (c *Cluster) paths(ctx context.Context, s sender, receivers []*corev1.Pod, sum *summary) error {
	host := s.pod.Spec.HostNetwork
	first := "rate"
	if host {
		first = "-"
	}
	// The transfers go round: each node's pod gets from the next node's.
	i := slices.IndexFunc(receivers, func(r *corev1.Pod) bool { return r.Spec.NodeName == s.node.name }) + 1
	others := slices.DeleteFunc(slices.Concat(receivers[i:], receivers[:i]), func(r *corev1.Pod) bool { return r.UID == s.pod.UID })
	args := []string{first}
	for _, r := range others {
		args = append(args, r.Name+"="+r.Status.PodIP)
	}
	err := until(ctx, 20*time.Second, func(ctx context.Context) error {
		out, err := c.sh(ctx, s.pod, pathScript, args...)
		if err != nil {
			return err
		}
		s.addrs, s.paths = parsePaths(out)
		// Servers may be a moment late; nothing else gets better by asking again.
		for _, r := range others {
			if p := s.paths[r.Name]; p == nil || p.by != r.Name {
				return fmt.Errorf("%s did not answer", r.Name)
			}
		}
		return nil
	})
	if s.paths == nil {
		return err
	}
	var errs []error
	for _, r := range others {
		errs = append(errs, s.judge(r))
	}
	sum.add(s)
	return lines(errs...)
}

func parsePaths(out string) (addrs []string, paths map[string]*path) {
	paths = map[string]*path{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if f[0] == "addr" {
			ip, _, _ := strings.Cut(f[1], "/")
			addrs = append(addrs, ip)
			continue
		}
		p := paths[f[1]]
		if p == nil {
			p = &path{}
			paths[f[1]] = p
		}
		switch {
		case f[0] == "seen" && len(f) > 2:
			p.code, p.answer = f[2], strings.Join(f[2:], " ")
			if p.code == "0" && len(f) == 5 {
				p.source, p.by = plainAddress(f[3]), f[4]
			}
		case f[0] == "mtu" && len(f) == 5:
			p.device, p.state = f[2], f[4]
			p.bytes, _ = strconv.Atoi(f[3])
		case f[0] == "ping" && len(f) == 3:
			p.ping, _ = strconv.ParseFloat(f[2], 64)
		case f[0] == "rate" && len(f) == 4:
			bytes, _ := strconv.ParseFloat(f[2], 64)
			centi, _ := strconv.ParseFloat(f[3], 64)
			p.rate = bytes / 1e6 / (max(centi, 1) / 100)
		}
	}
	return addrs, paths
}

// plainAddress takes the brackets and the IPv6 form off an address as httpd writes it.
func plainAddress(s string) string {
	return strings.TrimPrefix(strings.Trim(s, "[]"), "::ffff:")
}

// judge says what is wrong with the way to a receiver.
func (s sender) judge(r *corev1.Pod) error {
	from, allowed := "pod on "+s.node.name, []string{s.pod.Status.PodIP}
	if s.pod.Spec.HostNetwork {
		from, allowed = "node "+s.node.name, s.addrs
	}
	way := fmt.Sprintf("%s -> pod on %s (%s)", from, r.Spec.NodeName, r.Status.PodIP)
	p := s.paths[r.Name]
	switch {
	case p == nil:
		return fmt.Errorf("%s: nothing was seen", way)
	case p.code != "0" || p.by != r.Name:
		return fmt.Errorf("%s: %s", way, complaint(p.answer))
	case !slices.Contains(allowed, p.source):
		return fmt.Errorf("%s: the receiver saw source %s, which is not the sender's %v: there is NAT between them", way, p.source, allowed)
	case p.state == "lost":
		return fmt.Errorf("%s: packets of %d bytes, the MTU of %s, are lost, small ones arrive: the MTU is too large for the path", way, p.bytes, p.device)
	case p.state == "fragmented":
		return fmt.Errorf("%s: packets of %d bytes, the MTU of %s, are fragmented: the MTU is larger than the path's", way, p.bytes, p.device)
	}
	return nil
}
