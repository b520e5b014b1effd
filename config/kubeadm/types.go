package kubeadm

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/config"
)

// The types hold every field of kubeadm.k8s.io/v1beta4 that we honour, and those that must
// have one value; refused.go has the rest. Arguments, volumes and timeouts have the same
// fields there as in config.

type initConfiguration struct {
	APIVersion       string           `json:"apiVersion"`
	Kind             string           `json:"kind"`
	BootstrapTokens  []bootstrapToken `json:"bootstrapTokens"`
	CertificateKey   string           `json:"certificateKey"`
	DryRun           bool             `json:"dryRun"`
	LocalAPIEndpoint apiEndpoint      `json:"localAPIEndpoint"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	Patches          patches          `json:"patches"`
	SkipPhases       []string         `json:"skipPhases"`
	Timeouts         config.Timeouts  `json:"timeouts"`
}

type joinConfiguration struct {
	APIVersion       string            `json:"apiVersion"`
	Kind             string            `json:"kind"`
	ControlPlane     *joinControlPlane `json:"controlPlane"`
	Discovery        discovery         `json:"discovery"`
	DryRun           bool              `json:"dryRun"`
	NodeRegistration nodeRegistration  `json:"nodeRegistration"`
	Patches          patches           `json:"patches"`
	SkipPhases       []string          `json:"skipPhases"`
	Timeouts         config.Timeouts   `json:"timeouts"`
}

type bootstrapToken struct {
	Description string           `json:"description"`
	Expires     time.Time        `json:"expires"`
	Groups      []string         `json:"groups"`
	Token       string           `json:"token"`
	TTL         *config.Duration `json:"ttl"`
	Usages      []string         `json:"usages"`
}

type nodeRegistration struct {
	CRISocket             string         `json:"criSocket"`
	IgnorePreflightErrors []string       `json:"ignorePreflightErrors"`
	KubeletExtraArgs      []config.Arg   `json:"kubeletExtraArgs"`
	Name                  string         `json:"name"`
	Taints                []corev1.Taint `json:"taints"` // null: the role's own; []: none
}

type apiEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress"`
	BindPort         int32  `json:"bindPort"`
}

type patches struct {
	Directory string `json:"directory"`
}

type joinControlPlane struct {
	CertificateKey   string      `json:"certificateKey"`
	LocalAPIEndpoint apiEndpoint `json:"localAPIEndpoint"`
}

type discovery struct {
	BootstrapToken    *bootstrapTokenDiscovery `json:"bootstrapToken"`
	File              *fileDiscovery           `json:"file"`
	TLSBootstrapToken string                   `json:"tlsBootstrapToken"`
}

type bootstrapTokenDiscovery struct {
	APIServerEndpoint        string   `json:"apiServerEndpoint"`
	CACertHashes             []string `json:"caCertHashes"`
	Token                    string   `json:"token"`
	UnsafeSkipCAVerification bool     `json:"unsafeSkipCAVerification"`
}

type fileDiscovery struct {
	KubeConfigPath string `json:"kubeConfigPath"`
}

// clusterConfiguration is written as well: see [ClusterConfiguration].
type clusterConfiguration struct {
	APIVersion                  string           `json:"apiVersion"`
	Kind                        string           `json:"kind"`
	APIServer                   apiServer        `json:"apiServer"`
	CACertificateValidityPeriod config.Duration  `json:"caCertificateValidityPeriod,omitzero"`
	CertificateValidityPeriod   config.Duration  `json:"certificateValidityPeriod,omitzero"`
	CertificatesDir             string           `json:"certificatesDir,omitempty"`
	ClusterName                 string           `json:"clusterName,omitempty"`
	ControlPlaneEndpoint        string           `json:"controlPlaneEndpoint,omitempty"`
	ControllerManager           config.Component `json:"controllerManager"`
	DNS                         dns              `json:"dns"`
	EncryptionAlgorithm         string           `json:"encryptionAlgorithm,omitempty"`
	Etcd                        etcd             `json:"etcd"`
	FeatureGates                featureGates     `json:"featureGates,omitzero"`
	ImageRepository             string           `json:"imageRepository,omitempty"`
	KubernetesVersion           string           `json:"kubernetesVersion,omitempty"`
	Networking                  networking       `json:"networking"`
	Proxy                       proxy            `json:"proxy"`
	Scheduler                   config.Component `json:"scheduler"`
}

type apiServer struct {
	config.Component
	CertSANs []string `json:"certSANs,omitempty"`
}

type dns struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
	Disabled        bool   `json:"disabled,omitempty"`
}

type proxy struct {
	Disabled bool `json:"disabled,omitempty"`
}

type etcd struct {
	Local    *localEtcd    `json:"local,omitempty"`
	External *externalEtcd `json:"external,omitempty"`
}

type externalEtcd struct {
	config.ExternalEtcd
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"` // where kubeadm looks at its health; the same by default
}

type localEtcd struct {
	ImageRepository string          `json:"imageRepository,omitempty"`
	ImageTag        string          `json:"imageTag,omitempty"`
	DataDir         string          `json:"dataDir,omitempty"`
	ExtraArgs       []config.Arg    `json:"extraArgs,omitempty"`
	ExtraEnvs       []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ServerCertSANs  []string        `json:"serverCertSANs,omitempty"`
	PeerCertSANs    []string        `json:"peerCertSANs,omitempty"`
}

// featureGates are kubeadm's own; all are refused but at their defaults.
type featureGates struct {
	NodeLocalCRISocket   *bool `json:"NodeLocalCRISocket,omitempty"`
	PublicKeysECDSA      *bool `json:"PublicKeysECDSA,omitempty"`
	RootlessControlPlane *bool `json:"RootlessControlPlane,omitempty"`
}

type networking struct {
	DNSDomain     string `json:"dnsDomain,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
}
