package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Machine is one host of a cluster that is looked at or changed as a whole.
type Machine struct {
	Node config.Node // as the document has it; Observe adds its address
	Host host.Host   // nil where nobody gets there
	Err  error       // why it is left alone: it does not answer, say
	// Lease ends, with its cause, when the host is no longer kept for this run; nil: nobody locked it.
	Lease context.Context

	Facts   config.Facts
	Journal *Journal
	// Existing holds, by path, the certificates, keys and kubeconfigs that are there.
	Existing map[string][]byte
	data     etcdData // on a control plane
	node     string   // that it is already
	// manifests are those of the static pods of a control plane that say what its cluster is, by path.
	manifests map[string][]byte
	reads     []host.Read
	had       glance
}

// foreseeing is a host that can be asked ahead what the run before has asked it: a [host.Remote].
type foreseeing interface {
	Recall(ctx context.Context, path string) ([]host.Read, error)
	Prefetch(ctx context.Context, reads []host.Read) error
	Remember(ctx context.Context, path string) error
	Rest()
}

// Recall finds out what the run before has asked this host, for Observe to ask all of it at once.
// Whatever goes wrong costs nothing but time.
func (m *Machine) Recall(ctx context.Context) {
	if h, ok := m.Host.(foreseeing); ok && m.Err == nil {
		m.reads, _ = h.Recall(ctx, readsPath)
	}
}

// rest stores for the next run's Recall what this one has asked, and lets go of what only a machine
// with more to do needs. Where nothing of ours is, nothing is left.
func (m *Machine) rest(ctx context.Context) {
	if h, ok := m.Host.(foreseeing); ok {
		if !m.Journal.Empty() {
			h.Remember(ctx, readsPath)
		}
		h.Rest()
	}
}

func (m *Machine) controlPlane() bool { return m.Node.Has(config.ControlPlaneRole) }

// within is a context that ends with the machine's lease as well: who has lost one host goes on with the others.
func (m *Machine) within(ctx context.Context) (context.Context, func()) {
	if m.Lease == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.Lease, func() { cancel(context.Cause(m.Lease)) })
	return ctx, func() { stop(); cancel(nil) }
}

// Observe looks at machines, at some at a time. What it finds in the way of that becomes their Err.
func Observe(ctx context.Context, c *config.Cluster, machines []*Machine) {
	var g errgroup.Group
	g.SetLimit(AtATime)
	for _, m := range machines {
		g.Go(func() error {
			m.Observe(ctx, c)
			return nil
		})
	}
	g.Wait()
}

// AtATime is how many hosts are worked on at a time, where nobody says otherwise: more of them wait
// for processor and line, and take memory meanwhile.
const AtATime = 200

// Observe looks at a machine. What it finds in the way of that becomes its Err.
func (m *Machine) Observe(ctx context.Context, c *config.Cluster) {
	if m.Err != nil {
		return
	}
	if h, ok := m.Host.(foreseeing); ok {
		h.Prefetch(ctx, m.reads) // if it fails, so does what comes now
		m.reads = nil
	}
	m.Err = m.observe(ctx, c)
}

func (m *Machine) observe(ctx context.Context, c *config.Cluster) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		m.Journal, err = OpenJournal(gctx, m.Host)
		return err
	})
	g.Go(func() (err error) {
		m.Facts, err = Facts(gctx, m.Host)
		return err
	})
	g.Go(func() (err error) {
		m.Existing, err = existing(gctx, m.Host, c, m.Node)
		return err
	})
	g.Go(func() (err error) {
		m.node, _, err = NodeOf(gctx, m.Host)
		return err
	})
	if m.controlPlane() {
		g.Go(func() (err error) {
			m.manifests, err = readAll(gctx, m.Host, manifests.Path(manifests.APIServer), manifests.Path(manifests.ControllerManager))
			return err
		})
		g.Go(func() (err error) {
			t := &Target{Host: m.Host, Cluster: c}
			m.data, err = t.ownEtcdData(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	m.Node = c.Addressed(m.Node, m.Facts)
	return nil
}

// existing is Existing, with the files of an external etcd's client. All are asked for at once.
func existing(ctx context.Context, h host.Host, c *config.Cluster, n config.Node) (map[string][]byte, error) {
	return readAll(ctx, h, append(pki.Paths(n), givenPaths(c)...)...)
}

// readAll reads the files that are there, all at once.
func readAll(ctx context.Context, h host.Host, paths ...string) (map[string][]byte, error) {
	var mu sync.Mutex
	found := map[string][]byte{}
	g, ctx := errgroup.WithContext(ctx)
	for _, path := range paths {
		g.Go(func() error {
			b, err := h.ReadFile(ctx, path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			found[path] = b
			return err
		})
	}
	return found, g.Wait()
}

// givenPaths are files that somebody gives the control planes: those of an external etcd's client.
func givenPaths(c *config.Cluster) (paths []string) {
	if e := c.Spec.Etcd.External; e != nil {
		paths = slices.DeleteFunc([]string{e.CAFile, e.CertFile, e.KeyFile}, func(p string) bool { return p == "" })
	}
	return paths
}

// traces are signs that a control plane is, or once was, part of a cluster.
func (m *Machine) traces(c *config.Cluster) bool {
	for path := range m.Existing {
		key := strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".pub") // the first thing that a first run writes
		if !key && !slices.Contains(givenPaths(c), path) {
			return true
		}
	}
	return m.data != (etcdData{}) || m.Facts.Present[pki.KubeletConf] || m.Facts.Present[manifests.Path(manifests.APIServer)]
}

// shared are the files that all control planes have in common, of those that have them.
// Two that disagree are of two clusters, or damaged; nobody but their owner can tell which is right.
func shared(machines []*Machine, paths []string) (map[string][]byte, error) {
	all, whose := map[string][]byte{}, map[string]string{}
	for _, m := range machines {
		for _, path := range paths {
			b, ok := m.Existing[path]
			if !ok {
				continue
			}
			if have, ok := all[path]; ok && string(have) != string(b) {
				return nil, fmt.Errorf("%s is not the same on %s and on %s: they are of two clusters, or one was changed; take the wrong one out with `kubewright reset` on it", path, whose[path], m.Node.Name)
			}
			all[path], whose[path] = b, m.Node.Name
		}
	}
	return all, nil
}

// Complete fills into a defaulted document what the machines told: their addresses, an MTU that fits, and
// where nobody gave the cluster an address, a name that each host maps to itself. The address
// of one that is silent is the one that the running cluster (nil: there is none) knows.
func Complete(c *config.Cluster, machines []*Machine, live *config.Cluster) {
	c.Spec.Hosts = nil
	for _, m := range machines {
		if live != nil && m.Node.Address == "" {
			for _, n := range live.Spec.Hosts {
				if n.Name == m.Node.Name {
					m.Node.Address, m.Node.OtherAddress = n.Address, n.OtherAddress
				}
			}
		}
		c.Spec.Hosts = append(c.Spec.Hosts, m.Node)
	}
	link := 0
	for _, m := range machines {
		if mtu := m.Facts.MTUs[m.Node.IP()]; mtu > 0 && (link == 0 || mtu < link) {
			link = mtu
		}
	}
	c.FitMTU(live, link)
	if c.Spec.ControlPlane.Endpoint == "" {
		c.Spec.ControlPlane.Endpoint = net.JoinHostPort(c.Metadata.Name+config.InternalDomain, strconv.Itoa(int(c.Spec.ControlPlane.BindPort)))
	}
}
