package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/lab"
)

// TestSoakNetworks makes a cluster of every further combination of flannel's backends, kube-proxy's modes and IP
// families that runs on this kernel, verifies it, and resets its hosts. Those that it leaves out are made by
// TestCluster (vxlan, iptables), TestHostGatewayAndNFTables, TestDualStack and TestIPv6Only.
func TestSoakNetworks(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of a quarter of an hour: run it with make soak")
	}
	begin, made := time.Now(), 0
	for name, n := range map[string]network{
		"vxlan and nftables":    {lab.IPv4, networkDocument("cni: {flannel: {backend: vxlan}}", "nftables")},
		"host-gw and iptables":  {lab.IPv4, networkDocument("cni: {flannel: {backend: host-gw}}", "iptables")},
		"vxlan, all nftables":   {lab.IPv4, networkDocument("cni: {mtu: 1300, flannel: {nftables: true, interfaceRegex: 'eth[0-9]'}}", "nftables")},
		"both, host-gw":         {lab.DualStack, networkDocument(bothRanges+", cni: {flannel: {backend: host-gw, interface: eth0}}", "nftables")},
		"both, all nftables":    {lab.DualStack, networkDocument(bothRanges+", cni: {flannel: {nftables: true}}", "nftables")},
		"both, IPv6 first":      {lab.DualStack, networkDocument(`podCIDR: "fd00:10:244::/56,10.244.0.0/16"`, "iptables")},
		"IPv6, by hand":         {lab.IPv6, networkDocument(ipv6Ranges, "nftables")},
		"IPv6, host-gw":         {lab.IPv6, networkDocument(ipv6Ranges+", cni: {flannel: {backend: host-gw, nftables: true}}", "iptables")},
		"IPv6 on hosts of both": {lab.DualStack, networkDocument(ipv6Ranges, "iptables")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, _ := needLab(t, 8*time.Minute)
			c := n.made(ctx, t, "soak")
			verified(ctx, t, c)
			if strings.HasPrefix(name, "both") {
				bothFamilies(ctx, t, c)
			} else if strings.HasPrefix(name, "IPv6") {
				onlyIPv6(ctx, t, c)
			}
			for _, h := range append(c.Workers, c.ControlPlane) {
				kubewright(ctx, t, h, "reset", "--yes")
			}
			made++
		})
	}
	t.Logf("soak: %d networks made, verified and reset in %s", made, time.Since(begin).Round(time.Second))
}
