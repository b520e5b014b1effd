package kubeadm

import "strings"

// places says where the values of a Cluster document come from in kubeadm's: for errors of
// [config.Cluster.Validate]. Longer paths stand before those that they begin with.
var places = strings.NewReplacer(
	"metadata.name", "ClusterConfiguration.clusterName",
	"spec.apiServer.", "ClusterConfiguration.apiServer.",
	"spec.controlPlane.bindPort", "InitConfiguration.localAPIEndpoint.bindPort",
	"spec.controlPlane.certSANs", "ClusterConfiguration.apiServer.certSANs",
	"spec.controlPlane.endpoint", "ClusterConfiguration.controlPlaneEndpoint",
	"spec.controllerManager.", "ClusterConfiguration.controllerManager.",
	"spec.etcd.", "ClusterConfiguration.etcd.local.",
	"spec.hosts[0].address", "InitConfiguration.localAPIEndpoint.advertiseAddress",
	"spec.hosts[0].kubeletArgs", "InitConfiguration.nodeRegistration.kubeletExtraArgs",
	"spec.hosts[0].", "InitConfiguration.nodeRegistration.",
	"spec.kubeProxy.config.", "KubeProxyConfiguration.",
	"spec.kubeProxy.mode", "KubeProxyConfiguration.mode",
	"spec.kubelet.", "KubeletConfiguration.",
	"spec.kubernetesVersion", "ClusterConfiguration.kubernetesVersion",
	"spec.network.dnsDomain", "ClusterConfiguration.networking.dnsDomain",
	"spec.network.podCIDR", "ClusterConfiguration.networking.podSubnet",
	"spec.network.serviceCIDR", "ClusterConfiguration.networking.serviceSubnet",
	"spec.network:", "ClusterConfiguration.networking:",
	"podCIDR", "podSubnet",
	"serviceCIDR", "serviceSubnet",
	"spec.pki.algorithm", "ClusterConfiguration.encryptionAlgorithm",
	"spec.pki.validity", "ClusterConfiguration.certificateValidityPeriod",
	"spec.pki", "ClusterConfiguration.certificateValidityPeriod",
	"spec.runtime.socket", "InitConfiguration.nodeRegistration.criSocket",
	"spec.scheduler.", "ClusterConfiguration.scheduler.",
	"spec.timeouts.", "InitConfiguration.timeouts.",
)

// In says an error of [config.Cluster.Validate] with the paths of kubeadm's documents.
func In(err error) string { return places.Replace(err.Error()) }

// ofRun are the fields that a Cluster document has no place for, and who has.
var ofRun = []struct{ path, instead string }{
	{"InitConfiguration.bootstrapTokens", "pass --token-file and --token-ttl to init, or make tokens with `kubewright token create`"},
	{"InitConfiguration.certificateKey", "pass --certificate-key to init"},
	{"InitConfiguration.dryRun", "pass --dry-run to init"},
	{"InitConfiguration.nodeRegistration.ignorePreflightErrors", "pass --ignore-preflight-errors to init"},
	{"InitConfiguration.nodeRegistration.name", "pass --node-name to init, unless it is the host's name"},
	{"InitConfiguration.skipPhases", "pass --skip-phases to init"},
}

func unkept(objects map[string]map[string]any) (list []string) {
	for _, f := range ofRun {
		kind, _, _ := strings.Cut(f.path, ".")
		fields(kind, objects[kind], f.path, func(at string, parent map[string]any, name string) {
			if !asksNothing(parent[name], []string{"false"}) {
				list = append(list, at+": "+f.instead)
			}
		})
	}
	if objects["JoinConfiguration"] != nil {
		list = append(list, "JoinConfiguration: `kubewright join --config FILE` takes it as it is")
	}
	return list
}
