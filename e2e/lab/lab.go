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

	mu     sync.Mutex
	subnet string // of the lab's first network, 10.213.7.0/24
	nextIP int
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
	l := &Lab{Builder: b, Engine: e, name: o.Name, nextIP: firstIP}
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
	Image  Image   // what the host starts from; the zero Image is a bare Debian
	Mounts []Mount // beside those of the lab
}

// Hosts makes bare hosts, all at once, and returns them in the order of their names.
func (l *Lab) Hosts(ctx context.Context, names ...string) ([]*Host, error) {
	return l.HostsFrom(ctx, HostOptions{}, names...)
}

// HostsFrom is Hosts with options.
func (l *Lab) HostsFrom(ctx context.Context, o HostOptions, names ...string) ([]*Host, error) {
	hosts := make([]*Host, len(names))
	g, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		ip := l.takeIP() // here, so that the first name gets the first address
		g.Go(func() (err error) {
			hosts[i], err = l.start(ctx, name, ip, o)
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
	return l.start(ctx, h.Name, h.IP, o)
}

// Find returns a host of the lab that an earlier process made.
func (l *Lab) Find(ctx context.Context, name string) (*Host, error) {
	return l.Engine.Find(ctx, l.name, name)
}

// The lab's networks are /24s of this /16, which is neither a pod nor a service range of anybody's default, nor one
// of Docker's own. Addresses are given by us and so outlive a restart, as a real machine's do.
const (
	netPrefix = "10.213."
	firstIP   = 11
)

// network makes the lab's network on the first /24 that no other lab has.
func (l *Lab) network(ctx context.Context) error {
	name := l.Engine.networkName(l.name)
	if subnet, err := l.Engine.docker(ctx, nil, "network", "inspect", name, "--format", "{{(index .IPAM.Config 0).Subnet}}"); err == nil {
		l.subnet = strings.TrimSpace(subnet)
		return nil
	}
	var last error
	for i := range 256 {
		subnet := fmt.Sprintf("%s%d.0/24", netPrefix, i)
		_, last = l.Engine.docker(ctx, nil, "network", "create", "--label", label+"="+l.name, "--subnet", subnet, name)
		if last == nil {
			l.subnet = subnet
			return nil
		}
		if !errors.Is(last, errOverlap) {
			return last
		}
	}
	return fmt.Errorf("no free network below %s0.0/16: %w", netPrefix, last)
}

func (l *Lab) takeIP() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ip := strings.TrimSuffix(l.subnet, "0/24") + fmt.Sprint(l.nextIP)
	l.nextIP++
	return ip
}
