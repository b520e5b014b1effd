package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/blang/semver/v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// The choices of the fields that have few.
var (
	Algorithms           = []string{"ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096"}
	CNIs                 = []string{"flannel", "calico", "weave", "manifest", "none"}
	FlannelBackends      = []string{"vxlan", "host-gw", "wireguard"}
	CalicoEncapsulations = []string{"vxlan", "none", "ipip"}
	ProxyModes           = []string{"iptables", "nftables", "ipvs", "none"}
	Ingresses            = []string{"traefik"}
	CloudControllers     = []string{"aws"}
	minors               = []uint64{34, 35, 36} // of Kubernetes 1
)

// Validate looks at a defaulted document and returns everything that is wrong with it,
// each with its path and what to write instead.
func (c *Cluster) Validate() error {
	p := &problems{}
	s := c.Spec
	p.name("metadata.name", c.Metadata.Name, validation.IsDNS1123Label)
	p.version("spec.kubernetesVersion", s.KubernetesVersion)
	if e := s.ControlPlane.Endpoint; e != "" {
		_, port, err := SplitEndpoint(e, s.ControlPlane.BindPort)
		if err != nil {
			p.add("spec.controlPlane.endpoint", "%v", err)
		} else if _, ok := c.InternalEndpoint(); ok && port != s.ControlPlane.BindPort {
			// On a control plane the name leads to its own API server.
			p.add("spec.controlPlane.endpoint", "%s has a port other than the API servers' own: write %d, or leave it out", e, s.ControlPlane.BindPort)
		}
	}
	p.port("spec.controlPlane.bindPort", s.ControlPlane.BindPort)
	p.sans("spec.controlPlane.certSANs", s.ControlPlane.CertSANs)
	p.sans("spec.etcd.serverCertSANs", s.Etcd.ServerCertSANs)
	p.sans("spec.etcd.peerCertSANs", s.Etcd.PeerCertSANs)
	if s.Etcd.External != nil {
		p.externalEtcd(s.Etcd)
	} else if !strings.HasPrefix(s.Etcd.DataDir, "/") {
		p.add("spec.etcd.dataDir", "%q is not absolute: write a path that begins with /", s.Etcd.DataDir)
	}
	for path, comp := range map[string]Component{"spec.apiServer": s.APIServer, "spec.controllerManager": s.ControllerManager, "spec.scheduler": s.Scheduler,
		"spec.etcd": {ExtraArgs: s.Etcd.ExtraArgs, ExtraEnvs: s.Etcd.ExtraEnvs}} {
		p.component(path, comp)
	}
	p.network(s)
	p.oneOf("spec.kubeProxy.mode", s.KubeProxy.Mode, ProxyModes)
	p.addons(s)
	p.oneOf("spec.pki.algorithm", s.PKI.Algorithm, Algorithms)
	if s.PKI.Validity.Duration <= 0 || s.PKI.CAValidity.Duration <= 0 {
		p.add("spec.pki", "validity and caValidity must be longer than nothing: write 8760h, say")
	} else if s.PKI.Validity.Duration > s.PKI.CAValidity.Duration {
		p.add("spec.pki.validity", "%s is longer than the certificate authority's %s: make it shorter", s.PKI.Validity, s.PKI.CAValidity)
	}
	p.socket("spec.runtime.socket", s.Runtime.Socket)
	p.artifacts(s.Artifacts)
	if s.DNS.Replicas < 0 {
		p.add("spec.dns.replicas", "%d: write 1 or more, or spec.dns.disabled: true", s.DNS.Replicas)
	}
	p.document("spec.kubelet", s.Kubelet, reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]())
	p.document("spec.kubeProxy.config", s.KubeProxy.Config, reflect.TypeFor[kubeproxyv1alpha1.KubeProxyConfiguration]())
	for path, d := range map[string]Duration{"controlPlaneComponentHealthCheck": s.Timeouts.ControlPlaneComponentHealthCheck, "kubeletHealthCheck": s.Timeouts.KubeletHealthCheck,
		"kubernetesAPICall": s.Timeouts.KubernetesAPICall, "discovery": s.Timeouts.Discovery, "tlsBootstrap": s.Timeouts.TLSBootstrap} {
		if d.Duration < 0 {
			p.add("spec.timeouts."+path, "%s is less than nothing: write a duration such as 4m", d)
		}
	}
	p.hosts(s.Hosts)
	if p.all != nil { // maps above: the same report every time
		slices.SortStableFunc(p.all.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	}
	return Errors(p.all)
}

func (p *problems) externalEtcd(e Etcd) {
	const path = "spec.etcd.external"
	x := *e.External
	if e.External = nil; !reflect.DeepEqual(e, Etcd{}) {
		p.add("spec.etcd", "external stands beside fields of an etcd that is installed here: leave those out, or external")
	}
	tls := false
	for i, endpoint := range x.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			p.add(fmt.Sprintf("%s.endpoints[%d]", path, i), "%q: write a URL such as https://192.0.2.21:2379", endpoint)
			continue
		}
		tls = tls || u.Scheme == "https"
	}
	if len(x.Endpoints) == 0 {
		p.add(path+".endpoints", "there is none: write the URLs of etcd's members")
	}
	if tls && x.CAFile == "" {
		p.add(path+".caFile", "is missing, and https needs it: write the path of the CA that signed etcd's certificates")
	}
	if (x.CertFile == "") != (x.KeyFile == "") {
		p.add(path, "certFile and keyFile go together: write both, or neither")
	}
	for name, file := range map[string]string{"caFile": x.CAFile, "certFile": x.CertFile, "keyFile": x.KeyFile} {
		if file != "" && !strings.HasPrefix(file, "/") {
			p.add(path+"."+name, "%q is not absolute: write a path that begins with /", file)
		}
	}
}

func (p *problems) version(path, v string) {
	parsed, err := semver.Parse(strings.TrimPrefix(v, "v"))
	if err != nil {
		p.add(path, "%q is not a version: write v1.36.3, say", v)
		return
	}
	if parsed.Major != 1 || !slices.Contains(minors, parsed.Minor) {
		p.add(path, "%s cannot be installed by this kubewright: write a version from v1.%d to v1.%d", v, minors[0], minors[len(minors)-1])
	}
}

// CheckSocket looks at what names a runtime's socket; empty is as good as a name.
func CheckSocket(s string) error {
	if s != "" && !strings.HasPrefix(s, "unix:///") {
		return fmt.Errorf("%q: write unix:// and an absolute path, %s, say", s, ContainerdSocket)
	}
	return nil
}

func (p *problems) socket(path, s string) {
	if err := CheckSocket(s); err != nil {
		p.add(path, "%v", err)
	}
}

func (p *problems) port(path string, port int32) {
	if port < 1 || port > 65535 {
		p.add(path, "%d is not a port: write a number from 1 to 65535", port)
	}
}

func (p *problems) sans(path string, sans []string) {
	for i, san := range sans {
		if net.ParseIP(san) == nil && len(validation.IsDNS1123Subdomain(san)) > 0 && len(validation.IsWildcardDNS1123Subdomain(san)) > 0 {
			p.add(fmt.Sprintf("%s[%d]", path, i), "%q is neither an IP address nor a DNS name", san)
		}
	}
}

func (p *problems) component(path string, c Component) {
	p.args(path+".extraArgs", c.ExtraArgs)
	for i, e := range c.ExtraEnvs {
		p.each(fmt.Sprintf("%s.extraEnvs[%d].name", path, i), validation.IsEnvVarName(e.Name))
	}
	for i, v := range c.ExtraVolumes {
		at := fmt.Sprintf("%s.extraVolumes[%d]", path, i)
		p.name(at+".name", v.Name, validation.IsDNS1123Label)
		if !strings.HasPrefix(v.HostPath, "/") || !strings.HasPrefix(v.MountPath, "/") {
			p.add(at, "hostPath %q and mountPath %q must both be absolute", v.HostPath, v.MountPath)
		}
	}
}

func (p *problems) args(path string, args []Arg) {
	for i, a := range args {
		if a.Name == "" || strings.HasPrefix(a.Name, "-") || strings.ContainsAny(a.Name, "= ") {
			p.add(fmt.Sprintf("%s[%d].name", path, i), "%q: write the flag's name without dashes, and its value under value", a.Name)
		}
	}
}

func (p *problems) network(s Spec) {
	n := s.Network
	p.each("spec.network.dnsDomain", validation.IsDNS1123Subdomain(n.DNSDomain))
	if name := n.CNI.Name; !slices.Contains(CNIs, name) {
		p.add("spec.network.cni.name", "%q is unknown: write one of %s; manifest installs any other, named by manifest: {source: FILE or address, sha256: DIGEST}", name, strings.Join(CNIs, ", "))
	}
	p.cni(n)
	p.ranges(s)
	p.mtu(n)
	if n.CNI.Name == "flannel" {
		p.flannel(n)
	}
}

// document checks overrides against the type that reads them.
func (p *problems) document(path string, m map[string]any, into reflect.Type) {
	for _, fixed := range []string{"apiVersion", "kind"} {
		if _, ok := m[fixed]; ok {
			p.add(path+"."+fixed, "is implied: leave it out")
		}
	}
	p.fits(path, m, into)
}

// ValidateHosts is the part of [Cluster.Validate] that needs no defaults and nothing from the hosts.
func (c *Cluster) ValidateHosts() error {
	p := &problems{}
	p.hosts(c.Spec.Hosts)
	return Errors(p.all)
}

func (p *problems) hosts(hosts []Node) {
	names, addresses := map[string]int{}, map[string]int{}
	ways := map[SSH]int{}
	for i, h := range hosts {
		at := fmt.Sprintf("spec.hosts[%d]", i)
		p.name(at+".name", h.Name, validation.IsDNS1123Subdomain)
		if j, ok := names[h.Name]; ok {
			p.add(at+".name", "%q is the name of spec.hosts[%d] already", h.Name, j)
		}
		names[h.Name] = i
		for _, r := range h.Roles {
			p.oneOf(at+".roles", string(r), []string{string(ControlPlaneRole), string(WorkerRole)})
		}
		if h.Address != "" {
			if !h.IP().IsValid() {
				p.add(at+".address", "%q is not an IP address", h.Address)
			}
			if j, ok := addresses[h.Address]; ok {
				p.add(at+".address", "%s is the address of spec.hosts[%d] already", h.Address, j)
			}
			addresses[h.Address] = i
		}
		if h.SSH != nil && h.SSH.Address != "" {
			way := SSH{Address: h.SSH.Address, Port: cmp.Or(h.SSH.Port, 22), ProxyJump: h.SSH.ProxyJump}
			if j, ok := ways[way]; ok {
				p.add(at+".ssh", "leads to the host of spec.hosts[%d] already, %s", j, way.Address)
			}
			ways[way] = i
		}
		if ip, err := netip.ParseAddr(h.OtherAddress); h.OtherAddress != "" && (err != nil || h.IP().IsValid() && ip.Is6() == h.IP().Is6()) {
			p.add(at+".otherAddress", "%q: write an IP address of the family that %s is not of", h.OtherAddress, first(h.Address, "address"))
		}
		if scheme, _, ok := strings.Cut(h.ProviderID, "://"); h.ProviderID != "" && (!ok || scheme == "" || strings.ContainsAny(h.ProviderID, " \"'")) {
			p.add(at+".providerID", "%q: write what the cloud calls the machine, aws:///eu-west-1a/i-0123456789abcdef0, say", h.ProviderID)
		}
		p.marks(at, h.Labels, h.Taints)
		p.args(at+".kubeletArgs", h.KubeletArgs)
		p.socket(at+".runtimeSocket", h.RuntimeSocket)
	}
}

// marks are a node's labels and taints.
func (p *problems) marks(at string, labels map[string]string, taints []corev1.Taint) {
	for k, v := range labels {
		p.each(at+".labels."+k, validation.IsQualifiedName(k))
		p.each(at+".labels."+k, validation.IsValidLabelValue(v))
	}
	for j, t := range taints {
		p.each(fmt.Sprintf("%s.taints[%d].key", at, j), validation.IsQualifiedName(t.Key))
		p.oneOf(fmt.Sprintf("%s.taints[%d].effect", at, j), string(t.Effect),
			[]string{string(corev1.TaintEffectNoSchedule), string(corev1.TaintEffectPreferNoSchedule), string(corev1.TaintEffectNoExecute)})
	}
}

// SplitEndpoint takes HOST, HOST:PORT, [IPv6]:PORT or IPv6 apart.
func SplitEndpoint(endpoint string, defaultPort int32) (host string, port int32, err error) {
	if strings.Contains(endpoint, "/") {
		return "", 0, fmt.Errorf("%q is a URL: write HOST:PORT alone, without https://", endpoint)
	}
	host, port = strings.Trim(endpoint, "[]"), defaultPort
	if h, ps, e := net.SplitHostPort(endpoint); e == nil {
		n, e := strconv.ParseUint(ps, 10, 16)
		if e != nil || n == 0 {
			return "", 0, fmt.Errorf("%q: the port must be a number from 1 to 65535", endpoint)
		}
		host, port = h, int32(n)
	}
	if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
		return "", 0, fmt.Errorf("%q is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not %d", endpoint, defaultPort)
	}
	return host, port, nil
}
