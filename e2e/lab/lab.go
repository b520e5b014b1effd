// Package lab makes real Kubernetes hosts on one machine that has root, Go, git and nothing else.
//
// In go pinned Go modules (folder artifacts) and Debian packages; out come binaries, a bundle of them and of
// container images under their official names, and hosts: containers with systemd in which a cluster is made as
// on real machines. Only a Go module proxy and a Debian mirror have to be in reach, and neither once the cache is
// warm. Nothing here is a fake: what runs is upstream's code, built from source.
//
// A [Builder] makes things and keeps them in the cache, keyed by what they are made of. An [Engine] is a dockerd of
// the lab's own. A [Lab] is some hosts on a network. Reading order: lab.go, hosts.go, ssh.go, engine.go, builder.go,
// artifacts.go, rootfs.go, images.go, bundle.go.
//
// The engine is driven by its command-line client: the few calls that a lab needs do not pay for a client library
// with its dependencies, and what is printed in an error can be typed again by hand.
package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Options of a lab.
type Options struct {
	Name   string                           // tells labs on one machine apart: lower case, digits and dashes
	Log    func(format string, args ...any) // one line for each thing that takes long; nil for silence
	Mounts []Mount                          // what every host sees beside the bundle and the tool
	Keep   bool                             // take over what is there of that name, instead of removing it as a killed run's leftovers
	Subnet string                           // of its network, 10.215.0.0/16, for hosts that are given their addresses; empty: a /24 that is free
}

// Where every host sees the bundle, and the folder with the kubewright binary ([Builder.Kubewright]), read-only.
const (
	BundleDir = "/mnt/bundle"
	ToolDir   = "/mnt/kubewright"
)

// Mount is a folder of this machine that a host sees, read-only.
type Mount struct{ Source, Target string }

// Lab is some hosts on a network of their own.
type Lab struct {
	*Builder
	Engine *Engine

	name   string
	mounts []Mount
	sshKey string // the public half, as a line of authorized_keys

	mu      sync.Mutex
	subnet  string // of the lab's network, 10.213.7.0/24
	subnet6 string // of its other network, which has both families; empty until somebody needs it
	nextIP  int
}

// The label that all containers, networks and volumes of a lab carry; its value is the lab's name.
const label = "kubewright.lab"

// The labels by which a host is found again.
const (
	hostLabel = "kubewright.lab.host"
	ipLabel   = "kubewright.lab.ip"
)

var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// New makes an empty lab: packages installed, a bundle built, an engine running, a network. What a killed run of the same name
// left behind is removed first, unless o.Keep.
func New(ctx context.Context, o Options) (*Lab, error) {
	if !labName.MatchString(o.Name) {
		return nil, fmt.Errorf("lab name %q: use lower-case letters, digits and dashes", o.Name)
	}
	b, err := NewBuilder(o.Log)
	if err != nil {
		return nil, err
	}
	if err := b.Install(ctx); err != nil {
		return nil, err
	}
	e, err := Start(ctx, b)
	if err != nil {
		return nil, err
	}
	bundle, err := b.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	tool, err := b.toolDir()
	if err != nil {
		return nil, err
	}
	l := &Lab{Builder: b, Engine: e, name: o.Name, subnet: o.Subnet, nextIP: firstIP}
	l.mounts = append([]Mount{{bundle, BundleDir}, {tool, ToolDir}}, o.Mounts...)
	if !o.Keep {
		if err := l.Close(ctx); err != nil {
			return nil, err
		}
	}
	if l.sshKey, err = l.makeSSHKey(); err != nil {
		return nil, fmt.Errorf("make the lab's SSH key: %w", err)
	}
	return l, l.network(ctx)
}

// Close removes the lab's hosts with their disks, its network and its SSH key. The engine keeps running.
func (l *Lab) Close(ctx context.Context) error { return l.Engine.Remove(ctx, l.name) }

// HostOptions of one host.
type HostOptions struct {
	Image    Image   // what the host starts from; the zero Image is a bare Debian
	Mounts   []Mount // beside those of the lab
	Families Families
	Address  string // of its own choice, in the lab's subnet; empty: the next
	// Resolver answers what the lab's own DNS does not know, and Search is the domain of short names.
	Resolver, Search string
}

// Families are those of a host's addresses. Hosts with IPv6 are on a network of their own.
type Families int

const (
	IPv4 Families = iota
	DualStack
	IPv6 // alone
)

// Hosts makes bare hosts, all at once, and returns them in the order of their names.
func (l *Lab) Hosts(ctx context.Context, names ...string) ([]*Host, error) {
	return l.HostsFrom(ctx, HostOptions{}, names...)
}

// HostsFrom is Hosts with options.
func (l *Lab) HostsFrom(ctx context.Context, o HostOptions, names ...string) ([]*Host, error) {
	hosts := make([]*Host, len(names))
	g, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		h, err := l.placed(ctx, name, o) // here, so that the first name gets the first address
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		g.Go(func() (err error) {
			hosts[i], err = l.start(ctx, h, o)
			return err
		})
	}
	return hosts, g.Wait()
}

// Host makes one host and waits until its systemd is up.
func (l *Lab) Host(ctx context.Context, name string, o HostOptions) (*Host, error) {
	hosts, err := l.HostsFrom(ctx, o, name)
	if err != nil {
		return nil, err
	}
	return hosts[0], nil
}

// Replace makes a host anew, with its name and address: another machine in the place of the old one.
func (l *Lab) Replace(ctx context.Context, h *Host, o HostOptions) (*Host, error) {
	if err := h.Remove(ctx); err != nil {
		return nil, err
	}
	return l.start(ctx, &Host{Name: h.Name, IP: h.IP, IPv6: h.IPv6, engine: h.engine, network: h.network, ipv4: h.ipv4, id: h.id}, o)
}

// Find returns a host of the lab that an earlier process made.
func (l *Lab) Find(ctx context.Context, name string) (*Host, error) {
	return l.Engine.Find(ctx, l.name, name)
}

// The lab's networks are /24s of this /16, which is neither a pod nor a service range of anybody's default, nor one
// of Docker's own. Addresses are given by us and so outlive a restart, as a real machine's do. A network of both
// families has fd00:213:7::/64 beside 10.213.7.0/24.
const (
	netPrefix  = "10.213."
	netPrefix6 = "fd00:213:"
	firstIP    = 11
)

// Subnet is the range of the lab's network. Its first address is this machine's.
func (l *Lab) Subnet() string { return l.subnet }

// network makes the lab's network, on the first /24 that no other lab has unless it was given another.
func (l *Lab) network(ctx context.Context) (err error) {
	if l.subnet != "" {
		name := l.Engine.networkName(l.name)
		if _, err := l.Engine.docker(ctx, nil, "network", "inspect", name); err == nil {
			return nil
		}
		_, err = l.Engine.docker(ctx, nil, "network", "create", "--label", label+"="+l.name, "--subnet", l.subnet, name)
		return err
	}
	l.subnet, err = l.makeNetwork(ctx, l.Engine.networkName(l.name), false)
	return err
}

// makeNetwork returns the IPv4 range of a network, which may be there already.
func (l *Lab) makeNetwork(ctx context.Context, name string, both bool) (string, error) {
	if subnets, err := l.Engine.docker(ctx, nil, "network", "inspect", name, "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"); err == nil {
		for _, s := range strings.Fields(subnets) {
			if strings.HasPrefix(s, netPrefix) {
				return s, nil
			}
		}
	}
	var last error
	for i := range 256 {
		subnet := fmt.Sprintf("%s%d.0/24", netPrefix, i)
		args := []string{"network", "create", "--label", label + "=" + l.name, "--subnet", subnet}
		if both {
			args = append(args, "--ipv6", "--subnet", fmt.Sprintf("%s%d::/64", netPrefix6, i))
		}
		_, last = l.Engine.docker(ctx, nil, append(args, name)...)
		if last == nil {
			return subnet, nil
		}
		if !errors.Is(last, errOverlap) {
			return "", last
		}
	}
	return "", fmt.Errorf("no free network below %s0.0/16: %w", netPrefix, last)
}

// placed is a host that is yet to be made, with its addresses.
func (l *Lab) placed(ctx context.Context, name string, o HostOptions) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &Host{Name: name, engine: l.Engine, network: l.Engine.networkName(l.name), id: l.Engine.containerName(l.name, name)}
	if h.IP, h.ipv4 = o.Address, o.Address; o.Address != "" {
		return h, nil
	}
	subnet := l.subnet
	if o.Families != IPv4 {
		h.network += "-ipv6"
		if l.subnet6 == "" {
			var err error
			if l.subnet6, err = l.makeNetwork(ctx, h.network, true); err != nil {
				return nil, fmt.Errorf("a network with IPv6: %w", err)
			}
		}
		subnet = l.subnet6
		h.IPv6 = fmt.Sprintf("%s%s::%d", netPrefix6, strings.Split(subnet, ".")[2], l.nextIP)
	}
	h.ipv4 = subnet[:strings.LastIndex(subnet, ".")+1] + fmt.Sprint(l.nextIP)
	if h.IP = h.ipv4; o.Families == IPv6 {
		h.IP = h.IPv6
	}
	l.nextIP++
	return h, nil
}
