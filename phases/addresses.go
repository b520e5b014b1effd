package phases

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// addresses asks iproute2, which every host of Kubernetes has, for addresses and routes.
func addresses(ctx context.Context, h host.Host, f *config.Facts) error {
	asked := [][]string{{"ip", "-j", "addr"}, {"ip", "-4", "-j", "route"}, {"ip", "-6", "-j", "route"}}
	outs := make([]host.Output, len(asked))
	g, gctx := errgroup.WithContext(ctx)
	for i, argv := range asked {
		g.Go(func() (err error) { outs[i], err = h.Run(gctx, host.Query(argv...)); return installed(err) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(outs[0].Stdout) == 0 {
		return nil
	}
	global, err := readLinks(outs[0].Stdout, f)
	if err != nil {
		return fmt.Errorf("ip -j addr: %w", err)
	}
	var sources pair
	var tables [2][]route
	for i, out := range outs[1:] {
		if len(bytes.TrimSpace(out.Stdout)) == 0 {
			continue
		}
		if err := json.Unmarshal(out.Stdout, &tables[i]); err != nil {
			return fmt.Errorf("ip -j route: %w", err)
		}
		sources[i] = readRoutes(tables[i], i, global, f)
	}
	if f.DefaultIP, f.DefaultIPv6 = sources[0], sources[1]; !f.DefaultIP.IsValid() {
		f.DefaultIP = f.DefaultIPv6
	}
	return routeEnds(ctx, h, tables[1], f)
}

// routeEnds looks who takes router advertisements where a default route is of one: the kernel throws that
// away when it begins to forward, unless accept_ra is 2; systemd-networkd and NetworkManager set it to 0.
func routeEnds(ctx context.Context, h host.Host, table []route, f *config.Facts) error {
	for _, r := range table {
		if r.Dst != "default" || r.Protocol != "ra" {
			continue
		}
		accept, err := h.ReadFile(ctx, acceptRA(r.Dev))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if strings.TrimSpace(string(accept)) == "1" {
			f.RouteEnds = r.Dev
		}
	}
	return nil
}

// acceptRA is a file, as the name of an interface may hold dots.
func acceptRA(link string) string { return "/proc/sys/net/ipv6/conf/" + link + "/accept_ra" }

// pair are the first addresses of an interface that others reach, of IPv4 and of IPv6.
type pair [2]netip.Addr

func family(ip netip.Addr) int { return map[bool]int{true: 1}[ip.Is6()] }

// readLinks reads what "ip -j addr" says, and gives the addresses of each interface.
func readLinks(out []byte, f *config.Facts) (map[string]pair, error) {
	var links []struct {
		Name string `json:"ifname"`
		Type string `json:"link_type"`
		MAC  string `json:"address"`
		MTU  int    `json:"mtu"`
		Addr []struct {
			Local string `json:"local"`
			Bits  int    `json:"prefixlen"`
			Scope string `json:"scope"`
			// Of IPv6: it is there for privacy, or on its way out. Neither is to be told to others.
			Temporary  bool `json:"temporary"`
			Deprecated bool `json:"deprecated"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return nil, err
	}
	global, beside := map[string]pair{}, map[netip.Addr]netip.Addr{}
	f.MTUs = map[netip.Addr]int{}
	for _, l := range links {
		var first pair
		var others []netip.Addr
		for _, a := range l.Addr {
			ip, err := netip.ParseAddr(a.Local)
			if err != nil || a.Scope != "global" {
				continue
			}
			f.Addresses = append(f.Addresses, netip.PrefixFrom(ip, a.Bits))
			others = append(others, ip)
			f.MTUs[ip] = l.MTU
			// IPv4 lists what was added later behind, IPv6 before: a virtual address that comes and goes is not the host's.
			if i := family(ip); (ip.Is6() || !first[i].IsValid()) && !a.Temporary && !a.Deprecated {
				first[i] = ip
			}
		}
		for _, ip := range others {
			if o := first[1-family(ip)]; o.IsValid() {
				beside[ip] = o
			}
		}
		if global[l.Name] = first; l.Type == "ether" && len(others) > 0 {
			f.MACs = append(f.MACs, l.MAC)
		}
	}
	if len(beside) > 0 {
		f.Beside = beside
	}
	return global, nil
}

// route is one of "ip -j route".
type route struct {
	Dst      string `json:"dst"` // or default
	Dev      string `json:"dev"`
	PrefSrc  string `json:"prefsrc"`
	Gateway  string `json:"gateway"`
	Protocol string `json:"protocol"`
}

// readRoutes reads the routes of one family: the first default route's source, and where all others lead.
func readRoutes(table []route, family int, global map[string]pair, f *config.Facts) (source netip.Addr) {
	for _, r := range table {
		if ip, err := netip.ParseAddr(r.Gateway); err == nil && !slices.Contains(f.Gateways, ip) {
			f.Gateways = append(f.Gateways, ip)
		}
		if r.Dst == "default" {
			if source.IsValid() {
				continue
			}
			source = global[r.Dev][family]
			if ip, err := netip.ParseAddr(r.PrefSrc); err == nil {
				source = ip
			}
			continue
		}
		if cidr, err := netip.ParsePrefix(r.Dst); err == nil {
			f.Routes = append(f.Routes, cidr.Masked())
		}
	}
	return source
}
