package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
)

func node(name string) config.Node {
	role := config.WorkerRole
	if strings.HasPrefix(name, "cp") {
		role = config.ControlPlaneRole
	}
	return config.Node{Name: name, Roles: []config.Role{role}}
}

func document(change func(*config.Spec)) *config.Cluster {
	c := &config.Cluster{}
	c.Spec.Network.CNI.Name = "flannel"
	c.Default(config.Versions{})
	if change != nil {
		change(&c.Spec)
	}
	return c
}

func TestPortsThatHostsNeedOfEachOther(t *testing.T) {
	cni := func(name string) func(*config.Spec) { return func(s *config.Spec) { s.Network.CNI.Name = name } }
	for name, tt := range map[string]struct {
		change   func(*config.Spec)
		from, to string
		want     string
	}{
		"among control planes":        {nil, "cp-1", "cp-2", "6443/tcp 2379/tcp 2380/tcp 10250/tcp 8472/udp 30000/tcp 30000/udp"},
		"worker to control plane":     {nil, "w-1", "cp-1", "6443/tcp 8472/udp 30000/tcp 30000/udp"},
		"control plane to worker":     {nil, "cp-1", "w-1", "10250/tcp 8472/udp 30000/tcp 30000/udp"},
		"among workers":               {nil, "w-1", "w-2", "8472/udp 30000/tcp 30000/udp"},
		"metrics-server, on a worker": {func(s *config.Spec) { s.Addons.MetricsServer = true }, "w-1", "w-2", "10250/tcp 8472/udp 30000/tcp 30000/udp"},
		"etcd is somewhere else":      {func(s *config.Spec) { s.Etcd.External = &config.ExternalEtcd{} }, "cp-1", "cp-2", "6443/tcp 10250/tcp 8472/udp 30000/tcp 30000/udp"},
		"other ports": {func(s *config.Spec) {
			s.ControlPlane.BindPort, s.Kubelet = 7443, map[string]any{"port": float64(11250)}
			s.APIServer.ExtraArgs = []config.Arg{{Name: "service-node-port-range", Value: "31000-31999"}}
		}, "cp-1", "cp-2", "7443/tcp 2379/tcp 2380/tcp 11250/tcp 8472/udp 31000/tcp 31000/udp"},
		"nobody makes NodePorts": {func(s *config.Spec) { s.KubeProxy.Mode = "none" }, "w-1", "w-2", "8472/udp"},
		"host-gw":                {func(s *config.Spec) { s.Network.CNI.Flannel.Backend = "host-gw" }, "w-1", "w-2", "30000/tcp 30000/udp"},
		"wireguard":              {func(s *config.Spec) { s.Network.CNI.Flannel.Backend = "wireguard" }, "w-1", "w-2", "51820/udp 30000/tcp 30000/udp"},
		"wireguard, dual-stack": {func(s *config.Spec) {
			s.Network.CNI.Flannel.Backend, s.Network.PodCIDR = "wireguard", "10.244.0.0/16,fd00:244::/56"
		}, "w-1", "w-2", "51820/udp 51821/udp 30000/tcp 30000/udp"},
		"calico": {cni("calico"), "w-1", "w-2", "4789/udp 30000/tcp 30000/udp"},
		"calico with BGP": {func(s *config.Spec) {
			s.Network.CNI.Name, s.Network.CNI.Calico.Encapsulation = "calico", "none"
		}, "w-1", "w-2", "179/tcp 30000/tcp 30000/udp"},
		"calico with typha": {func(s *config.Spec) { s.Network.CNI.Name, s.Hosts = "calico", make([]config.Node, 50) }, "w-1", "w-2", "4789/udp 5473/tcp 30000/tcp 30000/udp"},
		"weave":             {cni("weave"), "w-1", "w-2", "6783/tcp 6783/udp 6784/udp 30000/tcp 30000/udp"},
		"somebody else's":   {cni("none"), "w-1", "w-2", "30000/tcp 30000/udp"},
	} {
		var got []string
		for _, p := range Ports(document(tt.change), node(tt.from), node(tt.to)) {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTheLargestPacket(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for name, tt := range map[string]struct {
		change func(*config.Spec)
		at     netip.Addr
		want   int
	}{
		"what the interface takes": {nil, four, 0},
		"vxlan":                    {func(s *config.Spec) { s.Network.CNI.MTU = 1400 }, four, 1450},
		"vxlan, IPv6":              {func(s *config.Spec) { s.Network.CNI.MTU = 1400 }, six, 1470},
		"wireguard":                {func(s *config.Spec) { s.Network.CNI.MTU, s.Network.CNI.Flannel.Backend = 1400, "wireguard" }, four, 1460},
		"host-gw":                  {func(s *config.Spec) { s.Network.CNI.MTU, s.Network.CNI.Flannel.Backend = 1400, "host-gw" }, four, 1400},
		"weave does not look":      {func(s *config.Spec) { s.Network.CNI.Name = "weave" }, four, 1460},
	} {
		if got := Largest(document(tt.change), tt.at); got != tt.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestOfManyHostsEachTriesControlPlanesAndFiveOthers(t *testing.T) {
	hosts := func(n int) (all []config.Node) {
		for i := range n {
			name := fmt.Sprintf("w-%d", i)
			if i < 3 {
				name = fmt.Sprintf("cp-%d", i)
			}
			all = append(all, node(name))
		}
		return all
	}
	if got := len(Pairs(hosts(20))); got != 20*19/2 {
		t.Errorf("20 hosts have %d pairs", got)
	}
	all := hosts(100)
	pairs := Pairs(all)
	tries := map[int]int{}
	for _, p := range pairs {
		if all[p[0]].Has(config.ControlPlaneRole) {
			continue
		}
		tries[p[0]]++
		tries[p[1]]++
	}
	for i := 3; i < 100; i++ {
		if tries[i] < 5 {
			t.Errorf("%s tries %d workers", all[i].Name, tries[i])
		}
		for cp := range 3 {
			if !slices.Contains(pairs, [2]int{cp, i}) {
				t.Errorf("%s does not try %s", all[i].Name, all[cp].Name)
			}
		}
	}
	if len(pairs) > 3*97+3+5*100 {
		t.Errorf("%d pairs", len(pairs))
	}
	if !slices.Equal(pairs, Pairs(all)) {
		t.Error("the next run would try others")
	}
}
