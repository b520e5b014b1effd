package reach

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/host"
)

var (
	api     = Port{"tcp", 6443, "API server", false}
	etcd1   = Port{"tcp", 2379, "etcd", false}
	etcd2   = Port{"tcp", 2380, "etcd", false}
	vxlan   = Port{"udp", 8472, "flannel vxlan", false}
	service = Port{"udp", 30000, "NodePorts", true}
)

func way(from, to string, p Port, why string) Way {
	return Way{From: from, To: to, Port: p, Reached: why == "", Why: why}
}

func nftables(chain, why string, out bool) Firewall {
	rules := `{"nftables":[{"chain":{"family":"inet","table":"t","name":"` + chain + `","type":"filter","hook":"` + map[bool]string{true: "output", false: "input"}[out] + `","policy":"drop"}}]}`
	return inNftables([]byte(rules), netip.MustParseAddr("192.0.2.1"), true)[0]
}

func TestJudgeNamesHostsPortsAndCommands(t *testing.T) {
	fw := map[string][]Firewall{"w-1": {nftables("in", "policy drop", false)}}
	for name, tt := range map[string]struct {
		found     Result
		firewalls map[string][]Firewall
		want      []string
	}{
		"all is well": {Result{Ways: []Way{way("a", "b", api, "")}, Packets: []Packet{{From: "a", To: "b", Wanted: 1500, Passed: 1500}}}, nil, nil},
		"hosts that lack the same are named together": {
			Result{Ways: []Way{way("cp-1", "w-1", api, "no answer"), way("w-2", "w-1", api, "no answer"), way("cp-1", "w-1", etcd1, "no answer"), way("w-2", "w-1", etcd1, "no answer"), way("cp-1", "w-1", etcd2, ""), way("w-1", "cp-1", api, "")}}, fw,
			[]string{"Reach: w-1 is not reached from cp-1 and w-2 at 6443/tcp API server, 2379/tcp etcd (no answer): on w-1 there is nftables, chain inet t in (policy drop): `nft insert rule inet t in tcp dport '{ 6443, 2379 }' accept`"}},
		"one way": {
			Result{Ways: []Way{way("cp-1", "w-1", vxlan, "nothing arrived"), way("w-1", "cp-1", vxlan, "")}}, fw,
			[]string{"Reach: w-1 is not reached from cp-1 at 8472/udp flannel vxlan (nothing arrived), though the other way they get through: on w-1 there is nftables, chain inet t in (policy drop): `nft insert rule inet t in udp dport 8472 accept`"}},
		"the sender's own": {
			Result{Ways: []Way{way("cp-1", "w-1", vxlan, "nothing arrived")}}, map[string][]Firewall{"cp-1": {nftables("out", "policy drop", true)}},
			[]string{"Reach: w-1 is not reached from cp-1 at 8472/udp flannel vxlan (nothing arrived): on cp-1 there is nftables, chain inet t out (policy drop): `nft insert rule inet t out udp dport 8472 accept`"}},
		"nobody's": {
			Result{Ways: []Way{way("cp-1", "w-1", vxlan, "nothing arrived")}}, nil,
			[]string{"Reach: w-1 is not reached from cp-1 at 8472/udp flannel vxlan (nothing arrived): no firewall was found on them, so look at what is between them (security groups, a router's rules), and let 8472/udp flannel vxlan pass"}},
		"NodePorts are no condition": {
			Result{Ways: []Way{way("cp-1", "w-1", service, "nothing arrived")}}, fw,
			[]string{"Reach (warning): w-1 is not reached from cp-1 at 30000/udp NodePorts (nothing arrived): on w-1 there is nftables, chain inet t in (policy drop): `nft insert rule inet t in udp dport 30000 accept`"}},
		"a small interface": {
			Result{Packets: []Packet{{"cp-1", "w-1", 1500, 1400, "eth0", 1500, "ens3", 1400}, {"w-2", "w-1", 1500, 1400, "eth0", 1500, "ens3", 1400}, {"w-1", "w-2", 1400, 1400, "ens3", 1400, "eth0", 1500}}}, nil,
			[]string{"MTU: packets of 1500 bytes from cp-1 and w-2 do not arrive at w-1, and those of 1400 do: ens3 of w-1 has an MTU of 1400, and eth0 of cp-1 one of 1500: give them the same (`ip link set ens3 mtu 1500` on w-1), or have pods send smaller ones, with spec.network.cni.mtu: 1350 in the document"}},
		"a small way": {
			Result{Packets: []Packet{{"cp-1", "w-1", 1500, 1400, "eth0", 1500, "eth0", 1500}, {"w-1", "cp-1", 1500, 1300, "eth0", 1500, "eth0", 1500}}}, nil,
			[]string{
				"MTU: packets of 1500 bytes from cp-1 do not arrive at w-1, and those of 1400 do: something between them takes no larger ones, or drops them (a tunnel, a switch, a rule): mend that, or have pods send smaller ones, with spec.network.cni.mtu: 1250 in the document",
				"MTU: packets of 1500 bytes from w-1 do not arrive at cp-1, and those of 1300 do: something between them takes no larger ones, or drops them (a tunnel, a switch, a rule): mend that, or have pods send smaller ones, with spec.network.cni.mtu: 1250 in the document"}},
	} {
		var got []string
		for _, p := range tt.found.Judge(tt.firewalls, 50) {
			what := p.Name
			if p.Warning {
				what += " (warning)"
			}
			got = append(got, what+": "+p.Message)
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s:\n%s", name, strings.Join(got, "\n"))
		}
	}
}

// answering is a host that knows what some commands print.
type answering struct {
	host.Host
	prints map[string]string
}

func (a answering) Run(_ context.Context, c host.Command) (host.Output, error) {
	if out, ok := a.prints[strings.Join(c.Argv, " ")]; ok && c.Reads {
		return host.Output{Stdout: []byte(out)}, nil
	}
	return host.Output{}, errors.New("not found")
}

func TestFirewallsAreNamedWithTheCommandThatOpensThem(t *testing.T) {
	const (
		accepting = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
		proxy     = accepting + ":KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP\n"
		jumping   = accepting + ":LOCAL - [0:0]\n-A INPUT -j LOCAL\n-A LOCAL -p udp -m udp --dport 8472 -j REJECT --reject-with icmp-port-unreachable\n"
	)
	chain := func(name, hook, policy string) string {
		return `{"chain":{"family":"inet","table":"t","name":"` + name + `","handle":1,"type":"filter","hook":"` + hook + `","prio":0,"policy":"` + policy + `"}}`
	}
	rule := func(chain, verdict string) string {
		return `{"rule":{"family":"inet","table":"t","chain":"` + chain + `","handle":2,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":8472}},` + verdict + `]}}`
	}
	nft := func(objects ...string) string {
		return `{"nftables":[{"metainfo":{"version":"1.0.6"}},` + strings.Join(objects, ",") + `]}`
	}
	ports := []Port{api, {"udp", 6783, "weave", false}, {"udp", 6784, "weave", false}}
	for name, tt := range map[string]struct {
		prints map[string]string
		at     string
		want   []string
	}{
		"none": {nil, "", nil},
		"firewalld": {map[string]string{"firewall-cmd --state": "running\n", "nft -j list ruleset": nft(chain("in", "input", "drop"))}, "",
			[]string{"firewalld: firewall-cmd --permanent --add-port=6443/tcp && firewall-cmd --permanent --add-port=6783/udp --add-port=6784/udp && firewall-cmd --reload"}},
		"firewalld, in a zone": {map[string]string{"firewall-cmd --state": "running\n", "ip -j addr": `[{"ifname":"ens3","addr_info":[{"local":"192.0.2.1"}]}]`, "firewall-cmd --get-zone-of-interface=ens3": "internal\n"}, "",
			[]string{"firewalld: firewall-cmd --permanent --zone=internal --add-port=6443/tcp && firewall-cmd --permanent --zone=internal --add-port=6783/udp --add-port=6784/udp && firewall-cmd --reload"}},
		"firewalld, stopped": {map[string]string{"firewall-cmd --state": "not running\n"}, "", nil},
		"ufw": {map[string]string{"ufw status verbose": "Status: active\nLogging: on (low)\nDefault: deny (incoming), allow (outgoing), disabled (routed)\n"}, "",
			[]string{"ufw: ufw allow proto tcp to any port 6443 && ufw allow proto udp to any port 6783,6784"}},
		"ufw, strict": {map[string]string{"ufw status verbose": "Status: active\nDefault: deny (incoming), deny (outgoing)\n"}, "",
			[]string{"ufw: ufw allow proto tcp to any port 6443 && ufw allow proto udp to any port 6783,6784", "out ufw: ufw allow out proto tcp to any port 6443 && ufw allow out proto udp to any port 6783,6784"}},
		"ufw, inactive": {map[string]string{"ufw status verbose": "Status: inactive\n"}, "", nil},
		"iptables, policy": {map[string]string{"iptables-save -t filter": strings.Replace(accepting, "INPUT ACCEPT", "INPUT DROP", 1)}, "",
			[]string{"iptables, chain INPUT (policy DROP): iptables -I INPUT -p tcp --dport 6443 -j ACCEPT && iptables -I INPUT -p udp -m multiport --dports 6783,6784 -j ACCEPT"}},
		"iptables, IPv6": {map[string]string{"ip6tables-save -t filter": strings.Replace(accepting, "OUTPUT ACCEPT", "OUTPUT DROP", 1)}, "2001:db8::1",
			[]string{"out iptables, chain OUTPUT (policy DROP): ip6tables -I OUTPUT -p tcp --dport 6443 -j ACCEPT && ip6tables -I OUTPUT -p udp -m multiport --dports 6783,6784 -j ACCEPT"}},
		"iptables, a rule behind a jump": {map[string]string{"iptables-save -t filter": jumping}, "",
			[]string{"iptables, chain INPUT (a rule that drops): iptables -I INPUT -p tcp --dport 6443 -j ACCEPT && iptables -I INPUT -p udp -m multiport --dports 6783,6784 -j ACCEPT"}},
		"iptables, kube-proxy's alone": {map[string]string{"iptables-save -t filter": proxy}, "", nil},
		"nftables, policy": {map[string]string{"nft -j list ruleset": nft(chain("in", "input", "drop"), chain("fwd", "forward", "drop"), chain("out", "output", "accept"))}, "",
			[]string{"nftables, chain inet t in (policy drop): nft insert rule inet t in tcp dport 6443 accept && nft insert rule inet t in udp dport '{ 6783, 6784 }' accept"}},
		"nftables, a rule": {map[string]string{"nft -j list ruleset": nft(chain("in", "input", "accept"), rule("in", `{"drop":null}`))}, "",
			[]string{"nftables, chain inet t in (a rule that drops): nft insert rule inet t in tcp dport 6443 accept && nft insert rule inet t in udp dport '{ 6783, 6784 }' accept"}},
		"nftables, a rule behind a jump": {map[string]string{"nft -j list ruleset": nft(chain("in", "input", "accept"), rule("in", `{"jump":{"target":"local"}}`), rule("local", `{"reject":{"type":"icmpx"}}`))}, "",
			[]string{"nftables, chain inet t in (a rule that drops): nft insert rule inet t in tcp dport 6443 accept && nft insert rule inet t in udp dport '{ 6783, 6784 }' accept"}},
		"nftables, accepting": {map[string]string{"nft -j list ruleset": nft(chain("in", "input", "accept"), rule("in", `{"accept":null}`))}, "", nil},
	} {
		at := netip.MustParseAddr("192.0.2.1")
		if tt.at != "" {
			at = netip.MustParseAddr(tt.at)
		}
		var got []string
		for _, f := range Firewalls(t.Context(), answering{prints: tt.prints}, at) {
			line := f.String() + ": " + f.Open(ports)
			if f.Out {
				line = "out " + line
			}
			got = append(got, line)
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s:\n%s", name, strings.Join(got, "\n"))
		}
	}
}
