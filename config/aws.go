package config

import corev1 "k8s.io/api/core/v1"

// AWSProvider is how machines are made in EC2, and what lies around them. What is empty has a default, or is made;
// what is named by id is there already, is used, and is never changed or deleted.
type AWSProvider struct {
	Region string `json:"region,omitempty"` // empty: that of the environment or the profile, as for every tool of AWS
	// Account is the id of the account that must be the one in charge; empty: whichever the credentials are of.
	Account string            `json:"account,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"` // of everything that is made, beside our own
	Network AWSNetwork        `json:"network,omitzero"`
	SSH     AWSSSH            `json:"ssh,omitzero"`
	// LoadBalancer is before the API servers.
	LoadBalancer AWSLoadBalancer `json:"loadBalancer,omitzero"`
	ControlPlane AWSMachines     `json:"controlPlane,omitzero"`
	Pools        []AWSPool       `json:"pools,omitempty"` // of workers
}

// AWSNetwork is the VPC and its subnets: one of the cluster's own, or one that is there.
type AWSNetwork struct {
	CIDR  string   `json:"cidr,omitempty"`  // of a VPC of the cluster's own: 10.0.0.0/16
	Zones []string `json:"zones,omitempty"` // eu-west-1a...; empty: the first three that have NAT gateways and network load balancers
	// NAT is what leads out of the private subnets: single (one for all), zone (one in each zone), or none: nodes are in
	// the public subnets.
	NAT string `json:"nat,omitempty"`
	// VPC and Subnets are ids of what is there. Nodes are spread over the subnets. A bastion is in PublicSubnets, and so is a load balancer that
	// faces the internet, if there are any; else it is in Subnets, in the first one of each zone.
	VPC           string   `json:"vpc,omitempty"`
	Subnets       []string `json:"subnets,omitempty"`
	PublicSubnets []string `json:"publicSubnets,omitempty"`
}

// AWSSSH is how the machines are reached.
type AWSSSH struct {
	User string `json:"user,omitempty"` // of the image: ubuntu
	// KeyName is a key pair that is there, and IdentityFile its private key; both empty: a key is made for the cluster, and kept
	// in the user's data folder.
	KeyName      string `json:"keyName,omitempty"`
	IdentityFile string `json:"identityFile,omitempty"`
	// From are the ranges from which the nodes, or the bastion, may be reached by SSH. Empty: everybody's, as the public address of who
	// runs this can't be known; but the VPC's own where nodes have no public addresses, and there is no bastion.
	From []string `json:"from,omitzero"`
	// Bastion is a small machine in a public subnet through which nodes in private ones are reached: its size; none: ProxyJump or a VPN
	// leads there. Default: t4g.nano where the nodes are in private subnets of the cluster's own VPC, unless there is a ProxyJump.
	Bastion   string `json:"bastion,omitempty"`
	ProxyJump string `json:"proxyJump,omitempty"` // a jump host of the user's own
}

// AWSLoadBalancer is a network load balancer.
type AWSLoadBalancer struct {
	Scheme string   `json:"scheme,omitempty"` // internet-facing, or internal
	From   []string `json:"from,omitzero"`    // ranges from which the API is reached, beside the nodes; empty: everybody's, or nobody's of an internal one but the VPC's
}

// AWSMachines are machines that are alike.
type AWSMachines struct {
	Count        *int   `json:"count,omitempty"`        // of control planes 1 where nothing is written; of a pool it has to be
	InstanceType string `json:"instanceType,omitempty"` // t3.medium; its architecture is that of the image
	Image        string `json:"image,omitempty"`        // ami-...; empty: for a new machine the newest Ubuntu 24.04 of Canonical's
	DiskGiB      int32  `json:"diskGiB,omitempty"`      // of the root volume, gp3, encrypted: 40
	// InstanceProfile is the name of one that is there; empty: control planes get one with least privileges, which is made, and workers none.
	InstanceProfile string `json:"instanceProfile,omitempty"`
}

// Number is how many there are to be; of a pool whose count is not written 0.
func (m AWSMachines) Number() int {
	if m.Count == nil {
		return 0
	}
	return *m.Count
}

// AWSPool are workers that are alike.
type AWSPool struct {
	Name string `json:"name"`
	AWSMachines
	Zones  []string          `json:"zones,omitempty"` // empty: those of the network
	Spot   bool              `json:"spot,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Taints []corev1.Taint    `json:"taints,omitempty"`
}
