package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wholeOnly is a socket whose datagrams leave whole or not at all, whatever the kernel knows of the way.
func wholeOnly(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			if to.Addr().Is6() {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
		})
		if failed != nil {
			return failed
		}
		return err
	}}
	return d.DialContext(ctx, "udp", to.String())
}

// fragments counts what this network namespace has cut into pieces.
func fragments() (n int) {
	v4, _ := os.ReadFile("/proc/net/snmp") // a line of names, a line of numbers
	var names []string
	for line := range strings.Lines(string(v4)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] != "Ip:":
		case names == nil:
			names = f
		default:
			for i, name := range names {
				if name == "FragCreates" && i < len(f) {
					n, _ = strconv.Atoi(f[i])
				}
			}
		}
	}
	v6, _ := os.ReadFile("/proc/net/snmp6")
	for line := range strings.Lines(string(v6)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Ip6FragCreates" {
			more, _ := strconv.Atoi(f[1])
			n += more
		}
	}
	return n
}

// routes are those of the main table, of both families.
func routes() ([]Route, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	devices := map[int]net.Interface{}
	for _, i := range interfaces {
		devices[i.Index] = i
	}
	var all []Route
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		b, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, family)
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for its routes: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(b)
		if err != nil {
			return nil, fmt.Errorf("read the kernel's routes: %w", err)
		}
		for _, m := range messages {
			if r, ok := parseRoute(m, family, devices); ok {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

func parseRoute(m syscall.NetlinkMessage, family int, devices map[int]net.Interface) (Route, bool) {
	if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg {
		return Route{}, false
	}
	head := (*syscall.RtMsg)(unsafe.Pointer(&m.Data[0]))
	if int(head.Family) != family || head.Table != syscall.RT_TABLE_MAIN || head.Type != syscall.RTN_UNICAST || head.Flags&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return Route{}, false
	}
	to := netip.IPv4Unspecified()
	if family == syscall.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	r := Route{}
	number := func(b []byte) int { return int(*(*uint32)(unsafe.Pointer(&b[0]))) } // in the machine's order
	for _, a := range attributes {
		switch {
		case a.Attr.Type == syscall.RTA_DST:
			if x, ok := netip.AddrFromSlice(a.Value); ok {
				to = x
			}
		case a.Attr.Type == syscall.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(a.Value)
		case a.Attr.Type == syscall.RTA_OIF && len(a.Value) == 4:
			d := devices[number(a.Value)]
			r.Device = d.Name
			if r.MTU == 0 {
				r.MTU = d.MTU
			}
		case a.Attr.Type == syscall.RTA_METRICS:
			for b := a.Value; len(b) >= 8; { // length, type, value
				length := int(*(*uint16)(unsafe.Pointer(&b[0])))
				if kind := *(*uint16)(unsafe.Pointer(&b[2])); kind == unix.RTAX_MTU {
					r.MTU = number(b[4:])
				}
				if length < 4 || (length+3)&^3 > len(b) {
					break
				}
				b = b[(length+3)&^3:]
			}
		}
	}
	r.To = netip.PrefixFrom(to, int(head.Dst_len))
	return r, r.Device != ""
}
