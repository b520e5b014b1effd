package phases

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

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
