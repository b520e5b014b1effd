package aws

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/reach"
)

// rule lets something into a security group.
type rule struct {
	Group    string `json:"group"`
	From     string `json:"from"` // another group, a range, or the name of an address that is made
	Protocol string `json:"protocol"`
	Low      int32  `json:"low"`
	High     int32  `json:"high"`
	Why      string `json:"why"`
}

// rules are all that have to get in, and nothing else. What goes out is free, as AWS has it.
func (a *Cloud) rules(w *network) (all []rule) {
	c := *a.c // with its defaults, which the document of this cluster gets later
	c.Spec.Hosts = nil
	c.Default(config.Versions{})
	add := func(group, from, protocol string, low, high int32, why string) {
		all = append(all, rule{group, from, protocol, low, high, why})
	}
	port := c.Spec.ControlPlane.BindPort
	for _, from := range a.apiFrom(w) {
		add(balancerGroup, from, "tcp", port, port, "API server")
	}
	add(controlPlaneGroup, balancerGroup, "tcp", port, port, "API server, and whether it is ready")
	plane := config.Node{Roles: []config.Role{config.ControlPlaneRole}}
	worker := config.Node{Roles: []config.Role{config.WorkerRole}}
	for n := range a.machines() {
		c.Spec.Hosts = append(c.Spec.Hosts, config.Node{Name: fmt.Sprint(n)}) // how many there are decides of Calico's typha
	}
	among := func(group, from string, ports []reach.Port) {
		for _, p := range ports {
			low, high := int32(p.Number), int32(p.Number)
			if p.For == "NodePorts" {
				high = low + 2767
			}
			r := rule{group, from, p.Network, low, high, p.For}
			covered := slices.ContainsFunc(all, func(have rule) bool { // a control plane is one of the nodes
				return have.Protocol == r.Protocol && have.Low == low && (have.Group == group || have.Group == nodesGroup) && (have.From == from || have.From == nodesGroup)
			})
			if !covered {
				all = append(all, r)
			}
		}
	}
	among(nodesGroup, nodesGroup, reach.Ports(&c, worker, worker))
	among(controlPlaneGroup, nodesGroup, reach.Ports(&c, worker, plane))
	among(nodesGroup, controlPlaneGroup, reach.Ports(&c, plane, worker))
	among(controlPlaneGroup, controlPlaneGroup, reach.Ports(&c, plane, plane))
	if n := c.Spec.Network.CNI; n.Name == "calico" && n.Calico.Encapsulation == "ipip" {
		add(nodesGroup, nodesGroup, "4", -1, -1, "calico IPIP")
	}
	if a.unencapsulated() {
		add(nodesGroup, nodesGroup, "-1", -1, -1, "pods without encapsulation")
		for _, r := range c.Spec.Network.PodRanges() {
			if r.Addr().Is4() {
				add(nodesGroup, r.String(), "-1", -1, -1, "pods without encapsulation")
			}
		}
	}
	add(nodesGroup, nodesGroup, "icmp", -1, -1, "path MTU, and ping")
	door, from := nodesGroup, a.aws.SSH.From
	switch {
	case a.hasBastion():
		add(nodesGroup, bastionGroup, "tcp", 22, 22, "SSH by the bastion")
		door = bastionGroup
	case len(from) == 0 && w.private: // by a jump host, or a VPN
		from = w.ranges
	}
	if len(from) == 0 {
		from = []string{"0.0.0.0/0"}
	}
	for _, r := range from {
		add(door, r, "tcp", 22, 22, "SSH")
	}
	return all
}

// apiFrom is from where the API servers are reached: everywhere, or some ranges and the nodes, who come from the VPC to an internal load
// balancer, and by NAT to one that faces the internet.
func (a *Cloud) apiFrom(w *network) []string {
	from := slices.Clone(a.aws.LoadBalancer.From)
	switch {
	case a.aws.LoadBalancer.Scheme == "internal":
		from = append(from, w.ranges...)
	case len(from) == 0:
		from = []string{"0.0.0.0/0"}
	default:
		for _, o := range w.outlets {
			from = append(from, "elastic-ip "+o.name)
		}
	}
	return from
}

// unencapsulated tells that pods' own addresses are seen between nodes: AWS drops them, unless it is told not to look.
func (a *Cloud) unencapsulated() bool {
	n := a.c.Spec.Network.CNI
	return (n.Name == "flannel" || n.Name == "") && n.Flannel.Backend == "host-gw" ||
		n.Name == "calico" && n.Calico.Encapsulation != "" && n.Calico.Encapsulation != "vxlan" && n.Calico.Encapsulation != "ipip"
}

// notInRules is what AWS takes in no description of a rule.
var notInRules = regexp.MustCompile(`[^a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]`)

func (r rule) permission(from map[string]string) ec2types.IpPermission {
	p := ec2types.IpPermission{IpProtocol: sdk.String(r.Protocol)}
	if r.Protocol != "-1" && r.Protocol != "4" {
		p.FromPort, p.ToPort = sdk.Int32(r.Low), sdk.Int32(r.High)
	}
	why := sdk.String(notInRules.ReplaceAllString(ownRule+r.Why, ""))
	source := r.From
	if id, ok := from[source]; ok {
		source = id
	}
	if strings.Contains(source, "/") {
		p.IpRanges = []ec2types.IpRange{{CidrIp: &source, Description: why}}
	} else {
		p.UserIdGroupPairs = []ec2types.UserIdGroupPair{{GroupId: &source, Description: why}}
	}
	return p
}

// each gives permissions with one source each.
func each(all []ec2types.IpPermission) (one []ec2types.IpPermission) {
	for _, p := range all {
		for _, r := range p.IpRanges {
			one = append(one, ec2types.IpPermission{IpProtocol: p.IpProtocol, FromPort: p.FromPort, ToPort: p.ToPort, IpRanges: []ec2types.IpRange{r}})
		}
		for _, g := range p.UserIdGroupPairs {
			one = append(one, ec2types.IpPermission{IpProtocol: p.IpProtocol, FromPort: p.FromPort, ToPort: p.ToPort, UserIdGroupPairs: []ec2types.UserIdGroupPair{g}})
		}
	}
	return one
}

func source(p ec2types.IpPermission) (from, description string) {
	if len(p.IpRanges) > 0 {
		return sdk.ToString(p.IpRanges[0].CidrIp), sdk.ToString(p.IpRanges[0].Description)
	}
	return sdk.ToString(p.UserIdGroupPairs[0].GroupId), sdk.ToString(p.UserIdGroupPairs[0].Description)
}

func describe(p ec2types.IpPermission) string { _, d := source(p); return d }

func keyOf(p ec2types.IpPermission) string {
	from, _ := source(p)
	if proto := sdk.ToString(p.IpProtocol); proto == "-1" || proto == "4" {
		return proto + " " + from
	}
	return fmt.Sprintf("%s %d-%d %s", sdk.ToString(p.IpProtocol), sdk.ToInt32(p.FromPort), sdk.ToInt32(p.ToPort), from)
}

func short(p ec2types.IpPermission) string {
	from, why := source(p)
	return fmt.Sprintf("%s from %s (%s)", portsOf(sdk.ToString(p.IpProtocol), sdk.ToInt32(p.FromPort), sdk.ToInt32(p.ToPort)), from, strings.TrimPrefix(why, ownRule))
}

func portsOf(protocol string, low, high int32) string {
	switch {
	case protocol == "-1":
		return "everything"
	case protocol != "tcp" && protocol != "udp":
		return protocol
	case low == high:
		return fmt.Sprintf("%d/%s", low, protocol)
	}
	return fmt.Sprintf("%d-%d/%s", low, high, protocol)
}

func listRules(all []rule) string {
	var said []string
	for _, r := range all {
		said = append(said, fmt.Sprintf("%s from %s (%s)", portsOf(r.Protocol, r.Low, r.High), r.From, r.Why))
	}
	return strings.Join(said, ", ")
}
