// Package config is the Cluster document: its types, defaults, validation and printing,
// and the facts of a host.
//
// In goes YAML (or flags); out comes one *[Cluster] that is complete and valid, and that
// nobody changes afterwards. Every file and object of a cluster is computed from it.
package config

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

// APIVersion and Kind head every document.
const (
	APIVersion = "kubewright.dev/v1alpha1"
	Kind       = "Cluster"
)

// Cluster is the whole wish. The zero value plus [Default] is a working cluster.
type Cluster struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names the cluster, in kubeconfigs and in the controller manager.
type Metadata struct {
	Name string `json:"name"`
}

// Spec is what the cluster should be.
type Spec struct {
	KubernetesVersion string       `json:"kubernetesVersion"` // vMAJOR.MINOR.PATCH
	ImageRepository   string       `json:"imageRepository"`
	ControlPlane      ControlPlane `json:"controlPlane"`
	APIServer         Component    `json:"apiServer,omitzero"`
	ControllerManager Component    `json:"controllerManager,omitzero"`
	Scheduler         Component    `json:"scheduler,omitzero"`
	Etcd              Etcd         `json:"etcd"`
	Network           Network      `json:"network"`
	KubeProxy         KubeProxy    `json:"kubeProxy"`
	DNS               DNS          `json:"dns"`
	Addons            Addons       `json:"addons,omitzero"`
	PKI               PKI          `json:"pki"`
	Runtime           Runtime      `json:"runtime"`
	Artifacts         Artifacts    `json:"artifacts,omitzero"`
	// Kubelet is merged over the defaults; the fields are those of a
	// kubelet.config.k8s.io/v1beta1 KubeletConfiguration and checked as such.
	Kubelet map[string]any `json:"kubelet,omitempty"`
	// FeatureGates go to all components.
	FeatureGates map[string]bool `json:"featureGates,omitempty"`
	// Patches is a directory of patch files, with kubeadm's file names.
	Patches string `json:"patches,omitempty"`
	// Timeouts bound each wait.
	Timeouts Timeouts `json:"timeouts"`
	// Hooks are run on every host, before its own.
	Hooks Hooks `json:"hooks,omitzero"`
	// Provider is where the machines of "kubewright up" come from.
	Provider Provider `json:"provider,omitzero"`
	// Hosts hold what differs from host to host; to init and join, a host that is not listed gets the
	// defaults. "kubewright up" makes a cluster of exactly these.
	Hosts []Node `json:"hosts,omitempty"`
}

// ControlPlane is how the API servers are reached.
type ControlPlane struct {
	// Endpoint is a stable HOST[:PORT] for all API servers. Empty: the first one's address.
	Endpoint string   `json:"endpoint,omitempty"`
	CertSANs []string `json:"certSANs,omitempty"` // further names and addresses in the API server's certificate
	BindPort int32    `json:"bindPort"`           // 6443
	// LoadBalancer runs on the workers of a cluster with an internal endpoint (see [Cluster.InternalEndpoint]).
	LoadBalancer LoadBalancer `json:"loadBalancer"`
}

// LoadBalancer is the haproxy that leads a worker to the API servers that are up.
type LoadBalancer struct {
	Image string `json:"image"` // docker.io/library/haproxy:2.6.12; not of imageRepository
}

// Component adjusts a static pod.
type Component struct {
	ExtraArgs    []Arg           `json:"extraArgs,omitempty"` // override the built-in flags of the same name
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ExtraVolumes []HostPath      `json:"extraVolumes,omitempty"`
}

// Arg is a flag without its dashes. The same name may occur more than once.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HostPath is a directory or file of the host, mounted into a static pod.
type HostPath struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly,omitempty"`
	PathType  corev1.HostPathType `json:"pathType,omitempty"`
}

// Etcd is the store, run as a static pod beside each API server, or somewhere else.
type Etcd struct {
	// External etcd is nobody's to install or to change; then no other field here is set.
	External       *ExternalEtcd   `json:"external,omitempty"`
	ImageTag       string          `json:"imageTag,omitempty"`
	DataDir        string          `json:"dataDir,omitempty"`
	ExtraArgs      []Arg           `json:"extraArgs,omitempty"`
	ExtraEnvs      []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ServerCertSANs []string        `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string        `json:"peerCertSANs,omitempty"`
}

// ExternalEtcd is an etcd that runs already. The files are on every control plane; joining
// ones get them with the other certificates.
type ExternalEtcd struct {
	Endpoints []string `json:"endpoints"` // URLs
	CAFile    string   `json:"caFile,omitempty"`
	CertFile  string   `json:"certFile,omitempty"` // of a client
	KeyFile   string   `json:"keyFile,omitempty"`
}

// Network is the pod network and the service network.
type Network struct {
	// PodCIDR and ServiceCIDR are a range, or two of different families with a comma between them:
	// dual-stack. The family that comes first is the cluster's own.
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	DNSDomain   string `json:"dnsDomain"`
	CNI         CNI    `json:"cni"`
}

// CNI is the pod network's implementation.
type CNI struct {
	Name string `json:"name"` // one of [CNIs]
	// MTU of pods' interfaces; 0: the network finds out by itself.
	MTU      int      `json:"mtu,omitempty"`
	Flannel  Flannel  `json:"flannel,omitzero"`
	Calico   Calico   `json:"calico,omitzero"`
	Weave    Weave    `json:"weave,omitzero"`
	Manifest Manifest `json:"manifest,omitzero"`
}

// Flannel are the settings of the flannel network.
type Flannel struct {
	Backend string `json:"backend,omitempty"` // one of [FlannelBackends]
	Version string `json:"version,omitempty"` // of the image
	// At most one of these chooses the interface that carries the traffic between hosts: its name or
	// address; a regular expression of either; an address that is reached through it. None: that of
	// the default route.
	Interface         string `json:"interface,omitempty"`
	InterfaceRegex    string `json:"interfaceRegex,omitempty"`
	InterfaceCanReach string `json:"interfaceCanReach,omitempty"`
	// NFTables has flannel write its rules with nft, not with iptables.
	NFTables bool `json:"nftables,omitempty"`
}

// Calico are the settings of the Calico network, whose manifest is an artifact.
type Calico struct {
	Version       string `json:"version,omitempty"`       // of the manifest and its images
	Encapsulation string `json:"encapsulation,omitempty"` // one of [CalicoEncapsulations]
	// Interface is a method of Calico's IP_AUTODETECTION_METHOD: first-found, interface=eth.*,
	// can-reach=192.0.2.1, cidr=192.0.2.0/24...; empty: kubernetes-internal-ip, the node's own address.
	Interface string `json:"interface,omitempty"`
	// Typha is how many of it stand between the nodes and the API; nil: none below 50 nodes.
	Typha *int32 `json:"typha,omitempty"`
}

// Weave are the settings of the Weave network.
type Weave struct {
	Version string `json:"version,omitempty"` // of the images
	// AcceptDeprecated has to be true: its makers are gone, and a fork mends the worst alone.
	AcceptDeprecated bool `json:"acceptDeprecated,omitempty"`
	// PasswordFile on the machine where kubewright runs holds a password; with it, traffic between hosts is encrypted.
	PasswordFile string `json:"passwordFile,omitempty"`
}

// Manifest is a pod network that is somebody else's.
type Manifest struct {
	Source string `json:"source,omitempty"` // a file where kubewright runs, or a URL
	SHA256 string `json:"sha256,omitempty"` // of it, hexadecimal
}

// KubeProxy makes services reachable on each node.
type KubeProxy struct {
	Mode string `json:"mode"` // one of [ProxyModes]
	// Config is merged over the defaults; the fields are those of a
	// kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration and checked as such.
	Config map[string]any `json:"config,omitempty"`
}

// DNS is CoreDNS.
type DNS struct {
	ImageTag string `json:"imageTag"`
	Replicas int32  `json:"replicas"`
	Disabled bool   `json:"disabled,omitempty"`
}

// Addons are what many clusters have beside what makes them one. None of it is on by default.
type Addons struct {
	MetricsServer bool `json:"metricsServer,omitempty"` // kubectl top, and autoscaling by CPU
	LocalPath     bool `json:"localPath,omitempty"`     // a default StorageClass of folders on the nodes
	// Ingress is a controller of Ingress rules: one of [Ingresses], or empty.
	Ingress string `json:"ingress,omitempty"`
	// DefaultDeny are namespaces where only what a NetworkPolicy allows gets in or out, but for DNS.
	DefaultDeny []string `json:"defaultDeny,omitempty"`
	// CloudController tells the cluster which machines of a cloud its nodes are, and makes load balancers there.
	CloudController CloudController `json:"cloudController,omitzero"`
	EBSCSI          bool            `json:"ebsCSI,omitempty"` // a default StorageClass of volumes in EC2
}

// PKI is how keys and certificates are made. What exists is loaded and never replaced.
type PKI struct {
	Algorithm  string   `json:"algorithm"`  // ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096
	Validity   Duration `json:"validity"`   // of leaf certificates, 8760h
	CAValidity Duration `json:"caValidity"` // 87600h
}

// Runtime is the container runtime of the hosts.
type Runtime struct {
	// Socket where it listens, unix:///run/containerd/containerd.sock, say. Empty: the only
	// one that is found on a host, else containerd's.
	Socket       string `json:"socket,omitempty"`
	SandboxImage string `json:"sandboxImage"` // the pause image
}

// Artifacts is where binaries and images come from, where no bundle holds them.
type Artifacts struct {
	// Mirror is an HTTP address that takes the place of upstream's: a file that upstream has at
	// https://HOST/PATH is at MIRROR/HOST/PATH there, or, in a folder that `bundle push` filled, at
	// MIRROR/blobs/sha256/HEX.
	Mirror string `json:"mirror,omitempty"`
	// CA is trusted for the mirror beside the system's, PEM.
	CA string `json:"ca,omitempty"`
	// Versions of containerd, runc, crictl and cni-plugins, v2.3.4, say. Empty: those of the catalogue.
	Versions   map[string]string `json:"versions,omitempty"`
	Registries []Registry        `json:"registries,omitempty"`
}

// Registry tells where the images of a registry are pulled from: by us, and later by
// the container runtime of each host.
type Registry struct {
	Host string `json:"host"` // registry.k8s.io; "*" is every other
	// Mirrors are asked first, in their order: https://harbor.example.com/k8s has k8s/pause
	// where registry.k8s.io has pause. HOST[:PORT][/PREFIX] alone means https. Credentials
	// are those of Docker's config on each host.
	Mirrors []string `json:"mirrors"`
	// CA is trusted for the mirrors beside the system's, PEM.
	CA string `json:"ca,omitempty"`
	// Exclusive forbids to ask the registry itself when no mirror has an image.
	Exclusive bool `json:"exclusive,omitempty"`
}

// Timeouts bound each wait, as kubeadm's fields of the same names.
type Timeouts struct {
	ControlPlaneComponentHealthCheck Duration `json:"controlPlaneComponentHealthCheck"`
	KubeletHealthCheck               Duration `json:"kubeletHealthCheck"`
	KubernetesAPICall                Duration `json:"kubernetesAPICall"`
	Discovery                        Duration `json:"discovery"`
	TLSBootstrap                     Duration `json:"tlsBootstrap"`
}

// Provider is where machines come from.
type Provider struct {
	Name string       `json:"name"` // hosts: they are there, and reached over SSH; kind: containers; aws: EC2
	Kind KindProvider `json:"kind,omitzero"`
	AWS  AWSProvider  `json:"aws,omitzero"`
}

// KindProvider is how machines are made that are containers: so many of a kind, or one by one.
type KindProvider struct {
	ControlPlanes int    `json:"controlPlanes,omitempty"` // 1
	Workers       int    `json:"workers,omitempty"`
	Image         string `json:"image,omitempty"` // of all nodes; empty: kind's own
	// Nodes are the containers one by one, instead of how many there are.
	Nodes []KindNode `json:"nodes,omitempty"`
	// APIServerAddress and APIServerPort are where the API server is reached on this machine: 127.0.0.1, and a port that is free.
	APIServerAddress string   `json:"apiServerAddress,omitempty"`
	APIServerPort    int32    `json:"apiServerPort,omitempty"`
	DNSSearch        []string `json:"dnsSearch,omitzero"` // not omitempty: [] means none, null that of this machine
	// Patches of each container's own configuration of containerd, which kind applies: TOML, and JSON 6902 patches.
	ContainerdConfigPatches         []string `json:"containerdConfigPatches,omitempty"`
	ContainerdConfigPatchesJSON6902 []string `json:"containerdConfigPatchesJSON6902,omitempty"`
}

// KindNode is a container that is a node; what else may differ from node to node goes with it.
type KindNode struct {
	Role              Role                   `json:"role"`
	Image             string                 `json:"image,omitempty"`
	Labels            map[string]string      `json:"labels,omitempty"`
	Taints            []corev1.Taint         `json:"taints,omitzero"`
	KubeletArgs       []Arg                  `json:"kubeletArgs,omitempty"`
	ExtraMounts       []v1alpha4.Mount       `json:"extraMounts,omitempty"`
	ExtraPortMappings []v1alpha4.PortMapping `json:"extraPortMappings,omitempty"`
}

// SSH is how "kubewright up" reaches a host. What is empty, ~/.ssh/config says, else ssh's own default.
type SSH struct {
	Address      string `json:"address,omitempty"` // IP, name, or a Host of ~/.ssh/config; empty: the node's address, else its name
	User         string `json:"user,omitempty"`
	Port         int32  `json:"port,omitempty"`
	IdentityFile string `json:"identityFile,omitempty"` // a private key; ~ is the home of who runs kubewright
	ProxyJump    string `json:"proxyJump,omitempty"`    // [USER@]HOST[:PORT], several with commas; none: no jump
}

// Hooks are commands of the user's, which "kubewright up" and "kubewright down" run on a host as root, each
// with "sh -c", in their order. One that has succeeded is not run again while the host is a node; one that
// fails stops the host there.
type Hooks struct {
	BeforeInit  []string `json:"beforeInit,omitempty"` // of the first control plane
	AfterInit   []string `json:"afterInit,omitempty"`
	BeforeJoin  []string `json:"beforeJoin,omitempty"` // of every other host
	AfterJoin   []string `json:"afterJoin,omitempty"`
	BeforeReset []string `json:"beforeReset,omitempty"`
	AfterReset  []string `json:"afterReset,omitempty"`
}

// Over gives the hooks of all hosts with those of one behind them.
func (h Hooks) Over(all Hooks) Hooks {
	return Hooks{
		BeforeInit: slices.Concat(all.BeforeInit, h.BeforeInit), AfterInit: slices.Concat(all.AfterInit, h.AfterInit),
		BeforeJoin: slices.Concat(all.BeforeJoin, h.BeforeJoin), AfterJoin: slices.Concat(all.AfterJoin, h.AfterJoin),
		BeforeReset: slices.Concat(all.BeforeReset, h.BeforeReset), AfterReset: slices.Concat(all.AfterReset, h.AfterReset),
	}
}

// Role is what a host does.
type Role string

const (
	ControlPlaneRole Role = "control-plane"
	WorkerRole       Role = "worker"
)

// Node is what differs from host to host.
type Node struct {
	Name  string `json:"name"`            // of the Node object; a DNS subdomain
	Roles []Role `json:"roles,omitempty"` // a control plane without worker gets the taint
	// Address is the IP that the API server advertises, and etcd's.
	// Empty: that of the interface with the default route.
	Address string `json:"address,omitempty"`
	// ProviderID is what the node is to its cloud, aws:///eu-west-1a/i-0123456789abcdef0, say. It can't be changed while there is the node.
	ProviderID string `json:"providerID,omitempty"`
	// OtherAddress is that of the other family, in a dual-stack cluster. Empty: one that the same interface has.
	OtherAddress string            `json:"otherAddress,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	// Taints that the kubelet registers. Null: control planes get node-role.kubernetes.io/control-plane:NoSchedule.
	Taints      []corev1.Taint `json:"taints,omitzero"` // not omitempty: [] means none
	KubeletArgs []Arg          `json:"kubeletArgs,omitempty"`
	// RuntimeSocket overrides spec.runtime.socket on this host: each may have a runtime of its own.
	RuntimeSocket string `json:"runtimeSocket,omitempty"`
	SSH           *SSH   `json:"ssh,omitempty"`
	Hooks         Hooks  `json:"hooks,omitzero"`
}

// Has tells whether the node has a role.
func (n Node) Has(r Role) bool {
	for _, have := range n.Roles {
		if have == r {
			return true
		}
	}
	return false
}

// IP is the node's address; the zero Addr where it is not known yet.
func (n Node) IP() netip.Addr {
	ip, _ := netip.ParseAddr(n.Address)
	return ip
}

// IPs are its addresses as far as they are known, the cluster's own family first.
func (n Node) IPs() (all []netip.Addr) {
	for _, s := range []string{n.Address, n.OtherAddress} {
		if ip, err := netip.ParseAddr(s); err == nil {
			all = append(all, ip)
		}
	}
	return all
}

// Duration is a time.Duration that reads and writes "10m".
type Duration struct{ time.Duration }

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Duration) UnmarshalText(b []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(b))
	return err
}

// IP is the address at which others reach the host in one of the families; the zero Addr where it has none.
// A host without a default route of that family is taken at the interface of its other default route.
func (f Facts) IP(v6 bool) netip.Addr {
	for _, ip := range []netip.Addr{f.DefaultIP, f.DefaultIPv6, f.Beside[f.DefaultIP], f.Beside[f.DefaultIPv6]} {
		if ip.IsValid() && ip.Is6() == v6 {
			return ip
		}
	}
	return netip.Addr{}
}

// Facts are what a host is, gathered once, before the first phase.
type Facts struct {
	Hostname    string         `json:"hostname"`
	Machine     string         `json:"machine"` // amd64, arm64
	Kernel      string         `json:"kernel"`  // uname -r
	OS          string         `json:"os"`      // PRETTY_NAME of os-release
	Addresses   []netip.Prefix `json:"addresses"`
	Routes      []netip.Prefix `json:"routes"`      // of the main table, without default routes
	DefaultIP   netip.Addr     `json:"defaultIP"`   // source address of the default route, of IPv4 if there is one
	DefaultIPv6 netip.Addr     `json:"defaultIPv6"` // that of IPv6
	Gateways    []netip.Addr   `json:"gateways"`    // of all routes
	Resolvers   []netip.Addr   `json:"resolvers"`   // name servers, but for those on the host itself
	// RouteEnds is the interface whose default route of IPv6 the kernel takes from router advertisements, as
	// long as it does not forward (accept_ra is 1); empty: there is none.
	RouteEnds string `json:"routeEnds"`
	// Beside an address: the first of the other family on the same interface.
	Beside        map[netip.Addr]netip.Addr `json:"beside"`
	MTUs          map[netip.Addr]int        `json:"mtus"` // bytes, of the interface that has an address
	MachineID     string                    `json:"machineID"`
	ProductUUID   string                    `json:"productUUID"`   // of the firmware; empty where it has none
	MACs          []string                  `json:"macs"`          // of interfaces with an address that others reach
	Clock         time.Duration             `json:"clock"`         // what the host's is ahead of ours
	DiskFree      int64                     `json:"diskFree"`      // bytes, below /var/lib
	CPUs          int                       `json:"cpus"`          // usable
	MemoryBytes   int64                     `json:"memoryBytes"`   // MemTotal
	CgroupVersion int                       `json:"cgroupVersion"` // 1 or 2
	SwapOn        bool                      `json:"swapOn"`        // /proc/swaps names one
	Root          bool                      `json:"root"`          // we run as uid 0
	Systemd       bool                      `json:"systemd"`       // is pid 1
	Resolved      bool                      `json:"resolved"`      // systemd-resolved answers
	TrustDirs     []string                  `json:"trustDirs"`     // directories with CA certificates, beside /etc/ssl/certs
	Listening     []uint16                  `json:"listening"`     // TCP ports with a listener
	Sockets       []string                  `json:"sockets"`       // runtime sockets that exist
	OwnContainerd bool                      `json:"ownContainerd"` // containerd's unit is one that kubewright wrote
	CgroupDriver  string                    `json:"cgroupDriver"`  // of the runtime, systemd or cgroupfs; empty: nobody asked, or it does not say
	Sysctls       map[string]string         `json:"sysctls"`       // those that matter, by name; absent where the kernel has none
	Commands      map[string]string         `json:"commands"`      // path by name, of the commands that matter
	Present       map[string]bool           `json:"present"`       // paths that preflight looks at
}
