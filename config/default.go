package config

import (
	"strings"
	"time"

	"github.com/blang/semver/v4"
)

// Versions are those of what a cluster is made of. A bundle knows them; where there is
// none, those that kubeadm of the same minor would take.
type Versions struct {
	Kubernetes string // v1.36.3
	Etcd       string // 3.6.8-0
	CoreDNS    string // v1.14.2
	Pause      string // 3.10.2
	Flannel    string // v0.28.10
	Calico     string // v3.32.1
	Weave      string // 2.9.0
	HAProxy    string // 2.6.12
}

// catalogue is what is used where neither the document nor a bundle says, a row for each minor
// version of Kubernetes, the newest last. Etcd, CoreDNS and pause are those of kubeadm, constants.go.
// haproxy is one of a branch with long support, and the same everywhere: it knows nothing of Kubernetes.
var catalogue = []Versions{
	{Kubernetes: "v1.34.4", Etcd: "3.6.5-0", CoreDNS: "v1.12.1", Pause: "3.10.1", Flannel: "v0.28.10", HAProxy: "2.6.12"},
	{Kubernetes: "v1.35.4", Etcd: "3.6.6-0", CoreDNS: "v1.13.1", Pause: "3.10.1", Flannel: "v0.28.10", HAProxy: "2.6.12"},
	{Kubernetes: "v1.36.3", Etcd: "3.6.8-0", CoreDNS: "v1.14.2", Pause: "3.10.2", Flannel: "v0.28.10", HAProxy: "2.6.12"},
}

// catalogued gives the row for a version of Kubernetes; for none, and for those that validation refuses, the newest.
func catalogued(kubernetes string) Versions {
	for _, row := range catalogue {
		if minor(row.Kubernetes) == minor(kubernetes) {
			return row
		}
	}
	return catalogue[len(catalogue)-1]
}

// minor gives 1.36 of v1.36.3.
func minor(version string) string {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// AtLeast tells whether the cluster has this version of Kubernetes, v1.36.0, say, or a newer one.
func (c *Cluster) AtLeast(version string) bool {
	want, errWant := semver.ParseTolerant(version)
	have, err := semver.ParseTolerant(c.Spec.KubernetesVersion)
	return errWant == nil && err == nil && have.GTE(want)
}

// Versions are those that a document names.
func (c *Cluster) Versions() Versions {
	s := c.Spec
	_, pause, _ := strings.Cut(s.Runtime.SandboxImage, "/pause:")
	_, haproxy, _ := strings.Cut(s.ControlPlane.LoadBalancer.Image, "/haproxy:")
	return Versions{Kubernetes: s.KubernetesVersion, Etcd: s.Etcd.ImageTag, CoreDNS: s.DNS.ImageTag, Pause: pause, Flannel: s.Network.CNI.Flannel.Version,
		Calico: s.Network.CNI.Calico.Version, Weave: s.Network.CNI.Weave.Version, HAProxy: haproxy}
}

// Default fills what the document leaves open, first from v, then with what goes with its version of Kubernetes.
func (c *Cluster) Default(v Versions) {
	set(&c.APIVersion, APIVersion)
	set(&c.Kind, Kind)
	set(&c.Metadata.Name, "kubernetes")
	s := &c.Spec
	set(&s.KubernetesVersion, v.Kubernetes, catalogued("").Kubernetes)
	if !strings.HasPrefix(s.KubernetesVersion, "v") {
		s.KubernetesVersion = "v" + s.KubernetesVersion // kubeadm takes both
	}
	row := catalogued(s.KubernetesVersion)
	set(&s.ImageRepository, "registry.k8s.io")
	if s.ControlPlane.BindPort == 0 {
		s.ControlPlane.BindPort = 6443
	}
	set(&s.ControlPlane.LoadBalancer.Image, "docker.io/library/haproxy:"+first(v.HAProxy, row.HAProxy))
	if s.Etcd.External == nil {
		set(&s.Etcd.ImageTag, v.Etcd, row.Etcd)
		set(&s.Etcd.DataDir, "/var/lib/etcd")
	}
	set(&s.Network.DNSDomain, "cluster.local")
	set(&s.Network.CNI.Name, "flannel")
	s.Network.defaults(s.Network.CNI.Name == "flannel")
	if s.Network.CNI.Name == "flannel" {
		set(&s.Network.CNI.Flannel.Backend, "vxlan")
		set(&s.Network.CNI.Flannel.Version, v.Flannel, row.Flannel)
	}
	c.defaultCNI(v)
	set(&s.KubeProxy.Mode, "iptables")
	set(&s.DNS.ImageTag, v.CoreDNS, row.CoreDNS)
	if s.DNS.Replicas == 0 {
		s.DNS.Replicas = 2
	}
	set(&s.PKI.Algorithm, "ECDSA-P256")
	wait(&s.PKI.Validity, 365*24*time.Hour)
	wait(&s.PKI.CAValidity, 10*365*24*time.Hour)
	set(&s.Runtime.SandboxImage, s.ImageRepository+"/pause:"+first(v.Pause, row.Pause))
	wait(&s.Timeouts.ControlPlaneComponentHealthCheck, 4*time.Minute)
	wait(&s.Timeouts.KubeletHealthCheck, 4*time.Minute)
	wait(&s.Timeouts.KubernetesAPICall, time.Minute)
	wait(&s.Timeouts.Discovery, 5*time.Minute)
	wait(&s.Timeouts.TLSBootstrap, 5*time.Minute)
	s.Artifacts.normalise()
	for i := range s.Hosts {
		if len(s.Hosts[i].Roles) == 0 {
			s.Hosts[i].Roles = []Role{WorkerRole}
		}
	}
}

// Node gives the node of this host in the role that it is about to take: what the
// document says of it, completed by the facts.
func (c *Cluster) Node(name string, role Role, f Facts) Node {
	if name == "" {
		name = strings.ToLower(f.Hostname)
	}
	n := Node{Name: name}
	for _, h := range c.Spec.Hosts {
		if h.Name == name {
			n = h
		}
	}
	if !n.Has(role) {
		n.Roles = []Role{role}
	}
	n = c.Addressed(n, f)
	if n.RuntimeSocket == "" && c.Spec.Runtime.Socket == "" && len(f.Sockets) == 1 {
		n.RuntimeSocket = f.Sockets[0]
	}
	return n
}

// Addressed gives a node the addresses that the document leaves open: that of the cluster's own family,
// and in a dual-stack cluster the one of the other family.
func (c *Cluster) Addressed(n Node, f Facts) Node {
	v6 := c.Spec.Network.IPv6()
	if own := f.IP(v6); n.Address == "" && own.IsValid() {
		n.Address = own.String()
	} else if n.Address == "" && f.DefaultIP.IsValid() {
		n.Address = f.DefaultIP.String() // preflight has a word on it
	}
	if !c.Spec.Network.DualStack() || n.OtherAddress != "" || !n.IP().IsValid() {
		return n
	}
	other := f.Beside[n.IP()]
	if !other.IsValid() {
		other = f.IP(!n.IP().Is6())
	}
	if other.IsValid() {
		n.OtherAddress = other.String()
	}
	return n
}

// InternalDomain ends the names of endpoints that the hosts of a cluster map by themselves, each in its hosts file.
const InternalDomain = ".kubewright.internal"

// InternalEndpoint is the name of such an endpoint; false where somebody else resolves the endpoint, or there is none.
func (c *Cluster) InternalEndpoint() (name string, ok bool) {
	name, _, err := SplitEndpoint(c.Spec.ControlPlane.Endpoint, c.Spec.ControlPlane.BindPort)
	if err != nil || !strings.HasSuffix(name, InternalDomain) {
		return "", false
	}
	return name, true
}

// ControlPlanes are the hosts of the document that are control planes and whose address is known.
func (c *Cluster) ControlPlanes() (nodes []Node) {
	for _, h := range c.Spec.Hosts {
		if h.Has(ControlPlaneRole) && h.IP().IsValid() {
			nodes = append(nodes, h)
		}
	}
	return nodes
}

// ContainerdSocket is where containerd listens.
const ContainerdSocket = "unix:///run/containerd/containerd.sock"

// Socket is where the container runtime of a node listens, unix:///...
func (c *Cluster) Socket(n Node) string {
	return first(n.RuntimeSocket, c.Spec.Runtime.Socket, ContainerdSocket)
}

// Over gives t where it says something, and base elsewhere.
func (t Timeouts) Over(base Timeouts) Timeouts {
	wait(&t.ControlPlaneComponentHealthCheck, base.ControlPlaneComponentHealthCheck.Duration)
	wait(&t.KubeletHealthCheck, base.KubeletHealthCheck.Duration)
	wait(&t.KubernetesAPICall, base.KubernetesAPICall.Duration)
	wait(&t.Discovery, base.Discovery.Duration)
	wait(&t.TLSBootstrap, base.TLSBootstrap.Duration)
	return t
}

// Over gives n where it says something, and base elsewhere. The roles are those of base.
func (n Node) Over(base Node) Node {
	if n.Name != "" {
		base.Name = n.Name
	}
	if n.Address != "" {
		base.Address = n.Address
	}
	if n.OtherAddress != "" {
		base.OtherAddress = n.OtherAddress
	}
	if n.Labels != nil {
		base.Labels = n.Labels
	}
	if n.Taints != nil {
		base.Taints = n.Taints
	}
	if n.KubeletArgs != nil {
		base.KubeletArgs = n.KubeletArgs
	}
	return base
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func set(s *string, values ...string) { *s = first(append([]string{*s}, values...)...) }

func wait(d *Duration, v time.Duration) {
	if d.Duration == 0 {
		d.Duration = v
	}
}
