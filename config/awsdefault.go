package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Values of an [AWSProvider].
var (
	AWSNATs    = []string{"single", "zone", "none"}
	AWSSchemes = []string{"internet-facing", "internal"}
)

// Own tells that the VPC is one that is made for the cluster.
func (n AWSNetwork) Own() bool { return n.VPC == "" }

// Private tells that nodes are in subnets of their own, without public addresses.
func (n AWSNetwork) Private() bool { return n.Own() && n.NAT != "none" }

// DefaultAWS fills what a document of provider aws leaves open, before [Cluster.Default] fills the rest.
func (c *Cluster) DefaultAWS() {
	c.Spec.Provider.AWS.Default()
	set(&c.Spec.Addons.CloudController.Name, "aws")
}

// Default fills what the document leaves open, but for what only the region knows: zones and images.
func (p *AWSProvider) Default() {
	n := &p.Network
	if n.Own() {
		set(&n.CIDR, "10.0.0.0/16")
		set(&n.NAT, "single")
	}
	set(&p.SSH.User, "ubuntu")
	if n.Private() && p.SSH.ProxyJump == "" {
		set(&p.SSH.Bastion, "t4g.nano")
	}
	set(&p.LoadBalancer.Scheme, "internet-facing")
	if p.ControlPlane.Count == nil {
		one := 1
		p.ControlPlane.Count = &one
	}
	p.ControlPlane.defaults()
	for i := range p.Pools {
		p.Pools[i].defaults()
	}
}

func (m *AWSMachines) defaults() {
	set(&m.InstanceType, "t3.medium")
	if m.DiskGiB == 0 {
		m.DiskGiB = 40
	}
}

// The largest VPC that AWS takes, and the smallest that is worth dividing: a 64th of it is a public subnet, of 59 addresses, and a load balancer wants
// eight that are free. There may be smaller ones from before.
const (
	awsLargest  = 16
	awsSmallest = 20
	awsDivided  = 22 // whose public subnets are as small as AWS has them
)

var (
	awsID = map[string]*regexp.Regexp{"vpc": regexp.MustCompile(`^vpc-[0-9a-f]+$`), "subnet": regexp.MustCompile(`^subnet-[0-9a-f]+$`), "ami": regexp.MustCompile(`^ami-[0-9a-f]+$`)}
	// reserved are tags that have a meaning for us, or for AWS; reservedToo are others, which what was made before may have.
	reserved    = regexp.MustCompile(`^(Name$|kubewright\.dev/|kubernetes\.io/cluster/|aws:)`)
	reservedToo = regexp.MustCompile(`^(kubernetes\.io/role/(internal-)?elb$|A(?i:ws):|a(W(?i:s)|wS):)`)
	account     = regexp.MustCompile(`^[0-9]{12}$`)
	region      = regexp.MustCompile(`^([a-z]+(?:-[a-z]+)+-[0-9]+)(-.+|[a-z])?$`) // and what makes a zone of its name
)

// ValidateAWS looks at the part of a document that machines in EC2 are made of, with its defaults. What was made of one that passes may be ended with it.
func (c *Cluster) ValidateAWS() error { return Errors(c.validateAWS().all) }

func (c *Cluster) validateAWS() *problems {
	p := &problems{}
	a, path := c.Spec.Provider.AWS, "spec.provider.aws"
	p.name("metadata.name", c.Metadata.Name, validation.IsDNS1123Label)
	if len(c.Spec.Hosts) > 0 {
		p.add("spec.hosts", "the hosts of provider aws are made: leave them out, and write %s.controlPlane and pools", path)
	}
	if c.Spec.ControlPlane.Endpoint != "" {
		p.add("spec.controlPlane.endpoint", "it is the name of the load balancer that is made: leave it out, and write your own name under certSANs")
	}
	if m := region.FindStringSubmatch(a.Region); a.Region != "" && m == nil {
		p.add(path+".region", "%q: write the name of a region, eu-west-1, say", a.Region)
	} else if m != nil && m[2] != "" {
		p.add(path+".region", "%s is a zone: write its region, %s", a.Region, m[1])
	}
	if a.Account != "" && !account.MatchString(a.Account) {
		p.add(path+".account", "%q: write the twelve digits of the account", a.Account)
	}
	p.tags(a, reserved)
	p.awsNetwork(path+".network", a.Network, c.Spec)
	p.oneOf(path+".loadBalancer.scheme", a.LoadBalancer.Scheme, AWSSchemes)
	p.cidrs(path+".loadBalancer.from", a.LoadBalancer.From)
	p.cidrs(path+".ssh.from", a.SSH.From)
	if len(a.LoadBalancer.From) > 0 && a.LoadBalancer.Scheme == "internet-facing" && !a.Network.Private() {
		p.add(path+".loadBalancer.from", "nodes would not reach the API servers by addresses that change: write scheme: internal, or have nodes in private subnets behind NAT")
	}
	if (a.SSH.KeyName == "") != (a.SSH.IdentityFile == "") {
		p.add(path+".ssh", "keyName and identityFile go together: write both, or neither, and a key is made")
	}
	if b := a.SSH.Bastion; b != "" && b != "none" {
		if a.SSH.ProxyJump != "" {
			p.add(path+".ssh", "bastion and proxyJump: write one of them")
		}
		if !a.Network.Private() && len(a.Network.PublicSubnets) == 0 {
			p.add(path+".ssh.bastion", "it needs a public subnet, and nodes in private ones: leave it out, or name network.publicSubnets")
		}
	}
	if n := a.ControlPlane.Number(); n < 1 || n%2 == 0 || n > 7 {
		p.add(path+".controlPlane.count", "%d: etcd wants an odd number, write 1, 3 or 5", n)
	}
	p.awsMachines(path+".controlPlane", a.ControlPlane)
	names := map[string]bool{}
	for i, pool := range a.Pools {
		at := fmt.Sprintf("%s.pools[%d]", path, i)
		p.name(at+".name", pool.Name, validation.IsDNS1123Label)
		if names[pool.Name] || pool.Name == "control-plane" || pool.Name == "bastion" {
			p.add(at+".name", "%q is taken: choose another", pool.Name)
		}
		names[pool.Name] = true
		if pool.Number() < 0 {
			p.add(at+".count", "%d: write how many there are to be", pool.Number())
		}
		p.awsMachines(at, pool.AWSMachines)
		if len(pool.Zones) > 0 && len(a.Network.Zones) > 0 {
			for _, z := range pool.Zones {
				if !slices.Contains(a.Network.Zones, z) {
					p.add(at+".zones", "%s is none of the network's: %s", z, strings.Join(a.Network.Zones, ", "))
				}
			}
		}
	}
	return p
}

func (p *problems) tags(a AWSProvider, reserved *regexp.Regexp) {
	for k := range a.Tags {
		if reserved.MatchString(k) {
			p.add("spec.provider.aws.tags."+k, "is not yours to set: Name, kubewright.dev/..., kubernetes.io/cluster/... and kubernetes.io/role/elb and internal-elb are ours, and aws:... is AWS's own: choose another")
		}
	}
}

func (p *problems) awsMachines(path string, m AWSMachines) {
	if m.Image != "" && !awsID["ami"].MatchString(m.Image) {
		p.add(path+".image", "%q: write the id of an image, ami-0123456789abcdef0, say", m.Image)
	}
	if m.DiskGiB < 8 || m.DiskGiB > 16384 {
		p.add(path+".diskGiB", "%d: write a number from 8 to 16384", m.DiskGiB)
	}
}

func (p *problems) awsNetwork(path string, n AWSNetwork, s Spec) {
	if !n.Own() {
		if !awsID["vpc"].MatchString(n.VPC) {
			p.add(path+".vpc", "%q: write the id of a VPC, vpc-0123456789abcdef0, say", n.VPC)
		}
		if len(n.Subnets) == 0 {
			p.add(path+".subnets", "there is none: name the subnets of the VPC that nodes are to be in")
		}
		for _, field := range []struct{ name, value string }{{"cidr", n.CIDR}, {"nat", n.NAT}, {"zones", strings.Join(n.Zones, ",")}} {
			if field.value != "" {
				p.add(path+"."+field.name, "is of a VPC that is made, and %s is there: leave one of them out", n.VPC)
			}
		}
		for name, ids := range map[string][]string{"subnets": n.Subnets, "publicSubnets": n.PublicSubnets} {
			for i, id := range ids {
				if !awsID["subnet"].MatchString(id) {
					p.add(fmt.Sprintf("%s.%s[%d]", path, name, i), "%q: write the id of a subnet, subnet-0123456789abcdef0, say", id)
				}
			}
		}
		return
	}
	if len(n.Subnets)+len(n.PublicSubnets) > 0 {
		p.add(path+".subnets", "they are of a VPC that is there: name it, too, under vpc")
	}
	p.oneOf(path+".nat", n.NAT, AWSNATs)
	if len(n.Zones) > 6 {
		p.add(path+".zones", "a cluster is in up to six: leave some out")
	}
	cidr, err := netip.ParsePrefix(n.CIDR)
	if err != nil || !cidr.Addr().Is4() || cidr != cidr.Masked() || cidr.Bits() < awsLargest || cidr.Bits() > awsDivided {
		p.awsRange(n.CIDR)
		return
	}
	for field, ranges := range map[string]string{"podCIDR": first(s.Network.PodCIDR, defaultPods[false]), "serviceCIDR": first(s.Network.ServiceCIDR, defaultServices[false])} {
		for _, r := range strings.Split(ranges, ",") {
			if other, err := netip.ParsePrefix(r); err == nil && other.Overlaps(cidr) {
				p.add(path+".cidr", "%s and spec.network.%s %s overlap: write ranges that have no address in common", cidr, field, other)
			}
		}
	}
}

func (p *problems) awsRange(cidr string) {
	p.add("spec.provider.aws.network.cidr", "%q: write a range of IPv4 of /%d to /%d, 10.0.0.0/16, say", cidr, awsLargest, awsSmallest)
}

func (p *problems) cidrs(path string, all []string) {
	for i, s := range all {
		at := fmt.Sprintf("%s[%d]", path, i)
		r, err := netip.ParsePrefix(s)
		ip, _ := netip.ParseAddr(s)
		switch {
		case ip.Is4():
			p.add(at, "%q is no range: write %s/32", s, ip)
		case err != nil || !r.Addr().Is4():
			p.add(at, "%q: write a range of IPv4, 192.0.2.0/24, say", s)
		case r != r.Masked():
			p.add(at, "%q has bits set behind the mask: write %s", s, r.Masked())
		}
	}
}
