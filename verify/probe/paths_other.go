//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

func wholeOnly(context.Context, netip.AddrPort) (net.Conn, error) { return nil, errLinux }
func fragments() int                                              { return 0 }
func routes() ([]Route, error)                                    { return nil, errLinux }
