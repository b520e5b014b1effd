package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Limits of kubeadm's (constants.go), which would refuse to join a cluster beyond them; the last one
// is of the controller manager, too.
const (
	dnsBits         = 4  // of a service range: DNS takes the tenth address
	maxServiceBits  = 20 // no more addresses than these tell apart
	maxNodeMaskBits = 16 // no more nodes than these tell apart
)

func (p *problems) ranges(s Spec) {
	const podPath, servicePath = "spec.network.podCIDR", "spec.network.serviceCIDR"
	n := s.Network
	services, servicesOK := p.families(servicePath, n.ServiceCIDR, defaultServices)
	for _, r := range services {
		switch bits := r.Addr().BitLen() - r.Bits(); {
		case bits < dnsBits:
			p.add(servicePath, "%s holds fewer than 16 addresses: write a larger range", r)
		case bits > maxServiceBits:
			p.add(servicePath, "%s holds more addresses than a service range may: write %s, say", r, netip.PrefixFrom(r.Addr(), r.Addr().BitLen()-maxServiceBits))
		}
	}
	if n.PodCIDR == "" {
		return
	}
	pods, podsOK := p.families(podPath, n.PodCIDR, defaultPods)
	p.shares(podPath, pods, s)
	if !podsOK || !servicesOK {
		return
	}
	same := slices.EqualFunc(pods, services, func(a, b netip.Prefix) bool { return a.Addr().Is4() == b.Addr().Is4() })
	if !same {
		p.add("spec.network", "podCIDR %s and serviceCIDR %s are not of the same IP families: write the same in both, in the same order, serviceCIDR: %s, say", n.PodCIDR, n.ServiceCIDR, alike(pods, defaultServices))
	}
	for _, pod := range pods {
		for _, service := range services {
			if pod.Overlaps(service) {
				p.add("spec.network", "podCIDR %s and serviceCIDR %s overlap: write ranges that have no address in common", pod, service)
			}
		}
	}
}

// families reads a range, or two of different families, and tells whether that is what there is.
func (p *problems) families(path, s string, example map[bool]string) (all []netip.Prefix, ok bool) {
	parts := strings.Split(s, ",")
	both := example[false] + "," + example[true]
	ok = true
	for _, part := range parts {
		cidr, err := netip.ParsePrefix(part)
		if err != nil {
			p.add(path, "%q is not a range: write ADDRESS/BITS, %s, say", part, example[strings.Contains(part, ":")])
			ok = false
			continue
		}
		if cidr != cidr.Masked() {
			p.add(path, "%s has bits set behind the mask: write %s", cidr, cidr.Masked())
		}
		all = append(all, cidr.Masked())
	}
	switch {
	case len(parts) > 2:
		p.add(path, "%q holds %d ranges: write one, or one of each IP family, %s, say", s, len(parts), both)
		ok = false
	case ok && len(all) == 2 && all[0].Addr().Is4() == all[1].Addr().Is4():
		p.add(path, "%q holds two ranges of the same IP family: write one, or one of each, %s, say", s, both)
		ok = false
	}
	return all, ok
}

// shares wants the controller manager to be able to give each node a part of every range of pods.
func (p *problems) shares(path string, pods []netip.Prefix, s Spec) {
	flag := func(names ...string) (value string) {
		for _, a := range s.ControllerManager.ExtraArgs {
			if slices.Contains(names, a.Name) {
				value = a.Value
			}
		}
		return value
	}
	if flag("allocate-node-cidrs") == "false" {
		return
	}
	for _, r := range pods {
		mask, name := 24, "node-cidr-mask-size-ipv4"
		if r.Addr().Is6() {
			mask, name = 64, "node-cidr-mask-size-ipv6"
		}
		names := []string{name}
		if len(pods) == 1 {
			names = append(names, "node-cidr-mask-size")
		}
		if v := flag(names...); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n > r.Addr().BitLen() {
				p.add("spec.controllerManager.extraArgs", "%s: %q is not a number of bits: write %d, say", name, v, mask)
				continue
			}
			mask = n
		}
		switch extra := mask - r.Bits(); {
		case extra < 0:
			p.add(path, "%s is smaller than one node's share, a /%d: write a larger range", r, mask)
		case extra > maxNodeMaskBits:
			p.add(path, "%s holds more shares of a node, each a /%d, than the controller manager can count: write %s, say, or other shares with spec.controllerManager.extraArgs: [{name: %s, value: \"%d\"}]",
				r, mask, netip.PrefixFrom(r.Addr(), mask-maxNodeMaskBits), name, r.Bits()+maxNodeMaskBits)
		case len(s.Hosts) > 1<<extra:
			p.add(path, "%s has room for %d of %d hosts, as each node gets a /%d: write a larger range", r, 1<<extra, len(s.Hosts), mask)
		}
	}
}

// The smallest packets that every link must carry whole, by RFC 791 and RFC 8200, and the largest there are.
const (
	minMTU, minMTU6 = 576, 1280
	maxMTU          = 65535
)

func (p *problems) mtu(n Network) {
	const path = "spec.network.cni.mtu"
	least := minMTU
	if n.UsesIPv6() {
		least = minMTU6
	}
	switch mtu := n.CNI.MTU; {
	case mtu == 0:
	case n.CNI.Name == "none" || n.CNI.Name == "manifest":
		p.add(path, "nothing reads it where cni.name is %s: leave it out, and tell the network that you install", n.CNI.Name)
	case mtu < least || mtu > maxMTU:
		p.add(path, "%d: write a number from %d to %d, or leave it out, and the network finds out by itself", mtu, least, maxMTU)
	}
}

func (p *problems) flannel(n Network) {
	const path = "spec.network.cni.flannel"
	f := n.CNI.Flannel
	p.oneOf(path+".backend", f.Backend, FlannelBackends)
	if n.PodCIDR == "" {
		p.add("spec.network.podCIDR", "flannel needs one: write %s, say", defaultPods[false])
	}
	var given []string
	for name, value := range map[string]string{"interface": f.Interface, "interfaceRegex": f.InterfaceRegex, "interfaceCanReach": f.InterfaceCanReach} {
		if value != "" {
			given = append(given, name)
		}
	}
	if slices.Sort(given); len(given) > 1 {
		p.add(path, "%s each choose an interface: write one of them", strings.Join(given, " and "))
	}
	if _, err := regexp.Compile(f.InterfaceRegex); err != nil {
		p.add(path+".interfaceRegex", "%v: write a regular expression, eth[01] or ^10\\.1\\., say", err)
	}
	if a := f.InterfaceCanReach; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			p.add(path+".interfaceCanReach", "%q is not an IP address: write one that is reached through the interface, 192.0.2.1, say", a)
		}
	}
}
