package phases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
	"github.com/kubewright/kubewright/reach"
)

// preflight looks at all hosts, and says everything that is in the way in one report, before any is touched.
func (u *Up) preflight(ctx context.Context, network bool) error {
	if skipped(u.Skip, "preflight") {
		return nil
	}
	_, _, err := u.look(ctx, network && !u.PrepareOnly && !slices.Contains(u.Skip, Reach.Name), false)
	return err
}

// Preflight is what was found in the way, on all hosts.
type Preflight struct {
	Findings []HostFinding `json:"findings"`
	Network  reach.Result  `json:"network"`
}

// HostFinding is a finding, and on which host; of none where it is of several.
type HostFinding struct {
	Host    string `json:"host,omitempty"`
	Name    string `json:"name"` // for --ignore-preflight-errors
	Message string `json:"message"`
	Warning bool   `json:"warning,omitempty"` // or ignored
}

// Preflight looks at all hosts and at the network between them, whether there is a cluster or not. What is
// in the way is an error as well.
func (u *Up) Preflight(ctx context.Context) (Preflight, error) {
	var p Preflight
	var err error
	p.Network, p.Findings, err = u.look(ctx, !slices.Contains(u.Skip, Reach.Name), true)
	if p.Network.Ways == nil { // nobody looked: in JSON it is a list all the same
		p.Network = reach.Result{Ways: []reach.Way{}, Packets: []reach.Packet{}, Unseen: p.Network.Unseen}
	}
	return p, err
}

// look is preflight: of each host, of all by each other, and, at the same time, of the network between them.
func (u *Up) look(ctx context.Context, network, all bool) (found reach.Result, heard []HostFinding, err error) {
	var mu sync.Mutex
	var failures *multierror.Error
	heard = []HostFinding{} // a list in JSON, too, where nothing is found
	hear := func(t *Target) {
		t.finds = func(f Finding) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, HostFinding{t.Node.Name, f.Name, f.Message, f.Warning})
		}
	}
	fail := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			failures = multierror.Append(failures, err)
		}
	}
	here := &Target{Ignore: u.Ignore, Report: u.Report, phase: "preflight"}
	hear(here)
	var g errgroup.Group
	g.SetLimit(AtATime)
	var between []Finding
	var ways sync.WaitGroup
	if network {
		ways.Go(func() { found, between = u.reachable(ctx, all) })
	}
	for _, m := range u.answering() {
		if !u.chosen(m) {
			continue
		}
		g.Go(func() error {
			t, list := u.target(m)
			hear(t)
			t.Journal, t.Facts.Present = t.Journal.only(), u.ownFacts(m)
			var unready *NotReadyError
			if err := Run(ctx, Select(list, "preflight"), t, nil); !errors.As(err, &unready) { // what is found is heard
				fail(err)
			}
			if t.Discover != nil && m.node == "" { // what a host finds out by itself only when it has found the cluster
				t.phase = "preflight"
				_ = t.judged(append(checkKubelet(u.Cluster.Spec.Kubelet, m.Facts), overlaps(u.Cluster, m.Facts)...))
			}
			return nil
		})
	}
	g.Wait()
	ways.Wait()
	if all {
		for _, m := range u.Machines {
			if m.Err != nil {
				between = append(between, Finding{Name: "Reachable", Message: fmt.Sprintf("%s was not looked at: %v", m.Node.Name, m.Err)})
			}
		}
	}
	_ = here.judged(append(u.checkAll(), between...))
	u.sort(heard)
	fail(inTheWay(heard))
	if err := config.Errors(failures); err != nil {
		return found, heard, &NotReadyError{err}
	}
	return found, heard, nil
}

// sort has findings by host, in the document's order; first those of no single one.
func (u *Up) sort(heard []HostFinding) {
	place := map[string]int{}
	for i, m := range u.Machines {
		place[m.Node.Name] = i + 1
	}
	slices.SortStableFunc(heard, func(a, b HostFinding) int { return place[a.Host] - place[b.Host] })
}

// inTheWay is an error of all findings that are more than a warning, with the hosts that have the same one.
func inTheWay(heard []HostFinding) error {
	var order []Finding
	on := map[Finding][]string{}
	for _, f := range heard {
		if f.Warning {
			continue
		}
		same := Finding{Name: f.Name, Message: f.Message}
		if on[same] == nil {
			order = append(order, same)
		}
		if !slices.Contains(on[same], f.Host) {
			on[same] = append(on[same], f.Host)
		}
	}
	var all *multierror.Error
	for _, f := range order {
		if hosts := reach.Names(on[f]); hosts != "" {
			all = multierror.Append(all, fmt.Errorf("%s: %w", hosts, f))
		} else {
			all = multierror.Append(all, f)
		}
	}
	if err := config.Errors(all); err != nil {
		return fmt.Errorf("the hosts are not ready: %w\nmend these, or let one pass with --ignore-preflight-errors=NAME", err)
	}
	return nil
}

// Clocks that are apart: etcd complains from a second on; certificates are backdated by five minutes,
// and a host that is later than that takes them for not yet valid.
const (
	clockWarns  = time.Second
	clockBreaks = time.Minute
)

// checkAll judges the hosts by each other.
func (u *Up) checkAll() (out []Finding) {
	same := func(name, what, hint string, of func(*Machine) []string) {
		who := map[string][]string{}
		for _, m := range u.answering() {
			for _, v := range of(m) {
				if v != "" && !slices.Contains(who[v], m.Node.Name) {
					who[v] = append(who[v], m.Node.Name)
				}
			}
		}
		for _, v := range slices.Sorted(maps.Keys(who)) {
			if len(who[v]) > 1 {
				out = append(out, Finding{Name: name, Message: fmt.Sprintf("%s have the same %s, %s: %s", strings.Join(who[v], " and "), what, v, hint)})
			}
		}
	}
	one := func(f func(*Machine) string) func(*Machine) []string {
		return func(m *Machine) []string { return []string{f(m)} }
	}
	same("DuplicateAddress", "address", "is it one host, listed twice? Else name the address of each under spec.hosts", one(func(m *Machine) string { return m.Node.Address }))
	same("DuplicateHostname", "host name", "name them with `hostnamectl hostname NAME`", one(func(m *Machine) string { return m.Facts.Hostname }))
	same("DuplicateMachineID", "machine-id", "they are copies of one machine: on each, `rm /etc/machine-id && systemd-machine-id-setup`, and reboot", one(func(m *Machine) string { return m.Facts.MachineID }))
	same("DuplicateProductUUID", "product_uuid", "they are copies of one virtual machine: have the hypervisor give each its own", one(func(m *Machine) string { return m.Facts.ProductUUID }))
	same("DuplicateMAC", "MAC address", "in one network they disturb each other: have the hypervisor give each its own", func(m *Machine) []string { return m.Facts.MACs })
	return append(append(out, u.checkClocks()...), u.checkPlatforms()...)
}

func (u *Up) checkClocks() (out []Finding) {
	var clocks []time.Duration
	for _, m := range u.answering() {
		clocks = append(clocks, m.Facts.Clock)
	}
	if len(clocks) < 2 {
		return nil
	}
	slices.Sort(clocks)
	median := clocks[len(clocks)/2]
	for _, m := range u.answering() {
		off := m.Facts.Clock - median
		if off.Abs() < clockWarns {
			continue
		}
		word := "ahead of"
		if off < 0 {
			word = "behind"
		}
		out = append(out, Finding{Name: "Clock", Warning: off.Abs() < clockBreaks,
			Message: fmt.Sprintf("the clock of %s is %s %s that of the others: have it set by NTP; `timedatectl` shows how", m.Node.Name, off.Abs().Round(time.Millisecond), word)})
	}
	return out
}

// checkPlatforms wants a kubelet for every architecture, of what nodes are made of.
func (u *Up) checkPlatforms() (out []Finding) {
	if u.Bundle == nil {
		return nil
	}
	for _, m := range u.answering() {
		t := &Target{Facts: m.Facts}
		if _, ok := u.Bundle.Find("kubelet", t.Platform()); !ok && t.Lacks() {
			var has []string
			for _, a := range u.Bundle.Lock().Artifacts {
				if a.Name == "kubelet" && a.Type == bundle.File {
					has = append(has, a.Platform)
				}
			}
			out = append(out, Finding{Name: "Architecture", Message: fmt.Sprintf("%s is %s, and the bundle is for %s: make one for both with `kubewright bundle create --platform`", m.Node.Name, t.Platform(), strings.Join(has, ", "))})
		}
	}
	return out
}

// ownFacts are the facts of a machine for preflight: what is missing on a member of this very
// cluster has drifted, and what is there is no stranger's.
func (u *Up) ownFacts(m *Machine) map[string]bool {
	present := maps.Clone(m.Facts.Present)
	if u.members[m] {
		present[pki.AdminConf] = true
		for _, name := range manifests.Names() {
			present[manifests.Path(name)] = true
		}
	}
	if m.node != "" {
		present[pki.KubeletConf] = true
	}
	return present
}
