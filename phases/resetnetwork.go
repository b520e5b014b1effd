package phases

import (
	"bytes"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/host"
)

// links of the pod network.
var links = []string{"cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0",
	"vxlan.calico", "vxlan-v6.calico", "weave", "datapath", "vxlan-6784"}

func linkPath(name string) string { return "/sys/class/net/" + name }

func linkPaths() (paths []string) {
	for _, name := range links {
		paths = append(paths, linkPath(name))
	}
	return paths
}

// marks begin the names of the chains of kube-proxy, the kubelet, the CNI plugins and the pod networks.
var marks = []string{"KUBE-", "CNI-", "FLANNEL-", "cali-", "WEAVE"}

func cleanNetwork(ctx context.Context, t *Target) error {
	found := t.found()
	infos, err := t.Host.Stat(ctx, linkPaths()...)
	if err != nil {
		return err
	}
	for _, link := range links {
		if _, ok := infos[linkPath(link)]; ok && !(found.counts() && slices.Contains(found.Links, link)) {
			if err := t.do(ctx, "ip", "link", "delete", link); err != nil {
				return err
			}
		}
	}
	tables, err := t.nftables(ctx) // before: what is ours there is known by iptables' words alone
	if err != nil {
		return err
	}
	removed := map[string]int{} // rules, by "FAMILY TABLE CHAIN"
	for _, family := range []struct{ nft, command string }{{"ip", "iptables"}, {"ip6", "ip6tables"}} {
		if t.Facts.Commands["iptables"] == "" {
			break
		}
		out, err := t.Host.Run(ctx, host.Query(family.command+"-save"))
		if err != nil {
			return err
		}
		removal := withoutOurs(out.Stdout, family.nft, removed, found)
		if len(removal) == 0 {
			continue
		}
		t.changed(1)
		// Only what is ours is named, so that the rules of others stay as they are.
		if _, err := t.Host.Run(ctx, host.Command{Argv: []string{family.command + "-restore", "--noflush"}, Stdin: bytes.NewReader(removal)}); err != nil {
			return err
		}
	}
	return t.removeTables(ctx, found, tables, removed)
}

// withoutOurs makes of the output of iptables-save what removes our rules and chains: first
// the rules of others' chains that lead into ours, then what is in ours, then these. It
// counts the former in removed.
func withoutOurs(save []byte, family string, removed map[string]int, found *Found) []byte {
	var out, rules, flushes, chains []byte
	table := ""
	mine := func(chain string) bool { // and not there before: others have CNI plugins, too
		return ours(chain) && !(found.counts() && slices.Contains(found.Tables, family+" "+table+" "+chain))
	}
	for line := range strings.Lines(string(save)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			out = append(out, line+"\n"...)
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			if mine(name) {
				flushes = append(flushes, "-F "+name+"\n"...)
				chains = append(chains, "-X "+name+"\n"...)
			}
		case strings.HasPrefix(line, "-A "):
			rule := strings.TrimPrefix(line, "-A ")
			name, _, _ := strings.Cut(rule, " ")
			if !mine(name) && leadsToOurs(rule) {
				rules = append(rules, "-D "+rule+"\n"...)
				removed[family+" "+table+" "+name]++
			}
		case line == "COMMIT":
			all := slices.Concat(rules, flushes, chains)
			if len(all) == 0 {
				out = out[:bytes.LastIndexByte(out, '*')] // nothing in this table
			} else {
				out = append(append(out, all...), "COMMIT\n"...)
			}
			rules, flushes, chains = nil, nil, nil
		}
	}
	return out
}

// ours tells of the name of a chain.
func ours(chain string) bool {
	return slices.ContainsFunc(marks, func(m string) bool { return strings.HasPrefix(chain, m) })
}

// leadsToOurs tells of a rule that jumps to a chain of ours, or that flannel has made.
func leadsToOurs(rule string) bool {
	words := strings.Fields(rule)
	for i, w := range words[1:] {
		if (words[i] == "-j" || words[i] == "-g") && ours(w) {
			return true
		}
	}
	return strings.Contains(rule, `--comment "flanneld`)
}

// builtIn are the chains that iptables makes by itself.
var builtIn = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// ownTables are those of kube-proxy and Calico in their nftables modes, and of flannel in its own.
var ownTables = []string{"ip kube-proxy", "ip6 kube-proxy", "ip calico", "ip6 calico", "ip flannel-ipv4", "ip6 flannel-ipv6"}

// removeTables removes the tables of nftables that are ours, and the tables and chains that
// iptables has made for us, where nobody has a rule in them. All is what was there before
// our rules were removed.
func (t *Target) removeTables(ctx context.Context, found *Found, all []nft, removed map[string]int) error {
	used := map[string]bool{} // tables in which something stays
	for _, n := range all {
		own := slices.Contains(ownTables, n.table())
		switch {
		case own && n.chain(), n.chain() && ours(path.Base(strings.ReplaceAll(n.name, " ", "/"))): // goes with its table, or has gone
			continue
		case own:
		case found == nil || slices.Contains(found.Tables, n.name):
			used[n.table()] = true
			continue
		case n.others || n.rules > removed[n.name] || used[n.name] || n.chain() && !slices.Contains(builtIn, strings.Fields(n.name)[2]):
			if !used[n.table()] {
				t.notice("kept: %s of nftables, which was not there before, as it holds rules of others: see `nft list table %s`", n.name, n.table())
			}
			used[n.table()] = true
			continue
		}
		kind := map[bool]string{true: "chain", false: "table"}[n.chain()]
		if err := t.do(ctx, append([]string{"nft", "delete", kind}, strings.Fields(n.name)...)...); err != nil {
			return err
		}
	}
	return nil
}

// nft is a table of nftables, "FAMILY NAME", or a chain of one, "FAMILY TABLE NAME".
type nft struct {
	name   string
	rules  int  // of a chain
	others bool // something that iptables does not make: a set, a policy that drops
}

func (n nft) chain() bool { return strings.Count(n.name, " ") == 2 }

// table is the name of a chain's table, or its own.
func (n nft) table() string { return strings.Join(strings.Fields(n.name)[:2], " ") }

// nftables are the chains of all tables, and behind those of each the table; none where there
// is no nft.
func (t *Target) nftables(ctx context.Context) ([]nft, error) {
	if t.Facts.Commands["nft"] == "" {
		return nil, nil
	}
	out, err := t.Host.Run(ctx, host.Query("nft", "list", "ruleset"))
	return parseNFT(string(out.Stdout)), err
}

// parseNFT reads what nft prints, which indents by tabs.
func parseNFT(ruleset string) (all []nft) {
	var table, chain *nft
	for line := range strings.Lines(ruleset) {
		depth := len(line) - len(strings.TrimLeft(line, "\t"))
		line = strings.TrimSpace(line)
		switch {
		case depth == 0 && strings.HasPrefix(line, "table "):
			table = &nft{name: strings.TrimSuffix(strings.TrimPrefix(line, "table "), " {")}
		case table == nil || line == "":
		case depth == 0 && line == "}":
			all = append(all, *table)
			table = nil
		case depth == 1 && strings.HasPrefix(line, "chain "):
			chain = &nft{name: table.name + " " + strings.TrimSuffix(strings.TrimPrefix(line, "chain "), " {")}
		case depth == 1 && line == "}" && chain != nil:
			all = append(all, *chain)
			chain = nil
		case chain == nil: // a set, a map, a flowtable
			table.others = true
		case strings.HasPrefix(line, "type "):
			chain.others = !strings.HasSuffix(line, "policy accept;")
		default:
			chain.rules++
		}
	}
	return all
}
