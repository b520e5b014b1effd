package manifests

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

const kubeadmVersion = "kubeadm.k8s.io/v1beta4"

// clusterConfiguration is kubeadm's document of the same name, as far as we have the same
// wishes. Arguments and volumes have the same fields there as in config.
type clusterConfiguration struct {
	APIVersion                  string            `json:"apiVersion"`
	Kind                        string            `json:"kind"`
	APIServer                   kubeadmAPIServer  `json:"apiServer"`
	CACertificateValidityPeriod config.Duration   `json:"caCertificateValidityPeriod,omitzero"`
	CertificateValidityPeriod   config.Duration   `json:"certificateValidityPeriod,omitzero"`
	CertificatesDir             string            `json:"certificatesDir,omitempty"`
	ClusterName                 string            `json:"clusterName,omitempty"`
	ControlPlaneEndpoint        string            `json:"controlPlaneEndpoint,omitempty"`
	ControllerManager           config.Component  `json:"controllerManager"`
	DNS                         kubeadmAddon      `json:"dns"`
	EncryptionAlgorithm         string            `json:"encryptionAlgorithm,omitempty"`
	Etcd                        kubeadmEtcd       `json:"etcd"`
	ImageRepository             string            `json:"imageRepository,omitempty"`
	KubernetesVersion           string            `json:"kubernetesVersion,omitempty"`
	Networking                  kubeadmNetworking `json:"networking"`
	Proxy                       kubeadmAddon      `json:"proxy"`
	Scheduler                   config.Component  `json:"scheduler"`
}

type kubeadmAPIServer struct {
	config.Component
	CertSANs []string `json:"certSANs,omitempty"`
}

type kubeadmAddon struct {
	ImageTag string `json:"imageTag,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`
}

type kubeadmEtcd struct {
	Local    *kubeadmLocalEtcd    `json:"local,omitempty"`
	External *kubeadmExternalEtcd `json:"external,omitempty"`
}

type kubeadmLocalEtcd struct {
	ImageRepository string          `json:"imageRepository,omitempty"`
	ImageTag        string          `json:"imageTag,omitempty"`
	DataDir         string          `json:"dataDir,omitempty"`
	ExtraArgs       []config.Arg    `json:"extraArgs,omitempty"`
	ExtraEnvs       []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ServerCertSANs  []string        `json:"serverCertSANs,omitempty"`
	PeerCertSANs    []string        `json:"peerCertSANs,omitempty"`
}

type kubeadmExternalEtcd struct {
	config.ExternalEtcd
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"` // where kubeadm looks at its health; the same by default
}

type kubeadmNetworking struct {
	DNSDomain     string `json:"dnsDomain,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
}

// ClusterConfiguration is key ClusterConfiguration of kube-system/kubeadm-config: the wish
// in kubeadm's words, from which its join and upgrade compute what we computed.
func ClusterConfiguration(c *config.Cluster) ([]byte, error) {
	s := c.Spec
	k := clusterConfiguration{
		APIVersion:                  kubeadmVersion,
		Kind:                        "ClusterConfiguration",
		APIServer:                   kubeadmAPIServer{s.APIServer, s.ControlPlane.CertSANs},
		CACertificateValidityPeriod: s.PKI.CAValidity,
		CertificateValidityPeriod:   s.PKI.Validity,
		CertificatesDir:             pkiDir,
		ClusterName:                 c.Metadata.Name,
		ControlPlaneEndpoint:        s.ControlPlane.Endpoint,
		ControllerManager:           s.ControllerManager,
		DNS:                         kubeadmAddon{ImageTag: s.DNS.ImageTag, Disabled: s.DNS.Disabled},
		EncryptionAlgorithm:         s.PKI.Algorithm,
		Etcd: kubeadmEtcd{Local: &kubeadmLocalEtcd{
			ImageTag: s.Etcd.ImageTag, DataDir: s.Etcd.DataDir,
			ExtraArgs: s.Etcd.ExtraArgs, ExtraEnvs: s.Etcd.ExtraEnvs,
			ServerCertSANs: s.Etcd.ServerCertSANs, PeerCertSANs: s.Etcd.PeerCertSANs,
		}},
		ImageRepository:   s.ImageRepository,
		KubernetesVersion: s.KubernetesVersion,
		Networking:        kubeadmNetworking{s.Network.DNSDomain, s.Network.PodCIDR, s.Network.ServiceCIDR},
		Proxy:             kubeadmAddon{Disabled: s.KubeProxy.Mode == "none"},
		Scheduler:         s.Scheduler,
	}
	k.APIServer.ExtraArgs = extraArgs(c, s.APIServer.ExtraArgs)
	k.ControllerManager.ExtraArgs = extraArgs(c, s.ControllerManager.ExtraArgs)
	k.Scheduler.ExtraArgs = extraArgs(c, s.Scheduler.ExtraArgs)

	// A tag that is kubeadm's own choice is left to it, so that its upgrade chooses the next one.
	etcd, dns := kubeadmTags(s.KubernetesVersion)
	if e := s.Etcd.External; e != nil {
		k.Etcd = kubeadmEtcd{External: &kubeadmExternalEtcd{*e, e.Endpoints}}
	} else if etcd == s.Etcd.ImageTag {
		k.Etcd.Local.ImageTag = ""
	}
	if dns == s.DNS.ImageTag {
		k.DNS.ImageTag = ""
	}
	return yaml.Marshal(k)
}

// kubeadmTags are the etcd and CoreDNS that kubeadm of a version takes; empty where we do not know.
func kubeadmTags(version string) (etcd, dns string) {
	if strings.HasPrefix(version, "v1.36.") {
		return "3.6.8-0", "v1.14.2" // constants.go of kubeadm v1.36.3
	}
	return "", ""
}

// ParseClusterConfiguration is the reverse, for a cluster that kubeadm made: what its document
// says, the rest left to [config.Cluster.Default]. Fields that we don't know are passed over;
// a wish that we can't fulfil is an error.
func ParseClusterConfiguration(b []byte) (*config.Cluster, error) {
	var k clusterConfiguration
	if err := yaml.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("kubeadm's ClusterConfiguration: %w", err)
	}
	if err := k.supported(); err != nil {
		return nil, fmt.Errorf("kubeadm's ClusterConfiguration: %w", err)
	}
	c := &config.Cluster{}
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
	s.Network.CNI.Name = "none" // whatever it has, it is not ours
	s.DNS.ImageTag, s.DNS.Disabled = k.DNS.ImageTag, k.DNS.Disabled
	if k.Proxy.Disabled {
		s.KubeProxy.Mode = "none"
	}
	s.PKI = config.PKI{Algorithm: k.EncryptionAlgorithm, Validity: k.CertificateValidityPeriod, CAValidity: k.CACertificateValidityPeriod}
	if e := k.Etcd.External; e != nil {
		s.Etcd.External = &e.ExternalEtcd
		return c, nil
	}
	if e := k.Etcd.Local; e != nil {
		s.Etcd = config.Etcd{
			ImageTag: e.ImageTag, DataDir: e.DataDir, ExtraArgs: e.ExtraArgs, ExtraEnvs: e.ExtraEnvs,
			ServerCertSANs: e.ServerCertSANs, PeerCertSANs: e.PeerCertSANs,
		}
	}
	return c, nil
}

// supported names the first thing that would make our control plane differ from its others.
func (k clusterConfiguration) supported() error {
	switch {
	case k.APIVersion != kubeadmVersion || k.Kind != "ClusterConfiguration":
		return fmt.Errorf("it is %s %s, not %s: convert it with kubeadm config migrate", k.APIVersion, k.Kind, kubeadmVersion)
	case k.CertificatesDir != "" && k.CertificatesDir != pkiDir:
		return fmt.Errorf("certificatesDir: only %s is supported, not %s: join this host with kubeadm", pkiDir, k.CertificatesDir)
	case k.Etcd.Local != nil && k.Etcd.Local.ImageRepository != "" && k.Etcd.Local.ImageRepository != k.ImageRepository:
		return fmt.Errorf("etcd.local.imageRepository: only that of the cluster is supported: join this host with kubeadm")
	}
	return nil
}
