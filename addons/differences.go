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
		daemon  = "spec.template.spec.containers[kube-flannel]"
	)
	const (
		inOrder = "upstream installs the CNI configuration before flanneld has written subnet.env: the node turns Ready, " +
			"the first sandboxes fail, and the kubelet tries again ten seconds later; " +
			"here the configuration appears when pods can be made"
		noProxy = "straight to the API, not by its service address: flannel need not wait for kube-proxy; a connection " +
			"begun before the service's rules exist keeps its untranslated conntrack entry and hangs until it times out"
		looks = "looked at every second instead of every ten; thirty failures keep upstream's tolerance of half a minute"
	)
	return []Difference{
		{coredns, "spec.template.spec.containers[coredns].readinessProbe.periodSeconds", looks},
		{coredns, "spec.template.spec.containers[coredns].readinessProbe.failureThreshold", looks},
		{flannel, "spec.template.spec.initContainers[install-cni]", inOrder},
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
