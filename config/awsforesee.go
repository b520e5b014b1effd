package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// ForeseeAWS is [Cluster.ValidateAWS], and [Cluster.Validate] of the document as it will be when its machines are there: what is wrong
// with it is found before any is made.
func (c *Cluster) ForeseeAWS() error {
	b, err := c.Print()
	if err != nil {
		return err
	}
	later, err := Parse(b)
	if err != nil {
		return err
	}
	later.DefaultAWS()
	a := &later.Spec.Provider.AWS
	p := later.validateAWS()
	if cidr, err := netip.ParsePrefix(a.Network.CIDR); err == nil && cidr.Bits() > awsSmallest && cidr.Bits() <= awsDivided {
		p.awsRange(a.Network.CIDR)
	}
	const path = "spec.provider.aws"
	p.open(path+".loadBalancer.from", a.LoadBalancer.From)
	p.open(path+".ssh.from", a.SSH.From)
	p.twice(path+".network.zones", a.Network.Zones)
	p.twice(path+".network.subnets", a.Network.Subnets)
	p.twice(path+".network.publicSubnets", a.Network.PublicSubnets)
	p.tags(*a, reservedToo)
	p.routed(*a, later.Spec.Network.CNI)
	for i, pool := range a.Pools {
		at := fmt.Sprintf("%s.pools[%d]", path, i)
		if pool.Count == nil {
			p.add(at+".count", "there is none: write how many there are to be; 0 is of a pool that is to have no machines")
		}
		p.twice(at+".zones", pool.Zones)
		p.marks(at, pool.Labels, pool.Taints)
	}
	if err := Errors(p.all); err != nil {
		return err
	}
	n := a.ControlPlane.Number()
	for _, pool := range a.Pools {
		n += pool.Number()
	}
	for i := range n {
		later.Spec.Hosts = append(later.Spec.Hosts, Node{Name: fmt.Sprint("machine-", i)})
	}
	later.Spec.ControlPlane.Endpoint = "load-balancer.invalid"
	later.Default(Versions{})
	return later.Validate()
}

// open refuses a list of who may get in that is written, and empty: it reads as nobody, and is everybody, or all of the VPC.
func (p *problems) open(path string, from []string) {
	if from != nil && len(from) == 0 {
		p.add(path, "it is empty: write who may get in, or 0.0.0.0/0 if you mean everybody")
	}
}

func (p *problems) twice(path string, all []string) {
	for i, s := range all {
		if slices.Contains(all[:i], s) {
			p.add(fmt.Sprintf("%s[%d]", path, i), "%s is there twice: keep one", s)
		}
	}
}

// routed refuses pod networks without encapsulation over several subnets: what is between those knows no pod's address.
func (p *problems) routed(a AWSProvider, n CNI) {
	field, value := "flannel.backend", n.Flannel.Backend
	if n.Name == "calico" {
		field, value = "calico.encapsulation", n.Calico.Encapsulation
	}
	if value != "host-gw" && value != "none" {
		return
	}
	switch {
	case a.Network.Own() && len(a.Network.Zones) != 1:
		p.add("spec.network.cni."+field, "%s works within one subnet, as AWS's routers know no addresses of pods, and there is one in each zone: write vxlan, or a single zone under spec.provider.aws.network.zones", value)
	case len(a.Network.Subnets) > 1:
		p.add("spec.network.cni."+field, "%s works within one subnet, as AWS's routers know no addresses of pods, and nodes are to be in %d: write vxlan, or name one under spec.provider.aws.network.subnets", value, len(a.Network.Subnets))
	}
}
