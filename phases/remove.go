package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Removal is how a host is taken out of a cluster.
type Removal struct {
	Dead  bool          // it is gone, whatever the cluster thinks of it
	Force bool          // pods that nobody would start elsewhere end, too
	Grace time.Duration // for pods to end; 0: their own
	Limit time.Duration // for all pods to be gone; 0: ten minutes
}

// Remove takes hosts out of the cluster, one after the other: its pods go elsewhere, its
// member leaves etcd, its Node is deleted, and the host is brought back to what it was. A
// host that does not answer is taken out of the cluster alone.
func (u *Up) Remove(ctx context.Context, names []string, r Removal) error {
	for _, name := range names {
		i := slices.IndexFunc(u.Machines, func(m *Machine) bool { return m.Node.Name == name })
		m := &Machine{Node: config.Node{Name: name}, Err: errors.New("the document does not list it, so nobody knows how to reach it")}
		if i >= 0 {
			m = u.Machines[i]
		}
		err := u.follow(m)
		if err == nil {
			err = u.remove(ctx, m, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		u.Machines = slices.DeleteFunc(slices.Clone(u.Machines), func(other *Machine) bool { return other == m })
		delete(u.members, m)
	}
	return nil
}

// follow has another control plane lead, where it is the leader that goes.
func (u *Up) follow(gone *Machine) error {
	for _, m := range u.answering() {
		if u.leader == gone && m != gone && u.members[m] {
			u.leader = m
			return u.connect()
		}
	}
	return nil
}

// RemovePhases are those of a host that is removed.
func RemovePhases() []Phase {
	return append([]Phase{{Name: "drain", Short: "have the node's pods started elsewhere"}}, Reset()...)
}

func (u *Up) remove(ctx context.Context, m *Machine, r Removal) error {
	if err := u.mayRemove(ctx, m, r); err != nil {
		return &NotReadyError{err}
	}
	if err := u.forget(ctx, m); err != nil {
		return err
	}
	ctx, end := m.within(ctx)
	defer end()
	t := &Target{Cluster: u.Cluster, Node: m.Node, Facts: m.Facts, Host: m.Host, API: u.api, Report: u.Report, Changes: &u.changes, Journal: m.Journal}
	alive := m.Err == nil
	if !alive {
		t.Journal = nil
	}
	drained := RemovePhases()[0]
	drained.Run = func(ctx context.Context, t *Target) error { return u.drain(ctx, t, r, alive) }
	left := Phase{Name: "leave-etcd", Short: "take this host's member out of etcd", Run: u.dropMember}
	deleted := Phase{Name: "delete-node", Short: "delete the Node object", Run: func(ctx context.Context, t *Target) error {
		o := ref("v1", "Node", "", t.Node.Name)
		if _, err := t.API.Get(ctx, o); isNotFound(err) {
			return nil
		}
		t.changed(1)
		return t.API.Delete(ctx, o)
	}}
	if !alive {
		left.After, deleted.After = []string{"drain"}, []string{"leave-etcd"}
		return Run(ctx, []Phase{drained, left, deleted}, t, u.skips([]Phase{drained, left, deleted}))
	}
	list := []Phase{drained}
	for _, p := range Reset() {
		switch p.Name {
		case "kubelet-stop":
			p.After = []string{"drain"}
		case "delete-node":
			deleted.After = p.After
			p = deleted
		case "leave-etcd":
			left.After = p.After
			p = left
		}
		list = append(list, p)
	}
	list = hooked(list, "reset", m.Node.Hooks.Over(u.Cluster.Spec.Hooks))
	return Run(ctx, list, t, u.skips(list))
}

// mayRemove refuses what would cost the cluster its majority, or its last control plane.
func (u *Up) mayRemove(ctx context.Context, m *Machine, r Removal) error {
	node, err := u.api.Get(ctx, ref("v1", "Node", "", m.Node.Name))
	switch {
	case err != nil && !isNotFound(err):
		return err
	case err == nil && m.Err != nil && condition(node, "Ready") == "True" && !r.Dead:
		return fmt.Errorf("it cannot be reached (%w), and its node is ready: it may be at work. Make it reachable, or if it is gone say so with --dead", m.Err)
	}
	if m == u.leader {
		return errors.New("it is the only control plane that answers: take the whole cluster down with `kubewright down`, or bring up another control plane first")
	}
	var unknown error
	if err != nil && m.Host == nil && !slices.Contains(u.Machines, m) { // but perhaps among etcd's members: its node goes before it
		unknown = errors.New("neither the document nor the cluster has a host of this name: see `kubewright status`")
	}
	if u.Cluster.Spec.Etcd.External != nil {
		return unknown
	}
	all, serving, err := u.etcdNow(ctx)
	if err != nil {
		return err
	}
	own := u.memberOf(all, m)
	if own == nil {
		return unknown
	}
	if own.Learner {
		return nil
	}
	voters, up := 0, 0
	var down []string
	for _, e := range all.Members {
		if e.Learner || e.ID == own.ID {
			continue
		}
		voters++
		if serving[e.ID] {
			up++
		} else {
			down = append(down, e.String())
		}
	}
	if up < voters/2+1 {
		return fmt.Errorf("without it %d of etcd's %d members would answer, which is no majority: first bring up, or remove, %s", up, voters, strings.Join(down, ", "))
	}
	return nil
}

// memberOf is a machine's member of etcd; nil where it has none.
func (u *Up) memberOf(all EtcdMembers, m *Machine) *EtcdMember {
	// By its data, which are surest; else by the name with which it was started; by its address only before that.
	for _, is := range []func(EtcdMember) bool{
		func(e EtcdMember) bool { return m.data.Member != 0 && e.ID == m.data.Member },
		func(e EtcdMember) bool { return e.Name == m.Node.Name },
		func(e EtcdMember) bool {
			return !e.started() && m.Node.Address != "" && e.PeerURL == manifests.PeerURL(m.Node.IP())
		},
	} {
		if i := slices.IndexFunc(all.Members, is); i >= 0 {
			return &all.Members[i]
		}
	}
	return nil
}

// etcdNow are etcd's members, and which of them answer as voters.
func (u *Up) etcdNow(ctx context.Context) (all EtcdMembers, serving map[uint64]bool, err error) {
	c, err := u.etcd()
	if err != nil {
		return all, nil, err
	}
	if all, err = c.Members(ctx); err != nil {
		return all, nil, err
	}
	answers := make([]bool, len(all.Members))
	var g errgroup.Group
	for i, e := range all.Members {
		if !e.Learner {
			g.Go(func() error {
				answers[i] = c.Serves(ctx, e.clientURL()) == nil
				return nil
			})
		}
	}
	g.Wait()
	serving = map[uint64]bool{}
	for i, e := range all.Members {
		serving[e.ID] = answers[i]
	}
	return all, serving, nil
}

// dropMember removes the host's member, if it has one still.
func (u *Up) dropMember(ctx context.Context, t *Target) error {
	if u.Cluster.Spec.Etcd.External != nil {
		return nil
	}
	c, err := u.etcd()
	if err != nil {
		return err
	}
	m := &Machine{Node: t.Node}
	for _, known := range u.Machines {
		if known.Node.Name == t.Node.Name {
			m = known
		}
	}
	return until(ctx, leaving, "etcd", func(ctx context.Context) error {
		all, err := c.Members(ctx)
		if err != nil {
			return err
		}
		own := u.memberOf(all, m)
		if own == nil {
			return nil
		}
		t.changed(1)
		return c.Remove(ctx, own.ID)
	})
}

// forget tells the others, before it happens, that a host goes: the cluster's document, and
// of a control plane those that balance over all of them.
func (u *Up) forget(ctx context.Context, gone *Machine) error {
	cluster := *u.Cluster
	cluster.Spec.Hosts = slices.DeleteFunc(slices.Clone(cluster.Spec.Hosts), func(n config.Node) bool { return n.Name == gone.Node.Name })
	u.Cluster = &cluster
	var g errgroup.Group
	for _, m := range u.answering() {
		if m == gone || m.node == "" { // who has not joined yet has nothing to forget
			continue
		}
		g.Go(func() error {
			t, list := u.target(m)
			chosen := append(Select(list, "endpoint"), Select(list, "load-balancer")...)
			err := Run(ctx, chosen, t, u.skips(chosen))
			if m == u.leader && err == nil {
				t.Cluster = u.storedWithout(gone)
				err = Run(ctx, Select(list, "upload-config"), t, u.skips(Select(list, "upload-config")))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.Node.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// storedWithout is the document that the cluster holds, not the one that a next up would apply, without a host.
func (u *Up) storedWithout(gone *Machine) *config.Cluster {
	stored := *u.Cluster
	if u.live != nil {
		stored = *u.live.Cluster
	}
	stored.Spec.Hosts = slices.DeleteFunc(slices.Clone(stored.Spec.Hosts), func(n config.Node) bool { return n.Name == gone.Node.Name })
	return &stored
}

// Down resets every host that answers, all at once: the cluster ends. Hosts that are not of one and the
// same cluster, the document's, are refused, unless forced.
func (u *Up) Down(ctx context.Context, force bool) error {
	if err := u.oneCluster(); err != nil && !force {
		return &NotReadyError{fmt.Errorf("%w\nmend the document, or reset them all the same with --force", err)}
	}
	return u.each(ctx, func(ctx context.Context, m *Machine) error {
		t := &Target{Cluster: u.Cluster, Node: m.Node, Facts: m.Facts, Host: m.Host, Report: u.Report, Changes: &u.changes, Journal: m.Journal}
		if m.node != "" {
			t.Node.Name = m.node
		}
		var list []Phase
		for _, p := range Reset() { // nobody stays whom it would matter to
			if p.Name == "delete-node" || p.Name == "leave-etcd" {
				continue
			}
			p.After = slices.DeleteFunc(slices.Clone(p.After), func(name string) bool { return name == "delete-node" || name == "leave-etcd" })
			if p.Name == "remove-pods" {
				p.After = append(p.After, "kubelet-stop")
			}
			list = append(list, p)
		}
		list = hooked(list, "reset", m.Node.Hooks.Over(u.Cluster.Spec.Hooks))
		return Run(ctx, list, t, u.skips(list))
	})
}

// oneCluster finds hosts that are nodes of another cluster, or of another name.
func (u *Up) oneCluster() error {
	var all *multierror.Error
	var ca []byte
	whose := ""
	for _, m := range u.answering() {
		if !u.chosen(m) {
			continue
		}
		if m.node != "" && m.node != m.Node.Name {
			all = multierror.Append(all, fmt.Errorf("the host at %s is the node %s, and the document calls it %s", m.Node.Address, m.node, m.Node.Name))
		}
		if name := clusterName.FindSubmatch(m.manifests[manifests.Path(manifests.ControllerManager)]); name != nil && string(name[1]) != u.Cluster.Metadata.Name {
			all = multierror.Append(all, fmt.Errorf("%s is a control plane of the cluster %s, and the document's is %s", m.Node.Name, name[1], u.Cluster.Metadata.Name))
		}
		own := bytes.TrimSpace(m.Existing[pki.CA+".crt"])
		switch {
		case len(own) == 0:
		case ca == nil:
			ca, whose = own, m.Node.Name
		case !bytes.Equal(ca, own):
			all = multierror.Append(all, fmt.Errorf("%s and %s are of two clusters, as their CAs show", whose, m.Node.Name))
		}
	}
	return config.Errors(all)
}

// each acts on all chosen machines at once, and has the errors of all.
func (u *Up) each(ctx context.Context, f func(context.Context, *Machine) error) error {
	errs := make([]error, len(u.Machines))
	var g errgroup.Group
	if u.Concurrency > 0 {
		g.SetLimit(u.Concurrency)
	}
	for i, m := range u.Machines {
		if errs[i] = m.Err; !u.chosen(m) {
			continue
		}
		g.Go(func() error {
			ctx, end := m.within(ctx)
			defer end()
			errs[i] = f(ctx, m)
			return nil
		})
	}
	g.Wait()
	var all *multierror.Error
	for i, m := range u.Machines {
		switch {
		case errs[i] == nil:
		case m.Err != nil:
			all = multierror.Append(all, fmt.Errorf("%s was left as it is: %w", m.Node.Name, m.Err))
		default:
			all = multierror.Append(all, fmt.Errorf("%s: %w", m.Node.Name, errs[i]))
		}
	}
	return config.Errors(all)
}
