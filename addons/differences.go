package addons

// Difference is a field that we set otherwise than the upstream of its object does: kubeadm,
// or flannel's manifest. All else is upstream's; the tests hold us to that.
type Difference struct {
	Object string // kind and name
	Field  string // items of lists by their name; with all that is below it
	Reason string
}

// Differences lists every one, with what is gained.
func Differences() []Difference {
	const (
		coredns = "Deployment coredns"
		flannel = "DaemonSet kube-flannel-ds"
		proxy   = "DaemonSet kube-proxy"
		daemon  = "spec.template.spec.containers[kube-flannel]"
		digest  = "spec.template.metadata.annotations"
	)
	const (
		inOrder = "upstream installs the CNI configuration before flanneld has written subnet.env: the node turns Ready, " +
			"the first sandboxes fail, and the kubelet tries again ten seconds later; " +
			"here the configuration appears when pods can be made"
		noPlugin = "flannel's own CNI plugin does nothing but write the bridge plugin's configuration, for each pod anew; here it is written once, when the range " +
			"is known: no container that installs the plugin, a second less until a node is Ready, and a process less for each pod"
		noProxy = "straight to the API, not by its service address: flannel need not wait for kube-proxy; a connection " +
			"begun before the service's rules exist keeps its untranslated conntrack entry and hangs until it times out"
		restarts = "a changed configuration restarts the pods, node by node; upstream's go on with the old one until somebody does it"
		looks    = "looked at every second instead of every ten; thirty failures keep upstream's tolerance of half a minute"
	)
	return []Difference{
		{coredns, "spec.template.spec.containers[coredns].readinessProbe.periodSeconds", looks},
		{coredns, "spec.template.spec.containers[coredns].readinessProbe.failureThreshold", looks},
		{proxy, digest, restarts},
		{flannel, digest, restarts},
		{flannel, "spec.template.spec.initContainers[install-cni]", inOrder},
		{flannel, "spec.template.spec.initContainers[install-cni-plugin]", noPlugin},
		{flannel, "spec.template.spec.volumes[cni-plugin]", noPlugin},
		{"ConfigMap kube-flannel-cfg", "data[cni-conf.json]", noPlugin},
		{flannel, daemon + ".command", inOrder},
		{flannel, daemon + ".lifecycle", inOrder},
		{flannel, daemon + ".volumeMounts[cni]", inOrder},
		{flannel, daemon + ".env[NODE_NAME]", "flanneld need not ask the API for the node of its pod, which it does once and exits when refused"},
		{flannel, daemon + ".env[KUBERNETES_SERVICE_HOST]", noProxy},
		{flannel, daemon + ".env[KUBERNETES_SERVICE_PORT]", noProxy},
		{flannel, daemon + ".readinessProbe.initialDelaySeconds", "subnet.env is there after two seconds; upstream looks first after five"},
		{flannel, daemon + ".readinessProbe.periodSeconds", looks},
		{flannel, daemon + ".readinessProbe.failureThreshold", looks},
	}
}
