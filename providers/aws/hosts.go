package aws

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/config"
)

// hand completes the document from what there is.
func (a *Cloud) hand(l *look) error {
	go l.balancer()
	go l.instances()
	go l.vpcs() // by which the load balancer is known to be ours
	if err := a.known(); err != nil {
		return err
	}
	all, err := l.instances()
	if err != nil {
		return explain(err)
	}
	b, err := l.balancer()
	if err != nil {
		return explain(err)
	}
	if b != nil {
		a.c.Spec.ControlPlane.Endpoint = net.JoinHostPort(sdk.ToString(b.DNSName), strconv.Itoa(int(a.port())))
	}
	a.c.Spec.Hosts, a.surplus, a.leaving, a.started = nil, nil, nil, map[string]time.Time{}
	leads := time.Time{} // when what leads to the nodes was started
	jump := a.aws.SSH.ProxyJump
	if i, err := part(l.instances, ofInstance, bastionPart); err != nil {
		return err
	} else if i != nil && a.hasBastion() {
		if sdk.ToString(i.PublicIpAddress) == "" {
			return fmt.Errorf("AWS: the bastion %s is %s, and has no public address: run `kubewright up`, which starts it; if it runs, terminate it first, and another is made", *i.InstanceId, i.State.Name)
		}
		jump, leads = bastionUser+"@"+sdk.ToString(i.PublicIpAddress), sdk.ToTime(i.LaunchTime)
	}
	for _, p := range a.nodePools() {
		for _, name := range p.parts() {
			i, err := part(l.instances, ofInstance, name)
			if err != nil {
				return err
			}
			if i != nil {
				n := a.node(p, *i, jump)
				a.c.Spec.Hosts = append(a.c.Spec.Hosts, n)
				if a.started[n.Name] = leads; sdk.ToTime(i.LaunchTime).After(leads) {
					a.started[n.Name] = *i.LaunchTime
				}
			}
		}
	}
	for _, i := range a.extra(all) {
		p := config.AWSPool{Name: poolOf(i)}
		a.surplus, a.leaving = append(a.surplus, a.node(pool{AWSPool: p}, i, jump)), append(a.leaving, ending(i))
	}
	if a.remarks, err = a.settings(l); err != nil {
		return explain(err)
	}
	if err := a.forgetHostKeys(all); err != nil {
		return err
	}
	if _, err := os.Stat(a.keyFile()); err != nil && len(a.c.Spec.Hosts) > 0 && a.aws.SSH.KeyName == "" {
		return cmp.Or(a.otherKey(l), a.keyLost())
	}
	return nil
}

// nodePools are those of which nodes are made, the control planes first.
func (a *Cloud) nodePools() []pool {
	all := []pool{{AWSPool: config.AWSPool{Name: planesPool, AWSMachines: a.aws.ControlPlane}, path: "controlPlane"}}
	for i, p := range a.aws.Pools {
		all = append(all, pool{AWSPool: p, path: fmt.Sprintf("pools[%d]", i)})
	}
	return all
}

// allPools are those, and the bastion.
func (a *Cloud) allPools() []pool {
	all := a.nodePools()
	if a.hasBastion() {
		all = append(all, pool{AWSPool: config.AWSPool{Name: bastionPart, AWSMachines: config.AWSMachines{InstanceType: a.aws.SSH.Bastion, DiskGiB: 8}}, path: "ssh.bastion", public: true})
	}
	return all
}

// extra are machines of the cluster that are alive and not wished for, or the second of what is wished for once.
func (a *Cloud) extra(all []ec2types.Instance) (extra []ec2types.Instance) {
	wished := map[string]bool{} // ids
	for _, p := range a.nodePools() {
		for _, name := range p.parts() {
			i, _ := part(func() ([]ec2types.Instance, error) { return all, nil }, ofInstance, name)
			if i != nil {
				wished[*i.InstanceId] = true
			}
		}
	}
	for _, i := range all {
		id, tags, alive := ofInstance(i)
		if alive && tagOf(tags, partTag) != bastionPart && !wished[id] {
			extra = append(extra, i)
		}
	}
	slices.SortFunc(extra, func(x, y ec2types.Instance) int {
		return strings.Compare(tagOf(x.Tags, partTag), tagOf(y.Tags, partTag))
	})
	return extra
}

// poolOf cuts the number off a machine's part.
func poolOf(i ec2types.Instance) string {
	name := tagOf(i.Tags, partTag)
	return name[:max(0, strings.LastIndex(name, "-"))]
}

// PoolLabel names a node's pool.
const PoolLabel = "kubewright.dev/pool"

// node is a machine as the other providers know it.
func (a *Cloud) node(p pool, i ec2types.Instance, jump string) config.Node {
	ip := sdk.ToString(i.PrivateIpAddress)
	n := config.Node{Name: cmp.Or(sdk.ToString(i.PrivateDnsName), privateName(a.region, ip)), Address: ip, Roles: []config.Role{config.WorkerRole}, Taints: p.Taints,
		ProviderID: "aws:///" + sdk.ToString(i.Placement.AvailabilityZone) + "/" + *i.InstanceId}
	n.Labels = map[string]string{PoolLabel: p.Name}
	if p.Name == planesPool {
		n.Roles = []config.Role{config.ControlPlaneRole}
		if !slices.ContainsFunc(a.aws.Pools, func(p config.AWSPool) bool { return p.Number() > 0 }) {
			n.Roles = append(n.Roles, config.WorkerRole) // pods have to be somewhere
		}
	}
	maps.Copy(n.Labels, p.Labels)
	n.SSH = &config.SSH{Address: ip, User: a.aws.SSH.User, IdentityFile: a.keyFile(), ProxyJump: jump}
	if public := sdk.ToString(i.PublicIpAddress); public != "" && jump == "" {
		n.SSH.Address = public
	}
	return n
}

// Known waits until it is known whose account it is. An error: nobody's, or not that which the document names.
func (a *Cloud) Known() error { return a.known() }

// Where names the account and the region.
func (a *Cloud) Where() string {
	if a.known() != nil {
		return a.region
	}
	return "account " + a.account + ", " + a.region
}

// Inside tells whoever does not get to the nodes that only the VPC does; empty: it is not so.
func (a *Cloud) Inside() string {
	if !slices.ContainsFunc(a.c.Spec.Hosts, func(n config.Node) bool { return n.SSH.ProxyJump == "" && n.SSH.Address == n.Address }) {
		return ""
	}
	how := "write ssh.bastion: t4g.nano"
	if !a.aws.Network.Own() {
		how = "with network.vpc a bastion is made only where the document asks for one: write ssh.bastion: t4g.nano, and network.publicSubnets for it"
	}
	return "the nodes have no public addresses, and there is neither a bastion nor ssh.proxyJump: they are reached from inside the VPC alone, or by a VPN; else " + how + ", and run this again"
}

// Identity is the private key for all machines, the bastion among them, and KnownHosts the file for their keys.
func (a *Cloud) Identity() string   { return a.keyFile() }
func (a *Cloud) KnownHosts() string { return a.knownHosts() }
