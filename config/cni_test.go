package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestOtherNetworksAreRefusedWithWhatToWriteInstead(t *testing.T) {
	const cni = "spec.network.cni"
	hex := strings.Repeat("a", 64)
	for name, tt := range map[string]struct{ cni, want string }{
		"calico":               {"{name: calico}", ""},
		"calico, all of it":    {"{name: calico, mtu: 1400, calico: {version: v3.32.2, encapsulation: none, interface: 'interface=eth.*,en.*', typha: 0}}", ""},
		"calico's range":       {"{name: calico, calico: {interface: 'cidr=192.0.2.0/24,198.51.100.0/24'}}", ""},
		"calico's way":         {"{name: calico, calico: {interface: can-reach=192.0.2.1}}", ""},
		"weave":                {"{name: weave, weave: {acceptDeprecated: true, passwordFile: secret}}", ""},
		"a manifest":           {"{name: manifest, manifest: {source: cilium.yaml, sha256: " + hex + "}}", ""},
		"a manifest's address": {"{name: manifest, manifest: {source: 'https://example.org/cilium.yaml', sha256: " + hex + "}}", ""},

		"version":             {"{name: calico, calico: {version: 3.32.1}}", cni + `.calico.version: "3.32.1" is not a version: write v3.32.1, say`},
		"encapsulation":       {"{name: calico, calico: {encapsulation: geneve}}", cni + `.calico.encapsulation: "geneve" is unknown: write one of vxlan, none, ipip`},
		"method":              {"{name: calico, calico: {interface: eth0}}", cni + `.calico.interface: "eth0" is no method to find a node's address: write first-found`},
		"method's pattern":    {"{name: calico, calico: {interface: 'interface=('}}", cni + `.calico.interface: "interface=(" is no method`},
		"method's range":      {"{name: calico, calico: {interface: 'cidr=192.0.2.1'}}", cni + `.calico.interface: "cidr=192.0.2.1" is no method`},
		"method's value":      {"{name: calico, calico: {interface: 'first-found=a'}}", cni + `.calico.interface: "first-found=a" is no method`},
		"typha":               {"{name: calico, calico: {typha: -1}}", cni + ".calico.typha: -1: write how many there are to be, 0 for none"},
		"settings of others":  {"{name: calico, weave: {acceptDeprecated: true}}", cni + ".weave: are settings of another network than calico: leave them out, or write name: weave"},
		"settings of flannel": {"{name: calico, flannel: {backend: host-gw}, weave: {acceptDeprecated: true}}", "2 problems:\n  - " + cni + ".flannel: are settings of another network than calico: leave them out, or write name: flannel\n  - " + cni + ".weave: "},
		"deprecated":          {"{name: weave}", cni + ".weave.acceptDeprecated: is not true: Weave Net's makers are gone"},
		"weave's version":     {"{name: weave, weave: {acceptDeprecated: true, version: v2.9.0}}", cni + `.weave.version: "v2.9.0" is not a version: write 2.9.0, say`},
		"no source":           {"{name: manifest, manifest: {sha256: " + hex + "}}", cni + ".manifest.source: is missing"},
		"other source":        {"{name: manifest, manifest: {source: 'oci://a/b', sha256: " + hex + "}}", cni + `.manifest.source: "oci://a/b": write a file, or an address that begins with https://`},
		"secret source":       {"{name: manifest, manifest: {source: 'https://me:hunter2@example.org/a', sha256: " + hex + "}}", cni + ".manifest.source: is no address without a user name"},
		"no digest":           {"{name: manifest, manifest: {source: a.yaml}}", cni + `.manifest.sha256: "" is not 64 hex digits in lower case: write what`},
		"digest with a name":  {"{name: manifest, manifest: {source: a.yaml, sha256: 'sha256:" + hex + "'}}", cni + ".manifest.sha256: "},
	} {
		err := document(t, "spec: {network: {cni: "+tt.cni+"}}").Validate()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: a password in %v", name, err)
		}
	}
	for name, tt := range map[string]struct{ cni, want string }{
		"ipip":  {"{name: calico, calico: {encapsulation: ipip}}", cni + ".calico.encapsulation: ipip carries IPv4 alone"},
		"weave": {"{name: weave, weave: {acceptDeprecated: true}}", "spec.network.podCIDR: weave has no IPv6"},
	} {
		err := document(t, "spec: {network: {podCIDR: 'fd00:1::/48', serviceCIDR: 'fd00:2::/112', cni: "+tt.cni+"}}").Validate()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("IPv6 with %s: got %v", name, err)
		}
	}
}

func TestTyphasComeWithTheNodes(t *testing.T) {
	for hosts, want := range map[int]int32{0: 0, 49: 0, 50: 3, 300: 3, 301: 4, 5000: 20} {
		c := document(t, "spec: {network: {cni: {name: calico}}}")
		for i := range hosts {
			c.Spec.Hosts = append(c.Spec.Hosts, Node{Name: fmt.Sprint("w-", i)})
		}
		if got := c.Typhas(); got != want {
			t.Errorf("%d hosts: %d, want %d", hosts, got, want)
		}
		c.Spec.Network.CNI.Calico.Typha = new(int32(1))
		if got := c.Typhas(); got != 1 {
			t.Errorf("%d hosts: %d, though the document says 1", hosts, got)
		}
	}
}

func TestTheMTUFitsVXLANOverIPv6(t *testing.T) {
	for name, tt := range map[string]struct {
		podCIDR, edit string
		live, link    int
		want          int
	}{
		"IPv6":                    {podCIDR: "fd00:10:244::/56", link: 1500, want: 1430},
		"both":                    {podCIDR: "10.244.0.0/16,fd00:10:244::/56", link: 9000, want: 8930},
		"IPv4":                    {podCIDR: "10.244.0.0/16", link: 1500},
		"a running cluster's":     {podCIDR: "fd00:10:244::/56", live: 1400, link: 1500, want: 1400},
		"never too small":         {podCIDR: "fd00:10:244::/56", link: 1300, want: 1280},
		"nobody knows the link's": {podCIDR: "fd00:10:244::/56"},
		"the document's":          {podCIDR: "fd00:10:244::/56", edit: "mtu", link: 1500, want: 1420},
		"another backend":         {podCIDR: "fd00:10:244::/56", edit: "host-gw", link: 1500},
		"a chosen interface":      {podCIDR: "fd00:10:244::/56", edit: "interface", link: 1500},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Cluster{}
			c.Spec.Network.PodCIDR = tt.podCIDR
			switch cni := &c.Spec.Network.CNI; tt.edit {
			case "mtu":
				cni.MTU = 1420
			case "host-gw":
				cni.Flannel.Backend = tt.edit
			case "interface":
				cni.Flannel.Interface = "eth1"
			}
			c.Default(Versions{})
			var live *Cluster
			if tt.live > 0 {
				live = &Cluster{}
				live.Spec.Network.CNI.MTU = tt.live
			}
			c.FitMTU(live, tt.link)
			if got := c.Spec.Network.CNI.MTU; got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
