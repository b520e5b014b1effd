package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Dial connects from the host's own view of the network, by SSH forwarding. Where the server
// forbids that, a TCP connection goes to the host directly. An address that nobody listens at is
// [syscall.ECONNREFUSED]. The end of ctx does not end a connection that was made.
func (s *Transport) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	var err error
	switch network {
	case "tcp", "tcp4", "tcp6":
		conn, err = s.dialTCP(ctx, addr)
		var prohibited *prohibitedError
		if errors.As(err, &prohibited) {
			conn, err = s.dialDirectly(ctx, addr)
		}
	case "unix":
		conn, err = s.dialUnix(ctx, addr)
	default:
		return nil, fmt.Errorf("dial %s: only tcp and unix", network)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: dial %s from there: %w", s.endpoint, addr, err)
	}
	return conn, nil
}

// prohibitedError is a server that does not forward.
type prohibitedError struct{ words string }

func (e *prohibitedError) Error() string {
	return fmt.Sprintf("the SSH server forbids forwarding (%s): set AllowTcpForwarding to yes or local in its sshd_config, and look at DisableForwarding, PermitOpen and the key's own options", e.words)
}

func closeLate(conn net.Conn) { conn.Close() }

// dialTCP asks the server for a connection.
func (l *link) dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := opened(ctx, l, func() (net.Conn, error) { return l.client.Dial("tcp", addr) }, closeLate)
	var refused *ssh.OpenChannelError
	switch {
	case err == nil:
		return conn, nil
	case errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		return nil, &prohibitedError{refused.Message}
	case errors.As(err, &refused) && strings.Contains(strings.ToLower(refused.Message), "refused"):
		return nil, syscall.ECONNREFUSED
	}
	return nil, l.lost(err)
}

// dialDirectly goes without the server: to its own address, on the way that SSH takes, for what
// listens on all addresses there; else to the address itself.
func (s *Transport) dialDirectly(ctx context.Context, addr string) (net.Conn, error) {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip == "localhost" || net.ParseIP(ip).IsLoopback() {
		addr = net.JoinHostPort(s.address, port)
	}
	var conn net.Conn
	if s.before != nil {
		conn, err = s.before.dialTCP(ctx, addr)
	} else {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("the SSH server forbids forwarding (AllowTcpForwarding in its sshd_config: set it to yes or local), and %s does not answer directly: %w", addr, err)
	}
	return conn, nil
}
