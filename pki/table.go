package pki

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kubewright/kubewright/config"
)

// Dir holds what all of the control plane reads.
const Dir = "/etc/kubernetes/pki"

const (
	confDir    = "/etc/kubernetes"
	kubeletDir = "/var/lib/kubelet/pki"
)

// Names of certificates: absolute paths without ".crt", ".key" or ".csr".
const (
	CA                     = Dir + "/ca"
	APIServer              = Dir + "/apiserver"
	APIServerKubeletClient = Dir + "/apiserver-kubelet-client"
	FrontProxyCA           = Dir + "/front-proxy-ca"
	FrontProxyClient       = Dir + "/front-proxy-client"
	EtcdCA                 = Dir + "/etcd/ca"
	EtcdServer             = Dir + "/etcd/server"
	EtcdPeer               = Dir + "/etcd/peer"
	EtcdHealthcheckClient  = Dir + "/etcd/healthcheck-client"
	APIServerEtcdClient    = Dir + "/apiserver-etcd-client"
	KubeletServing         = kubeletDir + "/kubelet"
	ServiceAccount         = Dir + "/sa" // a key pair only: .key and .pub
)

// Paths of kubeconfigs, and of the certificate that a kubelet rotates.
const (
	AdminConf             = confDir + "/admin.conf"
	SuperAdminConf        = confDir + "/super-admin.conf"
	ControllerManagerConf = confDir + "/controller-manager.conf"
	SchedulerConf         = confDir + "/scheduler.conf"
	KubeletConf           = confDir + "/kubelet.conf"
	BootstrapKubeletConf  = confDir + "/bootstrap-kubelet.conf"
	KubeletClientCurrent  = kubeletDir + "/kubelet-client-current.pem"
)

// spec is one certificate of the contract, or one kubeconfig with the certificate in it.
type spec struct {
	name   string   // a path without suffix; of a kubeconfig, its path
	parent string   // the name of the CA that signs it; empty for a CA
	cn     string   // NODE stands for the node's name
	org    string   // only where the API server derives a group from it
	usages []string // extended key usages, in cfssl's words
	sans   func(*config.Cluster, config.Node) []string
	server func(*config.Cluster, config.Node) string // of a kubeconfig: where it points to
	worker bool                                      // workers have it too; without it, control planes only
}

var (
	server = []string{"server auth"}
	client = []string{"client auth"}
	both   = []string{"server auth", "client auth"} // etcd wants both: etcd-io/etcd#9785
)

// table is the contract: cmd/kubeadm/app/phases/certs/certlist.go and
// phases/kubeconfig/kubeconfig.go of kubeadm v1.36.3. A CA stands before what it signs.
var table = []spec{
	{name: CA, cn: "kubernetes", worker: true},
	{name: APIServer, parent: CA, cn: "kube-apiserver", usages: server, sans: apiServerSANs},
	{name: APIServerKubeletClient, parent: CA, cn: "kube-apiserver-kubelet-client", usages: client},

	{name: FrontProxyCA, cn: "front-proxy-ca"},
	{name: FrontProxyClient, parent: FrontProxyCA, cn: "front-proxy-client", usages: client},

	{name: EtcdCA, cn: "etcd-ca"},
	{name: EtcdServer, parent: EtcdCA, cn: "NODE", usages: both, sans: etcdServerSANs},
	{name: EtcdPeer, parent: EtcdCA, cn: "NODE", usages: both, sans: etcdPeerSANs},
	{name: EtcdHealthcheckClient, parent: EtcdCA, cn: "kube-etcd-healthcheck-client", usages: client},
	{name: APIServerEtcdClient, parent: EtcdCA, cn: "kube-apiserver-etcd-client", usages: client},

	// Not kubeadm's: there a kubelet signs its own, which nobody can verify.
	{name: KubeletServing, parent: CA, cn: "system:node:NODE", org: "system:nodes", usages: server, sans: kubeletSANs, worker: true},

	{name: AdminConf, parent: CA, cn: "kubernetes-admin", org: "kubeadm:cluster-admins", usages: client, server: ControlPlaneURL},
	{name: SuperAdminConf, parent: CA, cn: "kubernetes-super-admin", org: "system:masters", usages: client, server: ControlPlaneURL},
	{name: ControllerManagerConf, parent: CA, cn: "system:kube-controller-manager", usages: client, server: LocalURL},
	{name: SchedulerConf, parent: CA, cn: "system:kube-scheduler", usages: client, server: LocalURL},
	{name: KubeletConf, parent: CA, cn: "system:node:NODE", org: "system:nodes", usages: client, server: kubeletURL, worker: true},
}

func (sp spec) isCA() bool         { return sp.parent == "" }
func (sp spec) isKubeconfig() bool { return sp.server != nil }

// file is what a message calls it.
func (sp spec) file() string {
	if sp.isKubeconfig() {
		return sp.name
	}
	return sp.name + ".crt"
}

func (sp spec) commonName(n config.Node) string { return strings.ReplaceAll(sp.cn, "NODE", n.Name) }

func (sp spec) hosts(c *config.Cluster, n config.Node) []string {
	if sp.sans == nil {
		return nil
	}
	seen := map[string]bool{}
	var unique []string
	for _, san := range sp.sans(c, n) {
		if ip, err := netip.ParseAddr(san); err == nil {
			san = ip.String()
		}
		if san != "" && !seen[san] {
			seen[san] = true
			unique = append(unique, san)
		}
	}
	return unique
}

func apiServerSANs(c *config.Cluster, n config.Node) []string {
	sans := []string{n.Name, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + c.Spec.Network.DNSDomain, firstServiceIP(c), n.Address, n.OtherAddress}
	if e := c.Spec.ControlPlane.Endpoint; e != "" {
		if host, _, err := config.SplitEndpoint(e, c.Spec.ControlPlane.BindPort); err == nil {
			sans = append(sans, host)
		}
	}
	return append(sans, c.Spec.ControlPlane.CertSANs...)
}

func etcdServerSANs(c *config.Cluster, n config.Node) []string {
	return append(etcdSANs(n), c.Spec.Etcd.ServerCertSANs...)
}

func etcdPeerSANs(c *config.Cluster, n config.Node) []string {
	return append(etcdSANs(n), c.Spec.Etcd.PeerCertSANs...)
}

func etcdSANs(n config.Node) []string {
	return []string{n.Name, "localhost", n.Address, "127.0.0.1", "::1"}
}

func kubeletSANs(_ *config.Cluster, n config.Node) []string {
	return []string{n.Name, n.Address, n.OtherAddress}
}

// firstServiceIP is the address of the service "kubernetes", which has one of the cluster's own family alone; empty
// for a range that cannot be read.
func firstServiceIP(c *config.Cluster) string {
	ranges := c.Spec.Network.ServiceRanges()
	if len(ranges) == 0 {
		return ""
	}
	return ranges[0].Addr().Next().String()
}

// ControlPlaneURL is the stable address of all API servers. Without an endpoint in the
// document it is the node's own if that is a control plane, else the first one's that
// the document lists; empty if it lists none.
func ControlPlaneURL(c *config.Cluster, n config.Node) string {
	if e := c.Spec.ControlPlane.Endpoint; e != "" {
		host, port, err := config.SplitEndpoint(e, c.Spec.ControlPlane.BindPort)
		if err != nil {
			return ""
		}
		return url(host, port)
	}
	for _, h := range append([]config.Node{n}, c.Spec.Hosts...) {
		if h.Has(config.ControlPlaneRole) && h.Address != "" {
			return LocalURL(c, h)
		}
	}
	return ""
}

// LocalURL is the API server on the node itself, by the address that it advertises.
func LocalURL(c *config.Cluster, n config.Node) string {
	return url(n.IP().String(), c.Spec.ControlPlane.BindPort)
}

// kubeletURL keeps a control plane's kubelet on its own API server: another one may still be
// a version behind during an upgrade, and a kubelet must not be newer than what it talks to.
func kubeletURL(c *config.Cluster, n config.Node) string {
	if n.Has(config.ControlPlaneRole) {
		return LocalURL(c, n)
	}
	return ControlPlaneURL(c, n)
}

func url(host string, port int32) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}
