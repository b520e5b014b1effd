package reach

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kubewright/kubewright/host"
)

// Firewall is something on a host that may drop what comes in or goes out.
type Firewall struct {
	Name string `json:"name"` // firewalld, ufw, nftables, iptables
	// Chain is that of nftables or iptables, and Why it may drop: "policy drop".
	Chain string `json:"chain,omitempty"`
	Why   string `json:"why,omitempty"`
	Out   bool   `json:"out,omitempty"` // of what goes out; else of what comes in
	// open is the command for some ports.
	open func(network string, numbers []uint16) string
}

func (f Firewall) String() string {
	if f.Chain == "" {
		return f.Name
	}
	return fmt.Sprintf("%s, chain %s (%s)", f.Name, f.Chain, f.Why)
}

// Open is the command that lets ports pass.
func (f Firewall) Open(ports []Port) string {
	var commands []string
	for _, network := range []string{"tcp", "udp"} {
		var numbers []uint16
		for _, p := range ports {
			if p.Network == network && !slices.Contains(numbers, p.Number) {
				numbers = append(numbers, p.Number)
			}
		}
		if len(numbers) > 0 {
			commands = append(commands, f.open(network, numbers))
		}
	}
	if f.Name == "firewalld" {
		commands = append(commands, "firewall-cmd --reload")
	}
	return strings.Join(commands, " && ")
}

func join(numbers []uint16, with string, each string) string {
	var all []string
	for _, n := range numbers {
		all = append(all, strings.ReplaceAll(each, "N", strconv.Itoa(int(n))))
	}
	return strings.Join(all, with)
}

// Firewalls looks for those of a host that others reach at an address.
func Firewalls(ctx context.Context, h host.Host, at netip.Addr) (all []Firewall) {
	ask := func(argv ...string) (string, bool) {
		out, err := h.Run(ctx, host.Query(argv...))
		return strings.TrimSpace(string(out.Stdout)), err == nil
	}
	// What these two write as rules is theirs to change.
	if state, ok := ask("firewall-cmd", "--state"); ok && state == "running" {
		zone := ""
		if links, ok := ask("ip", "-j", "addr"); ok {
			if z, ok := ask("firewall-cmd", "--get-zone-of-interface="+interfaceOf(links, at)); ok {
				zone = " --zone=" + z
			}
		}
		return []Firewall{{Name: "firewalld", open: func(network string, numbers []uint16) string {
			return "firewall-cmd --permanent" + zone + " " + join(numbers, " ", "--add-port=N/"+network)
		}}}
	}
	if state, ok := ask("ufw", "status", "verbose"); ok && strings.HasPrefix(state, "Status: active") {
		all = append(all, Firewall{Name: "ufw", open: func(network string, numbers []uint16) string {
			return "ufw allow proto " + network + " to any port " + join(numbers, ",", "N")
		}})
		if !strings.Contains(state, "allow (outgoing)") {
			all = append(all, Firewall{Name: "ufw", Out: true, open: func(network string, numbers []uint16) string {
				return "ufw allow out proto " + network + " to any port " + join(numbers, ",", "N")
			}})
		}
		return all
	}
	tool := "iptables"
	if at.Is6() {
		tool = "ip6tables"
	}
	saved, xtables := ask(tool+"-save", "-t", "filter")
	all = append(all, inIptables(saved, tool)...)
	if rules, ok := ask("nft", "-j", "list", "ruleset"); ok {
		all = append(all, inNftables([]byte(rules), at, xtables)...)
	}
	return all
}

// interfaceOf is the one with an address, of what `ip -j addr` prints.
func interfaceOf(links string, at netip.Addr) string {
	var all []struct {
		Name string `json:"ifname"`
		Addr []struct {
			Local string `json:"local"`
		} `json:"addr_info"`
	}
	json.Unmarshal([]byte(links), &all)
	for _, l := range all {
		for _, a := range l.Addr {
			if a.Local == at.String() {
				return l.Name
			}
		}
	}
	return ""
}

// known are the chains of those who let pods and services work: what they drop is not what we look for.
func known(chain string) bool {
	return slices.ContainsFunc([]string{"KUBE-", "CNI-", "cali-", "FLANNEL", "WEAVE", "DOCKER"}, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// drops tells which chains drop something themselves, or jump to one that does.
func drops(chains map[string][]string, own map[string]bool) func(chain string) bool {
	var look func(chain string, seen []string) bool
	look = func(chain string, seen []string) bool {
		if own[chain] {
			return true
		}
		return slices.ContainsFunc(chains[chain], func(to string) bool {
			return !slices.Contains(seen, to) && look(to, append(seen, to))
		})
	}
	return func(chain string) bool { return look(chain, []string{chain}) }
}

const rule = "a rule that drops"

// inIptables reads what iptables-save prints.
func inIptables(saved, tool string) (all []Firewall) {
	policies, jumps, own := map[string]string{}, map[string][]string{}, map[string]bool{}
	for line := range strings.Lines(saved) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.HasPrefix(f[0], ":") {
			policies[f[0][1:]] = f[1]
		}
		i := slices.Index(f, "-j")
		if len(f) < 4 || f[0] != "-A" || i < 0 || i+1 == len(f) || known(f[1]) || known(f[i+1]) {
			continue
		}
		switch to := f[i+1]; to {
		case "DROP", "REJECT":
			own[f[1]] = true
		default:
			jumps[f[1]] = append(jumps[f[1]], to)
		}
	}
	dropping := drops(jumps, own)
	for _, c := range []struct {
		name string
		out  bool
	}{{"INPUT", false}, {"OUTPUT", true}} {
		why := ""
		switch {
		case policies[c.name] == "DROP":
			why = "policy DROP"
		case dropping(c.name):
			why = rule
		default:
			continue
		}
		all = append(all, Firewall{Name: "iptables", Chain: c.name, Why: why, Out: c.out, open: func(network string, numbers []uint16) string {
			match := " --dport "
			if len(numbers) > 1 {
				match = " -m multiport --dports "
			}
			return tool + " -I " + c.name + " -p " + network + match + join(numbers, ",", "N") + " -j ACCEPT"
		}})
	}
	return all
}

// hooks of nftables through which packets of a host itself go, and whether those go out.
var hooks = map[string]bool{"ingress": false, "prerouting": false, "input": false, "output": true, "postrouting": true, "egress": true}

// inNftables reads what `nft -j list ruleset` prints. Chains of iptables are left to it, where it is there.
func inNftables(rules []byte, at netip.Addr, xtables bool) (all []Firewall) {
	type chain struct {
		Family, Table, Name, Type, Hook, Policy string
	}
	var list struct {
		Nftables []struct {
			Chain *chain `json:"chain"`
			Rule  *struct {
				Family, Table, Chain string
				Expr                 []map[string]json.RawMessage `json:"expr"`
			} `json:"rule"`
		} `json:"nftables"`
	}
	if json.Unmarshal(rules, &list) != nil {
		return nil
	}
	jumps, own := map[string][]string{}, map[string]bool{}
	id := func(family, table, chain string) string { return family + " " + table + " " + chain }
	for _, o := range list.Nftables {
		if o.Rule == nil || known(o.Rule.Chain) || o.Rule.Table == "kube-proxy" {
			continue
		}
		from := id(o.Rule.Family, o.Rule.Table, o.Rule.Chain)
		for _, e := range o.Rule.Expr {
			for verdict, to := range e {
				var target struct{ Target string }
				switch verdict {
				case "drop", "reject":
					own[from] = true
				case "jump", "goto":
					if json.Unmarshal(to, &target) == nil && !known(target.Target) {
						jumps[from] = append(jumps[from], id(o.Rule.Family, o.Rule.Table, target.Target))
					}
				}
			}
		}
	}
	dropping := drops(jumps, own)
	for _, o := range list.Nftables {
		c := o.Chain
		if c == nil || c.Hook == "" || c.Family == "ip" && at.Is6() || c.Family == "ip6" && at.Is4() {
			continue
		}
		out, ours := hooks[c.Hook]
		if !ours || xtables && strings.HasPrefix(c.Family, "ip") && c.Table == "filter" && strings.ToUpper(c.Name) == c.Name {
			continue
		}
		name := id(c.Family, c.Table, c.Name)
		why := ""
		switch {
		case c.Policy == "drop":
			why = "policy drop"
		case dropping(name):
			why = rule
		default:
			continue
		}
		all = append(all, Firewall{Name: "nftables", Chain: name, Why: why, Out: out, open: func(network string, numbers []uint16) string {
			ports := join(numbers, ", ", "N")
			if len(numbers) > 1 {
				ports = "'{ " + ports + " }'"
			}
			return "nft insert rule " + name + " " + network + " dport " + ports + " accept"
		}})
	}
	return all
}
