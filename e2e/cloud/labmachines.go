package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/e2e/lab"
)

// User is the one that images have: as on Ubuntu's, with sudo that asks for no password.
const User = "ubuntu"

// Lab is Machines that are hosts of a lab. A VPC's range must be that of the lab's network, or lie in it: an instance's
// address is its host's. All subnets are one network there, whatever the routes say, and what has a public address has it as its private
// one. Security groups hold, as rules in the hosts' own network, for what comes in.
type Lab struct {
	Endpoint string // of the cloud that is served, from the hosts and from here

	lab             *lab.Lab
	image           lab.Image
	bridge          string // the interface of this machine on the lab's network
	gateway, vpcDNS netip.Addr

	mu       sync.Mutex
	machines map[string]*machine
	close    []func() error
}

type machine struct {
	started chan struct{} // closed when Start is done
	host    *lab.Host     // nil: it did not start
}

// NewLab has instances be hosts of the lab, made of the image; the zero Image is a bare Debian.
func NewLab(l *lab.Lab, image lab.Image) (*Lab, error) {
	p, err := netip.ParsePrefix(l.Subnet())
	if err != nil {
		return nil, err
	}
	m := &Lab{lab: l, image: image, gateway: p.Addr().Next(), vpcDNS: p.Addr().Next().Next(), machines: map[string]*machine{}}
	m.bridge, err = interfaceWith(m.gateway)
	return m, err
}

func interfaceWith(a netip.Addr) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, x := range addresses {
			if n, ok := x.(*net.IPNet); ok && n.IP.String() == a.String() {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has the address %s", a)
}

// Start boots a host, and does what cloud-init would on its first boot.
func (m *Lab) Start(ctx context.Context, s Spec) error {
	x := &machine{started: make(chan struct{})}
	defer close(x.started)
	m.mu.Lock()
	m.machines[s.ID] = x
	m.mu.Unlock()
	short, domain, _ := strings.Cut(s.Name, ".")
	h, err := m.lab.Host(ctx, short, lab.HostOptions{Image: m.image, Address: s.Address, Resolver: m.vpcDNS.String(), Search: domain})
	if h != nil {
		m.mu.Lock()
		x.host = h
		m.mu.Unlock()
	}
	if err != nil {
		return err
	}
	return cloudInit(ctx, h, s)
}

// cloudInit makes the user with its keys. Of a #cloud-config it honours ssh_authorized_keys, and says what it does not.
func cloudInit(ctx context.Context, h *lab.Host, s Spec) error {
	keys := s.AuthorizedKeys
	switch {
	case strings.HasPrefix(s.UserData, "#cloud-config"):
		var config struct {
			Keys []string `json:"ssh_authorized_keys"`
		}
		if err := yaml.UnmarshalStrict([]byte(s.UserData), &config); err != nil {
			return fmt.Errorf("user data: the stand-in honours nothing but ssh_authorized_keys: %w", err)
		}
		keys = append(keys, config.Keys...)
	case s.UserData != "":
		return fmt.Errorf("user data: the stand-in takes a #cloud-config only")
	}
	_, _, err := h.Exec(ctx, strings.NewReader(strings.Join(keys, "\n")+"\n"), "sh", "-ec", `
		id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"
		echo "$1 ALL=(ALL) NOPASSWD:ALL" > /etc/sudoers.d/90-cloud-init-users
		install -d -m 700 -o "$1" -g "$1" "/home/$1/.ssh"
		install -m 600 -o "$1" -g "$1" /dev/stdin "/home/$1/.ssh/authorized_keys"`, "sh", User)
	return err
}

// Admit has the host drop what comes from elsewhere to its interface, and belongs to no connection of its own. What comes out of its tunnels is
// not asked.
func (m *Lab) Admit(ctx context.Context, id string, all []Admission) error {
	h := m.Host(id)
	if h == nil {
		return nil
	}
	var rules strings.Builder
	rules.WriteString("*mangle\n:SECURITY-GROUPS - [0:0]\n-A SECURITY-GROUPS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n")
	for _, a := range all {
		fmt.Fprintf(&rules, "-A SECURITY-GROUPS -s %s", a.From)
		if a.Protocol != "-1" {
			fmt.Fprintf(&rules, " -p %s", a.Protocol)
		}
		if a.Protocol == "tcp" || a.Protocol == "udp" {
			fmt.Fprintf(&rules, " --dport %d:%d", a.Ports[0], a.Ports[1])
		}
		rules.WriteString(" -j RETURN\n")
	}
	rules.WriteString("-A SECURITY-GROUPS -j DROP\nCOMMIT\n")
	_, _, err := h.Exec(ctx, strings.NewReader(rules.String()), "sh", "-ec", `
		iptables-restore --noflush
		iptables -t mangle -C PREROUTING -i eth0 -j SECURITY-GROUPS 2>/dev/null || iptables -t mangle -I PREROUTING -i eth0 -j SECURITY-GROUPS`)
	return err
}

// Stop removes the host of an instance.
func (m *Lab) Stop(id string) error {
	m.mu.Lock()
	x := m.machines[id]
	m.mu.Unlock()
	if x == nil {
		return nil
	}
	<-x.started
	if x.host == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return x.host.Remove(ctx)
}

// Host is the one of an instance; nil: there is none.
func (m *Lab) Host(id string) *lab.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.machines[id]; x != nil {
		return x.host
	}
	return nil
}

// Listen is for load balancers: their addresses are this machine's, on the lab's network.
func (m *Lab) Listen(a netip.AddrPort) (net.Listener, error) {
	if err := m.have(a.Addr()); err != nil {
		return nil, err
	}
	return net.Listen("tcp", a.String())
}

// have gives this machine an address on the lab's network, which goes with that.
func (m *Lab) have(a netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := interfaceWith(a); err == nil {
		return nil
	}
	return command("ip", "addr", "add", a.String()+"/32", "dev", m.bridge)
}

func command(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// The address of the metadata service.
const metadataAddress = "169.254.169.254"

// Serve serves the cloud to the hosts, and to this machine: its API at Endpoint, the metadata of instances, and DNS at
// the second address of the network, as in a VPC. The metadata address stays the hosts': this machine may have a
// metadata service of its own.
func (m *Lab) Serve(c *Cloud) error {
	api, err := net.Listen("tcp", m.gateway.String()+":0")
	if err != nil {
		return err
	}
	m.Endpoint = "http://" + api.Addr().String()
	meta, err := net.Listen("tcp", m.gateway.String()+":0")
	if err != nil {
		return err
	}
	if err := forgetMetadata(m.bridge); err != nil {
		return err
	}
	if err := command("iptables", "-t", "nat", "-I", "PREROUTING", "-i", m.bridge, "-d", metadataAddress, "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", meta.Addr().String()); err != nil {
		return err
	}
	if err := m.have(m.vpcDNS); err != nil {
		return err
	}
	known, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	r := resolver{c: c}
	for _, s := range known.Servers {
		r.upstream = append(r.upstream, net.JoinHostPort(s, known.Port))
	}
	at := m.vpcDNS.String() + ":53"
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	apiServer, metaServer := &http.Server{Handler: c}, metadataServer(c)
	udp, tcp := &dns.Server{PacketConn: packets, Handler: r}, &dns.Server{Listener: streams, Handler: r}
	var g errgroup.Group
	g.Go(func() error { return apiServer.Serve(api) })
	g.Go(func() error { return metaServer.Serve(meta) })
	g.Go(udp.ActivateAndServe)
	g.Go(tcp.ActivateAndServe)
	m.close = []func() error{apiServer.Close, metaServer.Close, packets.Close, streams.Close, g.Wait, func() error { return forgetMetadata(m.bridge) }}
	return nil
}

// forgetMetadata removes the rules that lead to the metadata service of a bridge, and those of bridges that are gone:
// who was killed left them.
func forgetMetadata(bridge string) error {
	out, err := exec.Command("iptables", "-t", "nat", "-S", "PREROUTING").Output()
	if err != nil {
		return fmt.Errorf("iptables -t nat -S PREROUTING: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		at := slices.Index(f, "-i")
		if at < 0 || !slices.Contains(f, metadataAddress+"/32") {
			continue
		}
		if _, err := net.InterfaceByName(f[at+1]); err == nil && f[at+1] != bridge {
			continue // another cloud's
		}
		if err := command(append([]string{"iptables", "-t", "nat", "-D"}, f[1:]...)...); err != nil {
			return err
		}
	}
	return nil
}

// Close ends what Serve began. The hosts and the network are the lab's to remove.
func (m *Lab) Close() error {
	var all []error
	for _, f := range m.close {
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
