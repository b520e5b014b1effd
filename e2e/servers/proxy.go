package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
)

// Reachable is an address of this machine that hosts of a lab reach too, and that Go's
// clients ask a proxy for: what they call localhost, or 127.0.0.1, they never do.
// [Reach] makes it.
const Reachable = "10.213.255.1"

// Reach gives the machine's loopback device the address [Reachable], which needs root. It
// stays until the next boot: other tests may use it now. It is the last of the range that labs
// take their networks from, counting from its begin.
func Reach(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "ip", "address", "replace", Reachable+"/32", "dev", "lo").CombinedOutput()
	if err != nil {
		return fmt.Errorf("give the loopback device the address %s: %w: %s", Reachable, err, out)
	}
	return nil
}

// Proxy is a forward proxy.
type Proxy struct {
	*process
	URL string // for HTTPS_PROXY: http://host:port, and with a password http://user:password@host:port
}

// StartProxy runs Debian's tinyproxy (the lab's Install installs it) on a free port of the host, 127.0.0.1
// or [Reachable], say, and waits until it listens. It connects to any port. With a user it asks for the password.
// Its log has the first line of each request, CONNECT example.com:443 HTTP/1.1.
func StartProxy(ctx context.Context, host, user, password string) (*Proxy, error) {
	p, err := newProcess("tinyproxy")
	if err != nil {
		return nil, err
	}
	x := &Proxy{process: p}
	if err := x.start(ctx, host, user, password); err != nil {
		return nil, fmt.Errorf("start a proxy: %w", errors.Join(err, x.Close()))
	}
	return x, nil
}

func (x *Proxy) start(ctx context.Context, host, user, password string) error {
	port, err := freePort(host)
	if err != nil {
		return err
	}
	lines := []string{"Listen " + host, "Port " + port, "Timeout 60", "LogLevel Connect", "MaxClients 100"}
	credentials := ""
	if user != "" {
		lines, credentials = append(lines, "BasicAuth "+user+" "+password), user+":"+password+"@"
	}
	if err := x.write("conf", strings.Join(lines, "\n")+"\n"); err != nil {
		return err
	}
	address := net.JoinHostPort(host, port)
	x.URL = "http://" + credentials + address
	return x.run(ctx, func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	}, "tinyproxy", "-d", "-c", x.file("conf"))
}

// freePort is one that was free just now: tinyproxy cannot choose itself.
func freePort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
