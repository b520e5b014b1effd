package phases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Up brings all hosts of a document to what it says: each runs the phases of init or of
// join, and what those learn from a cluster, Up knows.
//
//   - A control plane that is a member of the cluster runs Init, which finds most of it done.
//   - The first of them, or of a cluster that is not there yet the first of all, does what is
//     of the cluster and not of a host: addons, say. Any control plane can be the first.
//   - Every other control plane runs JoinControlPlane, every other host Join.
type Up struct {
	Cluster  *config.Cluster
	Machines []*Machine // all hosts of the document, in its order
	// Only these hosts are changed, by name; empty: all.
	Only        []string
	Concurrency int // hosts that are changed at a time; 0: AtATime
	Bundle      *bundle.Bundle
	Patches     manifests.Patches
	Ignore      []string
	Skip        []string
	// PrepareOnly ends where only the cluster is missing: hosts have a runtime, a kubelet and their images.
	PrepareOnly bool
	Report      func(Event)
	Credentials func(registry string) (user, password string, err error)

	live *Discovery // what Live found
	// What Prepare finds.
	leader  *Machine
	members map[*Machine]bool
	shared  map[string][]byte
	secrets map[*Machine]*pki.Secrets
	api     *Client
	turns   *Turns
	changes atomic.Int64
	uploads chan struct{}
	// ended is closed when the leader's phases are, for whatever reason.
	ended     chan struct{}
	leaderErr error
	planning  bool // nobody waits for anything
}

// answering are the machines that can be acted on.
func (u *Up) answering() (all []*Machine) {
	for _, m := range u.Machines {
		if m.Err == nil {
			all = append(all, m)
		}
	}
	return all
}

// uploads go to so many hosts at a time: the line is full, and each takes memory.
const uploads = 100

func (u *Up) chosen(m *Machine) bool {
	return m.Err == nil && (len(u.Only) == 0 || slices.Contains(u.Only, m.Node.Name))
}

func (u *Up) controlPlanes() (all []*Machine) {
	for _, m := range u.Machines {
		if m.controlPlane() {
			all = append(all, m)
		}
	}
	return all
}

// Prepare decides who does what, and reads or makes what all control planes share. Nothing
// is changed. All machines have been observed.
func (u *Up) Prepare(ctx context.Context) error {
	var alive []*Machine
	for _, m := range u.controlPlanes() {
		if m.Err == nil {
			alive = append(alive, m)
		}
	}
	paths := pki.SharedPaths()
	if e := u.Cluster.Spec.Etcd.External; e != nil {
		paths = append(paths, e.CAFile, e.CertFile, e.KeyFile)
	}
	if err := u.kept(); err != nil {
		return &NotReadyError{err}
	}
	var err error
	if u.shared, err = shared(alive, paths); err != nil {
		return &NotReadyError{err}
	}
	if err := u.findMembers(ctx, alive); err != nil {
		return err
	}
	if u.leader == nil {
		if err := u.mayBegin(); err != nil {
			return &NotReadyError{err}
		}
		u.leader = first0(alive)
	}
	return u.makeSecrets()
}

// findMembers finds the control planes that a cluster is made of now.
func (u *Up) findMembers(ctx context.Context, alive []*Machine) error {
	u.members = map[*Machine]bool{}
	external := u.Cluster.Spec.Etcd.External != nil
	for _, m := range alive {
		if m.data != (etcdData{}) || external && m.Facts.Present[manifests.Path(manifests.APIServer)] {
			u.members[m] = true
		}
	}
	if !external && len(u.members) > 0 {
		if all, ok := u.askMembers(ctx, alive); ok {
			for m := range u.members {
				if all.Cluster != m.data.Cluster || !slices.ContainsFunc(all.Members, func(e EtcdMember) bool { return e.ID == m.data.Member && !e.Learner }) {
					delete(u.members, m) // it was removed, or never got a vote: it joins
				}
			}
		}
	}
	for _, m := range alive {
		if u.members[m] {
			u.leader = m
			return nil
		}
	}
	return nil
}

// askMembers asks one member after the other. Where none answers, whoever has data is taken for one.
func (u *Up) askMembers(ctx context.Context, alive []*Machine) (EtcdMembers, bool) {
	for _, m := range alive {
		tls, err := pki.EtcdClientOf(m.Existing)
		if !u.members[m] || err != nil {
			continue
		}
		url := "https://" + net.JoinHostPort(m.Node.Address, "2379")
		c := NewEtcdClient(m.Host, tls, func(context.Context) ([]string, error) { return []string{url}, nil })
		if all, err := c.Members(ctx); err == nil {
			return all, true
		}
	}
	return EtcdMembers{}, false
}

// mayBegin refuses to begin a cluster where there may be one.
func (u *Up) mayBegin() error {
	var silent, traced []string
	for _, m := range u.controlPlanes() {
		switch {
		case m.Err != nil:
			silent = append(silent, m.Node.Name)
		case m.traces() && u.shared[pki.CA+".crt"] == nil:
			traced = append(traced, m.Node.Name)
		}
	}
	if silent != nil {
		return fmt.Errorf("no control plane that answers has a cluster, and %s cannot be asked: it may have one, and a second one is not made beside it; bring it up, or take it out of the document", strings.Join(silent, ", "))
	}
	if traced != nil {
		return fmt.Errorf("%s was part of a cluster whose certificate authority is on no control plane here: name the control plane that has it in the document, or take the host out with `kubewright reset`", strings.Join(traced, ", "))
	}
	return nil
}

func first0[T any](list []T) (zero T) {
	if len(list) == 0 {
		return zero
	}
	return list[0]
}

func (u *Up) makeSecrets() error {
	if u.leader == nil {
		return &NotReadyError{errors.New("no control plane answers, so nothing can be done")}
	}
	now := time.Now()
	u.secrets = map[*Machine]*pki.Secrets{}
	make1 := func(m *Machine) (err error) {
		if m == u.leader && u.shared[pki.CA+".crt"] == nil {
			u.secrets[m], err = pki.New(u.Cluster, m.Node, m.Existing, now)
		} else {
			u.secrets[m], err = pki.Join(u.Cluster, m.Node, m.Existing, u.shared, now)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Node.Name, err)
		}
		return nil
	}
	if err := make1(u.leader); err != nil {
		return &NotReadyError{err}
	}
	for path, b := range u.secrets[u.leader].Shared() {
		u.shared[path] = b
	}
	var all *multierror.Error
	for _, m := range u.answering() {
		if m != u.leader {
			if err := make1(m); err != nil {
				all = multierror.Append(all, err)
			}
		}
	}
	if err := config.Errors(all); err != nil {
		return &NotReadyError{err}
	}
	kubeconfig, err := u.secrets[u.leader].ClientConfig()
	if err != nil {
		return err
	}
	client, err := NewClient(anyOf{u: u}, kubeconfig)
	if err != nil {
		return err
	}
	u.api = client.Within(u.Cluster.Spec.Timeouts.KubernetesAPICall.Duration)
	return nil
}

// ownAddress dials a control plane's own address on the control plane, whatever name or address of
// the cluster was asked for.
type ownAddress struct {
	host.Host
	address string
}

func (h ownAddress) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return h.Host.Dial(ctx, network, net.JoinHostPort(h.address, port))
}

// anyOf reaches the API server of any control plane that has one, the leader's first.
type anyOf struct {
	host.Host
	u *Up
}

func (a anyOf) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := ownAddress{a.u.leader.Host, a.u.leader.Node.Address}.Dial(ctx, network, addr)
	for _, m := range a.u.answering() {
		if err == nil {
			break
		}
		if m != a.u.leader && a.u.members[m] {
			var e error
			if conn, e = (ownAddress{m.Host, m.Node.Address}).Dial(ctx, network, addr); e == nil {
				err = nil
			}
		}
	}
	return conn, err
}

// Run changes what has to be changed. The error holds those of all hosts that failed.
func (u *Up) Run(ctx context.Context) error {
	if err := u.preflight(ctx); err != nil {
		return err
	}
	if len(u.members) > 0 {
		u.turns = NewTurns(len(u.Machines), u.ready)
	}
	u.ended, u.uploads = make(chan struct{}), make(chan struct{}, uploads)
	places := make(chan struct{}, cmp.Or(u.Concurrency, AtATime))
	var mu sync.Mutex
	failures := map[*Machine]error{}
	var wg sync.WaitGroup
	for _, m := range u.order() {
		if !u.chosen(m) {
			continue
		}
		places <- struct{}{} // the leader first: the others wait for its API server
		wg.Go(func() {
			defer func() { <-places }()
			t, list := u.target(m)
			list = without(list, "preflight")
			err := Run(ctx, list, t, u.skips(list))
			if u.turns != nil {
				err = u.turns.done(ctx, m.Node.Name, err)
			}
			if err == nil {
				m.remember(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			failures[m] = err
			if m == u.leader {
				u.leaderErr = err
				close(u.ended)
			}
		})
	}
	if !u.chosen(u.leader) {
		close(u.ended)
	}
	wg.Wait()
	var all *multierror.Error
	for _, m := range u.Machines {
		if err := failures[m]; err != nil {
			all = multierror.Append(all, fmt.Errorf("%s: %w", m.Node.Name, err))
		}
	}
	for _, m := range u.Machines {
		if m.Err != nil {
			all = multierror.Append(all, fmt.Errorf("%s was left as it is: %w", m.Node.Name, m.Err))
		}
	}
	return config.Errors(all)
}

// skips are those phases of Skip that a list has: workers have no etcd.
func (u *Up) skips(list []Phase) []string {
	return slices.DeleteFunc(slices.Clone(u.Skip), func(name string) bool { return len(Select(list, name)) == 0 })
}

// Changes is how much was changed so far, on all hosts and in the API.
func (u *Up) Changes() int { return int(u.changes.Load()) }

// UpPhases are those of all hosts, each name once.
func UpPhases() []Phase {
	var all []Phase
	for _, list := range [][]Phase{Init(), JoinControlPlane(), Join()} {
		for _, p := range list {
			if len(Select(all, p.Name)) == 0 {
				all = append(all, p)
			}
		}
	}
	return all
}

// order has the leader first, then the other control planes.
func (u *Up) order() []*Machine {
	all := slices.Clone(u.Machines)
	rank := func(m *Machine) int {
		switch {
		case m == u.leader:
			return 0
		case m.controlPlane():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *Machine) int { return rank(a) - rank(b) })
	return all
}

// preflight looks at all hosts, and says everything that is in the way in one report, before any is touched.
func (u *Up) preflight(ctx context.Context) error {
	if skipped(u.Skip, "preflight") {
		return nil
	}
	var mu sync.Mutex
	var all *multierror.Error
	var g errgroup.Group
	g.SetLimit(AtATime)
	for _, m := range u.answering() {
		if !u.chosen(m) {
			continue
		}
		g.Go(func() error {
			t, list := u.target(m)
			t.Journal, t.Facts.Present = t.Journal.only(), u.ownFacts(m)
			if err := Run(ctx, Select(list, "preflight"), t, nil); err != nil {
				mu.Lock()
				defer mu.Unlock()
				all = multierror.Append(all, err)
			}
			return nil
		})
	}
	g.Wait()
	here := &Target{Ignore: u.Ignore, Report: u.Report, phase: "preflight"}
	if err := here.judgeAll(u.checkAll()); err != nil {
		all = multierror.Append(all, err)
	}
	if err := config.Errors(all); err != nil {
		return &NotReadyError{err}
	}
	return nil
}

// target is what the phases of a machine act on, and which those are.
func (u *Up) target(m *Machine) (*Target, []Phase) {
	t, list := u.bare(m)
	hooks := m.Node.Hooks.Over(u.Cluster.Spec.Hooks)
	if u.PrepareOnly { // neither init nor join comes to its end
		list, hooks.AfterInit, hooks.AfterJoin = prepare(), nil, nil
	}
	return t, hooked(list, u.hookKind(m), hooks)
}

// bare is target without hooks.
func (u *Up) bare(m *Machine) (*Target, []Phase) {
	t := &Target{
		Cluster: u.Cluster, Node: m.Node, Facts: m.Facts, Host: m.Host, Secrets: u.secrets[m], Bundle: u.Bundle, Journal: m.Journal,
		Ledger: true, Patches: u.Patches, Ignore: u.Ignore, Report: u.Report, Credentials: u.Credentials, Turns: u.turns,
		// Nobody joins by a token here; the one who wants to makes it.
		JoinToken: func(context.Context) (addons.Token, error) { return addons.Token{}, nil }, Tokens: []InitToken{},
		API: u.api, Changes: &u.changes, had: &m.had, Uploads: u.uploads,
	}
	if m == u.leader || u.members[m] {
		t.Further = len(u.members) > 0
		if client, err := u.clientOn(m); err == nil {
			t.API = client
		}
		list := Init()
		if m != u.leader {
			list = slices.DeleteFunc(list, func(p Phase) bool { return p.OfCluster })
			for i := range list {
				list[i].After = slices.DeleteFunc(slices.Clone(list[i].After), func(name string) bool { return len(Select(list, name)) == 0 })
			}
		}
		list = append(list, nodeReady("wait-control-plane", "mark-control-plane"))
		if m == u.leader {
			list = append(list, Phase{Name: "wait-dns", Short: "wait until the cluster's DNS is available", After: []string{"addon/coredns", "wait-node"}, Waits: true, Run: waitDNS})
		}
		return t, list
	}
	t.Discover = u.discover(m)
	if m.controlPlane() {
		t.Admit = u.admit(m)
		return t, append(JoinControlPlane(), nodeReady("wait-control-plane", "mark-control-plane"))
	}
	return t, append(Join(),
		Phase{Name: "mark-node", Short: "label and taint the node", After: []string{"wait-kubelet"}, Run: markJoined},
		nodeReady("mark-node"))
}

func nodeReady(after ...string) Phase {
	return Phase{Name: "wait-node", Short: "wait until the node is ready", After: after, Waits: true, Run: waitNode}
}

// clientOn is the API as the control plane's own server has it.
func (u *Up) clientOn(m *Machine) (*Client, error) {
	kubeconfig, err := u.secrets[m].ClientConfig()
	if err != nil {
		return nil, err
	}
	client, err := NewClient(m.Host, kubeconfig)
	if err != nil {
		return nil, err
	}
	return client.Within(u.Cluster.Spec.Timeouts.KubernetesAPICall.Duration), nil
}

// discover says at once what the cluster is, and waits until it answers.
func (u *Up) discover(m *Machine) func(context.Context) (*Discovery, error) {
	return func(ctx context.Context) (*Discovery, error) {
		kubelet, err := manifests.KubeletConfiguration(u.Cluster)
		if err != nil {
			return nil, err
		}
		d := &Discovery{Server: pki.ControlPlaneURL(u.Cluster, m.Node), CA: u.secrets[u.leader].CACert(), Cluster: u.Cluster, KubeletConfiguration: kubelet, API: u.api}
		if u.Bundle != nil {
			d.Lock = u.Bundle.Lock().Bytes()
		}
		if u.planning {
			d.API = u.planned(ctx)
			return d, nil
		}
		return d, u.answers(ctx)
	}
}

// answers waits for the API server, or for the end of the one who should start it.
func (u *Up) answers(ctx context.Context) error {
	limit := u.Cluster.Spec.Timeouts.Discovery.Duration
	return untilFinal(ctx, limit, "the cluster's API server", func(ctx context.Context) error {
		err := u.api.Ready(ctx, "/readyz/ping")
		if err == nil {
			return nil
		}
		select {
		case <-u.ended:
			if u.leaderErr != nil {
				return finalError{fmt.Errorf("there is no cluster to join, as %s failed", u.leader.Node.Name)}
			}
		default:
		}
		return err
	})
}

// admit gives a further control plane what the others have.
func (u *Up) admit(m *Machine) func(context.Context, *Target) (*Admission, error) {
	var mu sync.Mutex
	var found *Admission
	return func(ctx context.Context, t *Target) (*Admission, error) {
		mu.Lock()
		defer mu.Unlock()
		if found != nil {
			return found, nil
		}
		local, err := u.clientOn(m)
		if err != nil {
			return nil, err
		}
		a := &Admission{Secrets: u.secrets[m], API: u.api, Local: local, Files: externalEtcdFiles(u.Cluster, missing(u.shared, m.Existing))}
		if u.planning {
			a.API, a.Local = u.planned(ctx), u.planned(ctx)
		}
		if u.planning && len(u.members) == 0 {
			a.Etcd = &EtcdRecorder{Live: EtcdMembers{Members: []EtcdMember{{ID: 1, Name: u.leader.Node.Name, PeerURL: manifests.PeerURL(u.leader.Node.IP())}}}}
		} else if u.Cluster.Spec.Etcd.External == nil {
			tls, err := a.Secrets.EtcdClient()
			if err != nil {
				return nil, err
			}
			a.Etcd = NewEtcdClient(m.Host, tls, etcdEndpoints(u.api))
		}
		found = a
		return a, nil
	}
}

// missing is what of all is not there yet.
func missing(all, there map[string][]byte) map[string][]byte {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(path string, _ []byte) bool { _, ok := there[path]; return ok })
	return out
}

// without is a list from which a phase was taken.
func without(list []Phase, name string) []Phase {
	var rest []Phase
	for _, p := range list {
		if p.Name == name {
			continue
		}
		p.After = slices.DeleteFunc(slices.Clone(p.After), func(n string) bool { return n == name })
		rest = append(rest, p)
	}
	return rest
}

func markJoined(ctx context.Context, t *Target) error {
	t, _, err := t.joined(ctx)
	if err != nil {
		return err
	}
	return markControlPlane(ctx, t)
}

// waitNode waits until the kubelet and the pod network are ready.
func waitNode(ctx context.Context, t *Target) error {
	bounded, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.KubeletHealthCheck.Duration)
	defer cancel()
	last := ""
	_, err := t.API.Until(bounded, ref("v1", "Node", "", t.Node.Name), func(o addons.Object) bool {
		last = conditionMessage(o, "Ready")
		return condition(o, "Ready") == "True"
	})
	if err != nil && ctx.Err() == nil {
		return t.withJournal(ctx, "kubelet", fmt.Errorf("node %s did not become ready: %s: %w", t.Node.Name, last, err))
	}
	return err
}

func waitDNS(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.DNS.Disabled {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration)
	defer cancel()
	last := ""
	_, err := t.API.Until(bounded, ref("apps/v1", "Deployment", "kube-system", "coredns"), func(o addons.Object) bool {
		last = conditionMessage(o, "Available")
		return condition(o, "Available") == "True"
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("CoreDNS did not become available: %s: see `kubectl -n kube-system describe pods -l k8s-app=kube-dns`: %w", last, err)
	}
	return err
}

func conditionMessage(o addons.Object, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			s, _ := m["message"].(string)
			return s
		}
	}
	return ""
}

// ready waits until the control planes of a running cluster are well: all voters of etcd,
// and every API server that was there before. With a name it asks instead whether etcd would
// keep its majority while that one restarts.
func (u *Up) ready(ctx context.Context, restarts string) error {
	limit := u.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration
	if restarts != "" {
		limit = 10 * time.Second
	}
	return until(ctx, limit, "the control planes", func(ctx context.Context) error {
		if err := u.voters(ctx, restarts); err != nil {
			return err
		}
		for m := range u.members {
			client, err := u.clientOn(m)
			if err == nil && restarts == "" {
				err = client.Ready(ctx, "/readyz")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.Node.Name, err)
			}
		}
		return nil
	})
}

// voters is one look at etcd.
func (u *Up) voters(ctx context.Context, restarts string) error {
	if u.Cluster.Spec.Etcd.External != nil {
		return nil
	}
	all, serving, err := u.etcdNow(ctx)
	if err != nil {
		return err
	}
	var down []string
	voters := 0
	for _, e := range all.Members {
		if e.Learner {
			continue
		}
		voters++
		if e.Name != restarts && !serving[e.ID] {
			down = append(down, e.Name)
		}
	}
	switch {
	case len(down) == 0 && (restarts == "" || voters < 3), restarts != "" && voters-len(down)-1 >= voters/2+1:
		return nil
	case restarts == "":
		return fmt.Errorf("etcd on %s does not answer", strings.Join(down, ", "))
	}
	return fmt.Errorf("of %d members of etcd %s does not answer: if %s were restarted now, there would be no majority; bring that up first, or remove it", voters, strings.Join(down, ", "), restarts)
}
