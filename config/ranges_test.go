package config

import (
	"net/netip"
	"testing"
)

func TestRangesThatAreLeftOutAreOfTheFamiliesOfTheOthers(t *testing.T) {
	for name, tt := range map[string]struct{ given, pods, services string }{
		"none":                  {"", "10.244.0.0/16", "10.96.0.0/12"},
		"pods of IPv6":          {"podCIDR: fd01::/56", "fd01::/56", "fd00:10:96::/112"},
		"services of IPv6":      {"serviceCIDR: fd02::/112", "fd00:10:244::/56", "fd02::/112"},
		"both, IPv6 first":      {`podCIDR: "fd01::/56, 10.1.0.0/16"`, "fd01::/56,10.1.0.0/16", "fd00:10:96::/112,10.96.0.0/12"},
		"none without networks": {"cni: {name: none}", "", "10.96.0.0/12"},
		"IPv6 of another's":     {"serviceCIDR: fd02::/112, cni: {name: none}", "", "fd02::/112"},
	} {
		n := document(t, "spec: {network: {"+tt.given+"}}").Spec.Network
		if n.PodCIDR != tt.pods || n.ServiceCIDR != tt.services {
			t.Errorf("%s: pods %s, services %s", name, n.PodCIDR, n.ServiceCIDR)
		}
	}
}

func TestFamiliesOfACluster(t *testing.T) {
	for services, want := range map[string][3]bool{ // its own is IPv6, it has both, it uses IPv6
		"10.96.0.0/12":            {false, false, false},
		"fd00::/112":              {true, false, true},
		"10.96.0.0/12,fd00::/112": {false, true, true},
		"fd00::/112,10.96.0.0/12": {true, true, true},
	} {
		n := Network{ServiceCIDR: services}
		if got := [3]bool{n.IPv6(), n.DualStack(), n.UsesIPv6()}; got != want {
			t.Errorf("%s: %v", services, got)
		}
	}
}

func TestAddressesOfANodeAreOfTheFamiliesOfItsCluster(t *testing.T) {
	v4, v6, second := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8:2::8")
	both := Facts{DefaultIP: v4, DefaultIPv6: v6, Beside: map[netip.Addr]netip.Addr{v4: v6, v6: v4, netip.MustParseAddr("10.0.0.8"): second}}
	for name, tt := range map[string]struct {
		services string
		node     Node
		f        Facts
		want     [2]string
	}{
		"IPv4":                      {"10.96.0.0/12", Node{}, both, [2]string{"192.0.2.7"}},
		"IPv6":                      {"fd00::/112", Node{}, both, [2]string{"2001:db8::7"}},
		"both":                      {"10.96.0.0/12,fd00::/112", Node{}, both, [2]string{"192.0.2.7", "2001:db8::7"}},
		"both, IPv6 first":          {"fd00::/112,10.96.0.0/12", Node{}, both, [2]string{"2001:db8::7", "192.0.2.7"}},
		"of a named interface":      {"10.96.0.0/12,fd00::/112", Node{Address: "10.0.0.8"}, both, [2]string{"10.0.0.8", "2001:db8:2::8"}},
		"both are named":            {"10.96.0.0/12,fd00::/112", Node{Address: "10.0.0.8", OtherAddress: "fd00::8"}, both, [2]string{"10.0.0.8", "fd00::8"}},
		"no default route of IPv6":  {"fd00::/112", Node{}, Facts{DefaultIP: v4, Beside: map[netip.Addr]netip.Addr{v4: v6}}, [2]string{"2001:db8::7"}},
		"a host without IPv6":       {"10.96.0.0/12,fd00::/112", Node{}, Facts{DefaultIP: v4}, [2]string{"192.0.2.7"}},
		"a host of the wrong kind":  {"fd00::/112", Node{}, Facts{DefaultIP: v4}, [2]string{"192.0.2.7"}},
		"nothing is known of it":    {"10.96.0.0/12,fd00::/112", Node{}, Facts{}, [2]string{}},
		"IPv6 alone, and that only": {"fd00::/112", Node{}, Facts{DefaultIP: v6, DefaultIPv6: v6}, [2]string{"2001:db8::7"}},
	} {
		c := &Cluster{Spec: Spec{Network: Network{ServiceCIDR: tt.services}}}
		if n := c.Addressed(tt.node, tt.f); n.Address != tt.want[0] || n.OtherAddress != tt.want[1] {
			t.Errorf("%s: %q and %q", name, n.Address, n.OtherAddress)
		}
	}
}
