package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/blang/semver/v4"
)

// Pod networks other than flannel: their defaults, and what may be said of them.

// From so many hosts on Calico gets Typha: else each node watches the API by itself.
const typhaFrom = 50

// Versions of networks where neither the document nor a bundle says: they know little of Kubernetes' own.
const (
	calicoVersion = "v3.32.1"
	weaveVersion  = "2.9.0"
)

// defaultCNI fills the settings of the network that was chosen, and of no other.
func (c *Cluster) defaultCNI(v Versions) {
	n := &c.Spec.Network
	switch n.CNI.Name {
	case "calico":
		set(&n.PodCIDR, "10.244.0.0/16")
		set(&n.CNI.Calico.Version, v.Calico, calicoVersion)
		set(&n.CNI.Calico.Encapsulation, "vxlan")
	case "weave":
		set(&n.PodCIDR, "10.244.0.0/16")
		set(&n.CNI.Weave.Version, v.Weave, weaveVersion)
	}
}

// Typhas are how many of Calico's Typha there are to be: at least three where there are any, as their nodes
// are lost with them, and one for each hundred hosts.
func (c *Cluster) Typhas() int32 {
	if n := c.Spec.Network.CNI.Calico.Typha; n != nil {
		return *n
	}
	hosts := len(c.Spec.Hosts)
	if hosts < typhaFrom {
		return 0
	}
	return int32(min(max(3, (hosts+99)/100), 20))
}

// IsURL tells the address of a manifest from a file.
func (m Manifest) IsURL() bool {
	return strings.HasPrefix(m.Source, "https://") || strings.HasPrefix(m.Source, "http://")
}

// cni checks what is said of pod networks; of flannel, that nothing is where there is another.
func (p *problems) cni(n Network) {
	const path = "spec.network.cni"
	for _, of := range []struct {
		name     string
		settings any
	}{{"flannel", n.CNI.Flannel}, {"calico", n.CNI.Calico}, {"weave", n.CNI.Weave}, {"manifest", n.CNI.Manifest}} {
		if n.CNI.Name != of.name && !reflect.ValueOf(of.settings).IsZero() {
			p.add(path+"."+of.name, "are settings of another network than %s: leave them out, or write name: %s", n.CNI.Name, of.name)
		}
	}
	v6 := slices.ContainsFunc(n.PodRanges(), func(r netip.Prefix) bool { return r.Addr().Is6() })
	switch n.CNI.Name {
	case "calico":
		p.calico(path+".calico", n.CNI.Calico, v6)
	case "weave":
		p.weave(path+".weave", n.CNI.Weave, v6)
	case "manifest":
		p.manifest(path+".manifest", n.CNI.Manifest)
	}
}

func (p *problems) calico(path string, c Calico, v6 bool) {
	if _, err := semver.Parse(strings.TrimPrefix(c.Version, "v")); err != nil || !strings.HasPrefix(c.Version, "v") {
		p.add(path+".version", "%q is not a version: write v3.32.1, say", c.Version)
	}
	p.oneOf(path+".encapsulation", c.Encapsulation, CalicoEncapsulations)
	if c.Encapsulation == "ipip" && v6 {
		p.add(path+".encapsulation", "ipip carries IPv4 alone, and podCIDR has a range of IPv6: write vxlan, or none")
	}
	p.detection(path+".interface", c.Interface)
	if c.Typha != nil && *c.Typha < 0 {
		p.add(path+".typha", "%d: write how many there are to be, 0 for none", *c.Typha)
	}
}

// detection is one of Calico's methods to find the address of a node.
func (p *problems) detection(path, method string) {
	kind, value, parted := strings.Cut(method, "=")
	var err error
	switch kind {
	case "", "first-found", "kubernetes-internal-ip":
		if !parted {
			return
		}
	case "interface", "skip-interface":
		for one := range strings.SplitSeq(value, ",") {
			if _, e := regexp.Compile(one); e != nil {
				err = e
			}
		}
		if err == nil && value != "" {
			return
		}
	case "can-reach":
		if value != "" {
			return
		}
	case "cidr":
		for one := range strings.SplitSeq(value, ",") {
			if _, e := netip.ParsePrefix(one); e != nil {
				err = e
			}
		}
		if err == nil {
			return
		}
	}
	p.add(path, "%q is no method to find a node's address: write first-found, kubernetes-internal-ip, interface=REGEX, skip-interface=REGEX, can-reach=ADDRESS or cidr=RANGE", method)
}

func (p *problems) weave(path string, w Weave, v6 bool) {
	if !w.AcceptDeprecated {
		p.add(path+".acceptDeprecated", "is not true: Weave Net's makers are gone since 2024, and the fork that is left mends the worst alone, so that its next vulnerability may stay open; write true to use it nevertheless, or take flannel or calico")
	}
	if _, err := semver.Parse(w.Version); err != nil {
		p.add(path+".version", "%q is not a version: write 2.9.0, say", w.Version)
	}
	if v6 {
		p.add("spec.network.podCIDR", "weave has no IPv6: write a range of IPv4 alone, or take flannel or calico")
	}
}

var hex256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (p *problems) manifest(path string, m Manifest) {
	switch {
	case m.Source == "":
		p.add(path+".source", "is missing: write the file, or the http(s) address, of the network's manifest")
	case m.IsURL():
		if u, err := url.Parse(m.Source); err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(m.Source, "?#") {
			// It is kept in the cluster's document and in locks: not quoted, as it may hold a password.
			p.add(path+".source", "is no address without a user name, a password and what begins with ? or #: write https://HOST/PATH, or download the manifest and write the file")
		}
	case strings.Contains(m.Source, "://"):
		p.add(path+".source", "%q: write a file, or an address that begins with https://", m.Source)
	}
	if !hex256.MatchString(m.SHA256) {
		p.add(path+".sha256", "%q is not 64 hex digits in lower case: write what `sha256sum` prints for the manifest", m.SHA256)
	}
}

// FitMTU chooses the MTU of pods where flannel would choose wrongly: of VXLAN over IPv6 it takes 50 bytes off the link's,
// and 70 are needed. Link is the smallest of the hosts' links (0: unknown); a running cluster (nil: there is none)
// keeps what it has. What the document says counts, and so does an interface that it chooses.
func (c *Cluster) FitMTU(live *Cluster, link int) {
	cni := &c.Spec.Network.CNI
	f := cni.Flannel
	if cni.MTU != 0 || cni.Name != "flannel" || f.Backend != "vxlan" || f.Interface+f.InterfaceRegex+f.InterfaceCanReach != "" || !c.Spec.Network.UsesIPv6() {
		return
	}
	if live != nil {
		cni.MTU = live.Spec.Network.CNI.MTU
	}
	if cni.MTU == 0 && link > 0 {
		cni.MTU = max(link-70, minMTU6)
	}
}
