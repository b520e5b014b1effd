package phases

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// mute is a host on which no program can be started.
type mute struct{ host.Host }

func (mute) Start(context.Context, string) (*host.Pipe, error) { return nil, errors.New("no programs") }

func TestTheNetworkIsLookedAtForWhoIsNew(t *testing.T) {
	const all = "cp-1>w-1 w-1>cp-1 cp-1>w-2 w-2>cp-1 w-1>w-2 w-2>w-1"
	for name, tt := range map[string]struct {
		are  func(*Up)
		all  bool
		want string
	}{
		"a new cluster":            {func(*Up) {}, false, all},
		"a running one":            {func(u *Up) { nodes(u, "cp-1", "w-1", "w-2") }, false, ""},
		"a running one, all of it": {func(u *Up) { nodes(u, "cp-1", "w-1", "w-2") }, true, all},
		"one that grows":           {func(u *Up) { nodes(u, "cp-1", "w-1") }, false, "cp-1>w-2 w-2>cp-1 w-1>w-2 w-2>w-1"},
		"one that may not":         {func(u *Up) { nodes(u, "cp-1", "w-1"); u.Only = []string{"w-1"} }, false, ""},
		"a host is down":           {func(u *Up) { u.Machines[2].Err = errDown }, false, "cp-1>w-1 w-1>cp-1"},
		"a host without address":   {func(u *Up) { u.Machines[2].Node.Address = "" }, false, "cp-1>w-1 w-1>cp-1"},
	} {
		t.Run(name, func(t *testing.T) {
			u := fleet("cp-1", "w-1", "w-2")
			for _, m := range u.Machines {
				m.Host = mute{}
			}
			tt.are(u)
			hosts, asks, _ := u.asks(tt.all)
			var got []string
			for _, a := range asks {
				got = append(got, hosts[a.From].Name+">"+hosts[a.To].Name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func nodes(u *Up, names ...string) {
	for _, m := range u.Machines {
		if slices.Contains(names, m.Node.Name) {
			m.node = m.Node.Name
		}
	}
}

func TestAHostThatCannotLookIsAWarning(t *testing.T) {
	u := fleet("cp-1", "w-1")
	for _, m := range u.Machines {
		m.Host = mute{}
	}
	_, findings := u.reachable(t.Context(), false)
	want := []Finding{{Name: "Reach", Warning: true, Message: "which packets get to and from cp-1 and w-1 was not looked at: no programs"}}
	if _, err := os.Stat("../reach/programs/amd64.gz"); err != nil {
		want[0].Message = "which packets get to and from cp-1 and w-1 was not looked at: this kubewright was built without the program for amd64 that looks: build it with `make build`"
	}
	if !slices.Equal(findings, want) {
		t.Errorf("%v", findings)
	}
}

func TestPacketsOfPodsFitIntoTheLink(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
	for name, tt := range map[string]struct {
		services string
		cni      config.CNI
		link     int
		want     []string
	}{
		"what fits": {"10.96.0.0/12", config.CNI{MTU: 1450}, 1500, nil},
		"vxlan": {"10.96.0.0/12", config.CNI{MTU: 1480}, 1500, []string{
			"[MTU] spec.network.cni.mtu is 1480, and with the 50 bytes that flannel adds that is 1530: the link of the host's address takes 1500; write 1450, the largest that fits, or give the link an MTU of 1530"}},
		"of two families": {bothServices, config.CNI{MTU: 1450}, 1500, []string{
			"[MTU] spec.network.cni.mtu is 1450, and with the 70 bytes that flannel adds that is 1520: the link of the host's address takes 1500; write 1430"}},
		"routed":                   {"10.96.0.0/12", config.CNI{MTU: 1500, Flannel: config.Flannel{Backend: "host-gw"}}, 1500, nil},
		"routed, and more":         {"10.96.0.0/12", config.CNI{MTU: 9000, Flannel: config.Flannel{Backend: "host-gw"}}, 1500, []string{"[MTU] spec.network.cni.mtu is 9000"}},
		"calico":                   {"10.96.0.0/12", config.CNI{Name: "calico", MTU: 1480}, 1500, []string{"[MTU] spec.network.cni.mtu is 1480, and with the 50 bytes that calico adds"}},
		"weave does not look":      {"10.96.0.0/12", config.CNI{Name: "weave"}, 1400, []string{"[MTU] weave has pods send packets of 1376 bytes by default (spec.network.cni.mtu), and with the 84 bytes that weave adds that is 1460: the link of the host's address takes 1400; write 1316"}},
		"found out by itself":      {"10.96.0.0/12", config.CNI{}, 1400, nil},
		"of another interface":     {"10.96.0.0/12", config.CNI{MTU: 1480, Flannel: config.Flannel{Interface: "eth1"}}, 1500, nil},
		"nobody knows of the link": {"10.96.0.0/12", config.CNI{MTU: 1480}, 0, nil},
	} {
		c := &config.Cluster{}
		c.Spec.Network.ServiceCIDR, c.Spec.Network.CNI = tt.services, tt.cni
		c.Default(config.Versions{})
		node := config.Node{Name: "n", Address: v4.String()}
		if c.Spec.Network.DualStack() {
			node.OtherAddress = v6.String()
		}
		wantFindings(t, name, checkMTU(c, node, config.Facts{MTUs: map[netip.Addr]int{v4: tt.link, v6: tt.link}}), tt.want)
	}
}

func TestWhatIsInTheWayOfSeveralHostsIsSaidOnce(t *testing.T) {
	u := fleet("cp-1", "w-1", "w-2")
	heard := []HostFinding{{"w-2", "Swap", "on", false}, {"w-2", "Mem", "little", true}, {"w-1", "Swap", "on", false}, {"w-1", "Port-10250", "used", false}, {"", "MTU", "small", false}, {"cp-1", "Swap", "on", false}, {"cp-1", "Swap", "on", false}}
	u.sort(heard)
	refusedAs(t, inTheWay(heard), `the hosts are not ready: 3 problems:
  - [MTU] small
  - cp-1, w-1 and w-2: [Swap] on
  - w-1: [Port-10250] used
mend these, or let one pass with --ignore-preflight-errors=NAME`)
	if err := inTheWay(nil); err != nil {
		t.Error(err)
	}
}

func TestPreflightOfSeveralHostsIsOneReport(t *testing.T) {
	u := fleet("cp-1", "w-1", "w-2")
	u.Bundle, u.Skip = testBundle(t, u.Cluster), []string{Reach.Name}
	for _, m := range u.Machines {
		h := newFakeHost(t)
		h.files["/usr/bin/conntrack"] = text("")
		h.files["/proc/swaps"] = text("Filename\n/dev/sda2\n")
		h.answers["ip -j addr"] = strings.ReplaceAll(h.answers["ip -j addr"], "192.0.2.11", m.Node.Address)
		facts, err := Facts(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		facts.Hostname = m.Node.Name
		m.Host, m.Facts = h, facts
	}
	if err := u.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := u.Preflight(t.Context())
	refusedAs(t, err, "the hosts are not ready: cp-1, w-1 and w-2: [Swap] swap is on")
	if strings.Count(err.Error(), "[Swap]") != 1 || strings.Count(err.Error(), "mend these") != 1 {
		t.Errorf("got %v", err)
	}
	if found.Network.Ways == nil || found.Network.Packets == nil {
		t.Error("lists of JSON are null")
	}
	if len(found.Findings) != 3 || found.Findings[0].Host != "cp-1" || found.Findings[2].Host != "w-2" {
		t.Errorf("found %+v", found.Findings)
	}
}
