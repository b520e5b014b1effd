package phases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-multierror"

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
	Acquires    bool // there will be a Bundle, of which nothing is known yet: nobody but Preflight does with that
	Patches     manifests.Patches
	Material    addons.Material // of the pod network
	Ignore      []string
	Skip        []string
	// PrepareOnly ends where only the cluster is missing: hosts have a runtime, a kubelet and their images.
	PrepareOnly bool
	Report      func(Event)
	Began       time.Time // the run
	Credentials func(registry string) (user, password string, err error)

	live *Discovery // what Live found
	// What Prepare finds.
	leader  *Machine
	members map[*Machine]bool
	alone   EtcdMember // etcd's only one, where etcd answers
	shared  map[string][]byte
	secrets map[*Machine]*pki.Secrets
	api     *Client
	turns   *Turns
	changes atomic.Int64
	// moved is closed when the leader has all that is sent to it: nobody gets far before its API server runs.
	moved   chan struct{}
	uploads chan struct{}
	// ended is closed when the leader's phases are, for whatever reason.
	ended     chan struct{}
	leaderErr error
	planning  bool // nobody waits for anything

	mu      sync.Mutex
	clients map[*Machine]*Client     // of their own API servers
	etcds   map[*Machine]*EtcdClient // as seen from them
	before  map[string]bool          // which control planes were well before the turn of one
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
	paths := append(pki.SharedPaths(), givenPaths(u.Cluster)...)
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
	// Data of etcd make a member, but without the CA of its cluster nothing that fits can be made.
	if u.leader == nil || u.shared[pki.CA+".crt"] == nil {
		if err := u.mayBegin(); err != nil {
			return &NotReadyError{err}
		}
	}
	if u.leader == nil {
		if len(alive) > 0 {
			u.leader = alive[0]
		}
		if u.leader != nil && !u.chosen(u.leader) {
			return &NotReadyError{fmt.Errorf("there is no cluster yet, and --only leaves out %s, which would begin it", u.leader.Node.Name)}
		}
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
			if len(all.Members) == 1 {
				u.alone = all.Members[0]
			}
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

// CheckControlPlanes refuses to begin a cluster, with an etcd of its own, of an even number of them.
func CheckControlPlanes(planes int) error {
	if planes%2 == 0 {
		return fmt.Errorf("%d control planes: etcd on an even number of hosts survives no more failures than on one fewer, and has more that can fail: begin with %d or %d", planes, planes-1, planes+1)
	}
	return nil
}

// mayBegin refuses to begin a cluster where there may be one.
func (u *Up) mayBegin() error {
	var silent, traced []string
	var why *multierror.Error
	behind := true // all who are silent are, and their jump host is
	for _, m := range u.controlPlanes() {
		switch {
		case m.Err != nil:
			silent, why = append(silent, m.Node.Name), multierror.Append(why, m.Err)
			behind = behind && errors.As(m.Err, new(*host.BehindError))
		case m.traces(u.Cluster) && u.shared[pki.CA+".crt"] == nil:
			traced = append(traced, m.Node.Name)
		}
	}
	made := u.Cluster.Spec.Provider.Name == "aws" // as many as the document says, which is an odd number, though some may not be there yet
	if !made && u.Cluster.Spec.Etcd.External == nil && u.leader == nil {
		if err := CheckControlPlanes(len(u.controlPlanes())); err != nil {
			return err
		}
	}
	if silent != nil {
		next := "bring it up, or take it out of the document"
		switch {
		case behind:
			next = "see to the jump host, or to what leads to it, first"
		case made:
			next = "bring it up, or if it has none, terminate it in EC2, and `kubewright up` makes another"
		}
		return fmt.Errorf("no control plane that answers has a cluster, and %s cannot be asked: it may have one, and a second one is not made beside it; %s: %w", strings.Join(silent, ", "), next, config.Errors(why))
	}
	if traced != nil {
		return fmt.Errorf("%s was part of a cluster whose certificate authority is on no control plane here: name the control plane that has it in the document, or take the host out with `kubewright reset`", strings.Join(traced, ", "))
	}
	return nil
}

// secretsOf reads or makes what is secret on a machine. CAs are made for the one that begins a cluster
// alone; of an earlier run that was cut short some of them may be there.
func (u *Up) secretsOf(m *Machine, now time.Time) (err error) {
	make := pki.Join
	if m == u.leader && len(u.members) == 0 {
		make = pki.Begin
	}
	if u.secrets[m], err = make(u.Cluster, m.Node, m.Existing, u.shared, now); err != nil {
		return fmt.Errorf("%s: %w", m.Node.Name, err)
	}
	return nil
}

func (u *Up) makeSecrets() error {
	if u.leader == nil {
		return &NotReadyError{errors.New("no control plane answers, so nothing can be done")}
	}
	now := time.Now()
	u.secrets = map[*Machine]*pki.Secrets{}
	if err := u.secretsOf(u.leader, now); err != nil {
		return &NotReadyError{err}
	}
	for path, b := range u.secrets[u.leader].Shared() {
		u.shared[path] = b
	}
	var all *multierror.Error
	for _, m := range u.answering() {
		if m != u.leader {
			if err := u.secretsOf(m, now); err != nil {
				all = multierror.Append(all, err)
			}
		}
	}
	if err := config.Errors(all); err != nil {
		return &NotReadyError{err}
	}
	return u.connect()
}

// connect leads to the API of the cluster, by the name that all of its servers have.
func (u *Up) connect() error {
	kubeconfig, err := u.secrets[u.leader].ClientConfigAt(pki.ControlPlaneURL(u.Cluster, u.leader.Node))
	if err != nil {
		return err
	}
	any := anyOf{doors: []ownAPI{u.leader.ownAPI(u.Cluster)}}
	for _, m := range u.answering() {
		if m != u.leader && u.members[m] {
			any.doors = append(any.doors, m.ownAPI(u.Cluster))
		}
	}
	client, err := NewClient(any, kubeconfig)
	if err != nil {
		return err
	}
	u.api = client.Within(u.Cluster.Spec.Timeouts.KubernetesAPICall.Duration)
	return nil
}

// ownAPI dials the API server of a control plane on it, whatever name and port of the cluster was asked for.
type ownAPI struct {
	host.Host
	at string
}

func (m *Machine) ownAPI(c *config.Cluster) ownAPI {
	return ownAPI{m.Host, net.JoinHostPort(m.Node.Address, strconv.Itoa(int(cmp.Or(c.Spec.ControlPlane.BindPort, 6443))))}
}

func (h ownAPI) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return h.Host.Dial(ctx, network, h.at)
}
