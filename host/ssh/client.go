// Package ssh reaches hosts as users of ssh do: with their configuration, keys, agent, jump hosts and known
// hosts, as root or by sudo. In goes how a host is reached; out comes a [host.Transport].
package ssh

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/kevinburke/ssh_config"
	"golang.org/x/sync/singleflight"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Options are what concerns all hosts of one run.
type Options struct {
	Config     string   // ssh's configuration file; empty: ~/.ssh/config, if there is one
	KnownHosts []string // files; empty: those of the configuration, else ~/.ssh/known_hosts. New keys go into the first
	AcceptNew  bool     // unknown host keys are stored; changed ones are refused all the same
	Identities []string // private keys, beside those of the document and the configuration
	// Ask is for passphrases and sudo's password, one question at a time. Nil: there is nobody to ask.
	Ask          func(prompt string) (string, error)
	SudoPassword string // empty: Ask, once for all hosts with the same user
}

// Client connects to hosts. Configuration, known hosts, keys, passphrases, passwords and jump
// hosts are one for all of them. It is safe for concurrent use.
type Client struct {
	Options
	home    string
	config  *ssh_config.Config
	connect time.Duration // where ssh's configuration has no ConnectTimeout
	silence time.Duration // a link that has not been heard of for so long is dead

	mu        sync.Mutex
	keys      map[string]*key
	hosts     map[string]*knownHosts
	passwords map[string]*password
	jumps     map[string]*link
	asking    sync.Mutex
	flight    singleflight.Group
}

// New reads ssh's configuration.
func New(o Options) (*Client, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	c := &Client{Options: o, home: home, connect: 15 * time.Second, silence: 15 * time.Second,
		keys: map[string]*key{}, hosts: map[string]*knownHosts{}, passwords: map[string]*password{}, jumps: map[string]*link{}}
	path := c.path(o.Config)
	if path == "" {
		path = filepath.Join(home, ".ssh", "config")
	}
	c.config, err = readSSHConfig(path, o.Config != "")
	return c, err
}

// Check looks at the files that the options name, before there is anybody to connect to.
func (o Options) Check() error {
	c, err := New(o)
	if err != nil {
		return err
	}
	var all *multierror.Error
	for _, f := range o.Identities {
		if _, err := os.Stat(c.path(f)); err != nil {
			all = multierror.Append(all, fmt.Errorf("--identity-file: %w", err))
		}
	}
	var files []string
	_, global := os.Stat(globalKnownHosts)
	for _, f := range o.KnownHosts {
		files = append(files, c.path(f))
		if _, err := os.Stat(c.path(f)); err != nil && f != "none" && !o.AcceptNew && global != nil { // else it is made, or that is read beside it
			all = multierror.Append(all, fmt.Errorf("--known-hosts: %w: no key of a host is known by it; with --accept-new-host-keys it is made", err))
		}
	}
	_, err = c.known(files)
	return config.Errors(multierror.Append(all, err))
}

// Close ends the connections to jump hosts, and so all that go through them.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.jumps {
		l.close(net.ErrClosed)
	}
	return nil
}

// ask is nil where there is nobody to ask.
func (c *Client) ask() func(string) (string, error) {
	if c.Ask == nil {
		return nil
	}
	return func(prompt string) (string, error) {
		c.asking.Lock()
		defer c.asking.Unlock()
		return c.Ask(prompt)
	}
}

// Transport is a [host.Transport]: one connection to a host.
type Transport struct {
	*link
	shared *Client
	before *link // the last jump host; nil: none
	root   root

	relaying sync.Mutex
	relays   map[string]string // socket of the host -> the one that the user may open
}

var _ host.Transport = (*Transport)(nil)

// Connect logs in to a host; name is what the document calls it, and its address where to has
// none. Errors name the host and say what to do. The connection lasts beyond ctx.
func (c *Client) Connect(ctx context.Context, name string, to config.SSH) (*Transport, error) {
	e, err := c.endpoint(name, to)
	if err != nil {
		return nil, err
	}
	route, err := c.route(e)
	if err != nil {
		return nil, err
	}
	var before *link
	for i := range route[:len(route)-1] {
		if before, err = c.jump(ctx, before, route[:i+1]); err != nil {
			return nil, &host.BehindError{Host: e.String(), Err: err}
		}
	}
	l, err := c.link(ctx, before, e)
	if err != nil {
		return nil, err
	}
	return &Transport{link: l, shared: c, before: before, root: newRoot(), relays: map[string]string{}}, nil
}

// jump gives the connection to the last host of a route. It is shared: a bastion drops those who
// knock a hundred times at once (MaxStartups).
func (c *Client) jump(ctx context.Context, before *link, route []endpoint) (*link, error) {
	var names []string
	for _, e := range route {
		names = append(names, e.user+"@"+e.addr())
	}
	id := strings.Join(names, ",")
	c.mu.Lock()
	have := c.jumps[id]
	c.mu.Unlock()
	if have != nil && have.cause() == nil {
		return have, nil
	}
	result := c.flight.DoChan(id, func() (any, error) {
		// Others wait for it, too: it is bounded by its own timeouts, not by who came first.
		l, err := c.link(context.WithoutCancel(ctx), before, route[len(route)-1])
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.jumps[id] = l
		return l, nil
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*link), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
