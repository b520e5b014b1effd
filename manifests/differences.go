package manifests

// Difference is a place where we mean to differ from what kubeadm v1.36 would write.
type Difference struct {
	File  string // path on the host, or NAMESPACE/CONFIGMAP KEY
	Field string // what differs in it
	Why   string
}

// Differences are all of them; anything else that differs is a bug. The test against the
// real kubeadm, which has no host with systemd, sees the first one only.
func Differences() []Difference {
	return []Difference{
		{"kube-system/kube-proxy config.conf", "mode",
			"kubeadm leaves it empty, which is iptables today; it is written out, so that a newer kube-proxy cannot choose another mode"},
		{"kube-system/kubelet-config kubelet", "resolvConf",
			"kubeadm uploads the path that is right on its own host; we set it on each host that runs systemd-resolved, as kubeadm join does too"},
		{ManifestDir + "/*.yaml", "spec.containers[].env",
			"kubeadm copies *_PROXY of whoever runs it; we take only extraEnvs, so that the same document gives the same bytes everywhere"},
		{ManifestDir + "/*.yaml", "fields unknown to a Pod, after patches",
			"kubeadm drops them silently; they are an error"},
		{ManifestDir + "/kube-controller-manager.yaml", "--kube-api-qps, --kube-api-burst",
			"the default of 20 requests a second holds the controllers back for five seconds after every start, before the first node can join"},
		{ManifestDir + "/kube-apiserver.yaml", "--shutdown-watch-termination-grace-period",
			"an API server that is stopped waits for watches that nobody ends, until it is killed after 30 s; now it ends them, and is gone after two"},
		{KubeletFlags, "--node-labels", "kubeadm has no labels of nodes"},
		{KubeletFlags, "--node-ip",
			"where the cluster has IPv6: kubeadm leaves it to the user, and a kubelet prefers an IPv4 address and takes only one; and beside " +
				"--cloud-provider=external: a kubelet with nothing but that has no address until the cloud controller runs, which needs it to start"},
		{KubeletConfig, "providerID", "what a machine is to its cloud, which kubeadm has no field for; it is in the instance's file as well, so that an upgrade keeps it"},
		{KubeletFlags, "--cloud-provider",
			"where the document has a cloud controller, which kubeadm knows nothing of; the controller manager has the same flag"},
		{"/etc/systemd/system/kubelet.service", "ConditionPathExists, RestartSec",
			"the packaged unit crashes every 10 s until it has a configuration; ours waits for it, and comes back in 1 s"},
		{"/etc/systemd/system/kubelet.service", "HTTP2_READ_IDLE_TIMEOUT_SECONDS, HTTP2_PING_TIMEOUT_SECONDS",
			"a kubelet holds on to a silent API server for 45 s by default, and its node is not ready after 40; now it asks another one after 10"},
	}
}
