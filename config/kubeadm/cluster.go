package kubeadm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

// ClusterConfiguration is key ClusterConfiguration of kube-system/kubeadm-config: the wish
// in kubeadm's words, from which its join and upgrade compute what we computed. Kubeadm has
// no feature gates of the whole cluster: they have to be among the arguments.
func ClusterConfiguration(c *config.Cluster) ([]byte, error) {
	s := c.Spec
	k := clusterConfiguration{
		APIVersion:                  version,
		Kind:                        "ClusterConfiguration",
		APIServer:                   apiServer{s.APIServer, s.ControlPlane.CertSANs},
		CACertificateValidityPeriod: s.PKI.CAValidity,
		CertificateValidityPeriod:   s.PKI.Validity,
		CertificatesDir:             pkiDir,
		ClusterName:                 c.Metadata.Name,
		ControlPlaneEndpoint:        s.ControlPlane.Endpoint,
		ControllerManager:           s.ControllerManager,
		DNS:                         dns{ImageTag: s.DNS.ImageTag, Disabled: s.DNS.Disabled},
		EncryptionAlgorithm:         s.PKI.Algorithm,
		Etcd: etcd{Local: &localEtcd{
			ImageTag: s.Etcd.ImageTag, DataDir: s.Etcd.DataDir,
			ExtraArgs: s.Etcd.ExtraArgs, ExtraEnvs: s.Etcd.ExtraEnvs,
			ServerCertSANs: s.Etcd.ServerCertSANs, PeerCertSANs: s.Etcd.PeerCertSANs,
		}},
		ImageRepository:   s.ImageRepository,
		KubernetesVersion: s.KubernetesVersion,
		Networking:        networking{s.Network.DNSDomain, s.Network.PodCIDR, s.Network.ServiceCIDR},
		Proxy:             proxy{Disabled: s.KubeProxy.Mode == "none"},
		Scheduler:         s.Scheduler,
	}
	// A tag that is kubeadm's own choice is left to it, so that its upgrade chooses the next one.
	etcdTag, dnsTag := tags(s.KubernetesVersion)
	if e := s.Etcd.External; e != nil {
		k.Etcd = etcd{External: &externalEtcd{*e, e.Endpoints}}
	} else if etcdTag == s.Etcd.ImageTag {
		k.Etcd.Local.ImageTag = ""
	}
	if dnsTag == s.DNS.ImageTag {
		k.DNS.ImageTag = ""
	}
	return yaml.Marshal(k)
}

// tags are the etcd and CoreDNS that kubeadm of a version takes; empty where we do not know.
func tags(version string) (etcd, dns string) {
	if strings.HasPrefix(version, "v1.36.") {
		return "3.6.8-0", "v1.14.2" // constants.go of kubeadm v1.36.3
	}
	return "", ""
}

// ReadClusterConfiguration is the reverse, for a cluster that kubeadm made: what its document
// says, the rest left to [config.Cluster.Default]. A newer kubeadm's fields, which we don't
// know, are passed over; a wish that we can't fulfil is an error.
func ReadClusterConfiguration(b []byte) (*config.Cluster, error) {
	var k clusterConfiguration
	if err := yaml.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("kubeadm's ClusterConfiguration: %w", err)
	}
	if err := k.supported(); err != nil {
		return nil, fmt.Errorf("kubeadm's ClusterConfiguration: %w", err)
	}
	c := &config.Cluster{}
	k.into(c)
	c.Spec.Network.CNI.Name = "none" // whatever it has, it is not ours
	return c, nil
}

// supported names the first thing that would make our control plane differ from its others.
func (k clusterConfiguration) supported() error {
	switch {
	case k.APIVersion != version || k.Kind != "ClusterConfiguration":
		return fmt.Errorf("it is %s %s, not %s: convert it with kubeadm config migrate", k.APIVersion, k.Kind, version)
	case k.CertificatesDir != "" && k.CertificatesDir != pkiDir:
		return fmt.Errorf("certificatesDir: only %s is supported, not %s: join this host with kubeadm", pkiDir, k.CertificatesDir)
	case k.Etcd.Local != nil && k.Etcd.Local.ImageRepository != "" && k.Etcd.Local.ImageRepository != k.ImageRepository:
		return fmt.Errorf("etcd.local.imageRepository: only that of the cluster is supported: join this host with kubeadm")
	}
	return nil
}

func (k clusterConfiguration) into(c *config.Cluster) {
	c.Metadata.Name = k.ClusterName
	s := &c.Spec
	s.KubernetesVersion = k.KubernetesVersion
	s.ImageRepository = k.ImageRepository
	s.ControlPlane.Endpoint = k.ControlPlaneEndpoint
	s.ControlPlane.CertSANs = k.APIServer.CertSANs
	s.APIServer = k.APIServer.Component
	s.ControllerManager = k.ControllerManager
	s.Scheduler = k.Scheduler
	s.Network.DNSDomain = k.Networking.DNSDomain
	s.Network.PodCIDR = k.Networking.PodSubnet
	s.Network.ServiceCIDR = k.Networking.ServiceSubnet
	s.DNS.ImageTag, s.DNS.Disabled = k.DNS.ImageTag, k.DNS.Disabled
	if k.Proxy.Disabled {
		s.KubeProxy.Mode = "none"
	}
	s.PKI = config.PKI{Algorithm: k.EncryptionAlgorithm, Validity: k.CertificateValidityPeriod, CAValidity: k.CACertificateValidityPeriod}
	if e := k.Etcd.External; e != nil {
		s.Etcd.External = &e.ExternalEtcd
	} else if e := k.Etcd.Local; e != nil {
		s.Etcd = config.Etcd{
			ImageTag: e.ImageTag, DataDir: e.DataDir, ExtraArgs: e.ExtraArgs, ExtraEnvs: e.ExtraEnvs,
			ServerCertSANs: e.ServerCertSANs, PeerCertSANs: e.PeerCertSANs,
		}
	}
}

var number = regexp.MustCompile(`^v?\d+\.\d+\.\d+`)

// cluster looks at what config.Cluster cannot say.
func (p *problems) cluster(k clusterConfiguration) {
	const at = "ClusterConfiguration"
	if v := k.KubernetesVersion; v != "" && !number.MatchString(v) {
		p.add(at+".kubernetesVersion", "%q is not a version: write v1.36.3, say, or leave it out for that of the bundle", v)
	}
	repository := k.ImageRepository
	if repository == "" {
		repository = "registry.k8s.io"
	}
	const one = "all images come from one repository: leave it out, or write imageRepository"
	if k.Etcd.Local != nil && k.Etcd.Local.ImageRepository != "" && k.Etcd.Local.ImageRepository != repository {
		p.add(at+".etcd.local.imageRepository", "kubewright does not honour this: %s", one)
	}
	if e := k.Etcd.External; e != nil && e.HTTPEndpoints != nil && !slices.Equal(e.HTTPEndpoints, e.Endpoints) {
		p.add(at+".etcd.external.httpEndpoints", "kubewright does not honour this: leave it out, as it is the same as endpoints")
	}
	if k.Etcd.External != nil && k.Etcd.Local != nil {
		p.add(at+".etcd", "local and external: write one of them")
	}
	official := repository == "registry.k8s.io" && k.DNS.ImageRepository == "registry.k8s.io/coredns"
	if k.DNS.ImageRepository != "" && k.DNS.ImageRepository != repository && !official {
		p.add(at+".dns.imageRepository", "kubewright does not honour this: %s", one)
	}
}
