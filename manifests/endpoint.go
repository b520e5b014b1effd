package manifests

import (
	_ "embed"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// The internal endpoint on a host: lines of the hosts file and, on a worker, a static pod.
const (
	HostsFile          = "/etc/hosts"
	HostsMark          = "# kubewright" // ends each of our lines there
	LoadBalancer       = "kube-haproxy"
	LoadBalancerConfig = kubernetesDir + "/haproxy.cfg"
)

// HostsLines map the name of an internal endpoint, each line with [HostsMark]: first to this host itself, where
// its own API server or its load balancer answers, then to every control plane. Clients try the addresses in
// turn, loopback first (RFC 6724), and a refused connection costs nothing: so a kubelet can start before anything
// listens on its loopback, and a host whose load balancer or API server is down still reaches the others.
func HostsLines(c *config.Cluster, n config.Node) ([]string, error) {
	name, ok := c.InternalEndpoint()
	if !ok {
		return nil, nil
	}
	planes := c.ControlPlanes()
	if n.Has(config.ControlPlaneRole) && !slices.ContainsFunc(planes, func(p config.Node) bool { return p.Name == n.Name }) {
		planes = append(planes, n)
	}
	if len(planes) == 0 {
		return nil, noControlPlane(name)
	}
	// Each host begins with another one, as a kubelet stays where its first connection led.
	h := fnv.New32a()
	h.Write([]byte(n.Name))
	begin := int(h.Sum32() % uint32(len(planes)))
	lines := []string{loopback(n.IP()).String() + " " + name + " " + HostsMark}
	for _, p := range slices.Concat(planes[begin:], planes[:begin]) {
		lines = append(lines, p.Address+" "+name+" "+HostsMark)
	}
	return lines, nil
}

// hostsLines is where [HostsKept] keeps them.
const hostsLines = "/etc/kubernetes/kubewright-hosts"

// HostsKept are a copy of the lines, and what puts those that are missing into [HostsFile] before each start of
// the kubelet: some machines write that file anew when they boot, and pods of the host's network get a copy of it.
func HostsKept(lines []string) (kept, unit host.File) {
	const script = `[ -z "$$(tail -c 1 /etc/hosts)" ] || echo >>/etc/hosts; ` +
		`while read -r line; do grep -qxF "$$line" /etc/hosts || echo "$$line" >>/etc/hosts; done <` + hostsLines
	return host.File{Path: hostsLines, Mode: 0o644, Content: host.Bytes(strings.Join(lines, "\n") + "\n")},
		host.File{Path: "/etc/systemd/system/kubelet.service.d/20-kubewright-endpoint.conf", Mode: 0o644,
			Content: host.Bytes("[Service]\nExecStartPre=-/bin/sh -c '" + script + "'\n")}
}

func noControlPlane(name string) error {
	return fmt.Errorf("the endpoint %s is known to the cluster's hosts alone, and the document names no control plane with its address: list them under spec.hosts", name)
}

//go:embed haproxy.cfg
var haproxyConfig string

// HAProxy is the load balancer of a worker in a cluster with an internal endpoint: it listens where [HostsLines]
// lead first, and knows all control planes of the document. Another list of them makes another pod.
func HAProxy(c *config.Cluster, n config.Node) ([]host.File, error) {
	name, ok := c.InternalEndpoint()
	if !ok {
		return nil, nil
	}
	planes := c.ControlPlanes()
	if len(planes) == 0 {
		return nil, noControlPlane(name)
	}
	port := c.Spec.ControlPlane.BindPort
	at := func(ip string) string { return net.JoinHostPort(ip, strconv.Itoa(int(port))) }
	type server struct{ Name, Address string }
	var servers []server
	for _, p := range planes {
		servers = append(servers, server{p.Name, at(p.Address)})
	}
	var text strings.Builder
	err := template.Must(template.New("haproxy.cfg").Parse(haproxyConfig)).Execute(&text, map[string]any{
		"Name": name, "Bind": at(loopback(n.IP()).String()), "CA": pkiDir + "/ca.crt", "Servers": servers,
	})
	if err != nil {
		return nil, err
	}
	configuration := host.File{Path: LoadBalancerConfig, Content: host.Text(text.String())}
	pod, err := yaml.Marshal(loadBalancer(c, configuration.Content.Digest()))
	if err != nil {
		return nil, err
	}
	return []host.File{configuration, manifestDir(), {Path: Path(LoadBalancer), Mode: 0o600, Content: host.Bytes(pod)}}, nil
}

// loadBalancer has no probes: a liveness probe would be a connection to an API server every few seconds, and a
// haproxy whose thread hangs ends itself.
func loadBalancer(c *config.Cluster, digest string) corev1.Pod {
	pod := component{
		name: LoadBalancer, image: c.Spec.ControlPlane.LoadBalancer.Image, cpu: "25m", memory: "32Mi",
		mounts: []config.HostPath{
			{Name: "config", HostPath: LoadBalancerConfig, MountPath: LoadBalancerConfig, ReadOnly: true, PathType: corev1.HostPathFile},
			{Name: "ca", HostPath: pkiDir + "/ca.crt", MountPath: pkiDir + "/ca.crt", ReadOnly: true, PathType: corev1.HostPathFile},
		},
		annotations: map[string]string{"kubewright.dev/config": digest}, // a changed file alone would restart nothing
	}.pod()
	pod.Labels["tier"] = "node"
	yes, no, nobody := true, false, int64(65534)
	security := &corev1.SecurityContext{
		RunAsUser: &nobody, RunAsGroup: &nobody, RunAsNonRoot: &yes, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	if c.Spec.ControlPlane.BindPort < 1024 { // of all that root may do, this alone
		root := int64(0)
		security.RunAsUser, security.RunAsNonRoot = &root, nil
		security.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
	}
	container := &pod.Spec.Containers[0]
	container.Command = []string{"haproxy", "-db", "-f", LoadBalancerConfig}
	container.Ports, container.SecurityContext = nil, security
	return pod
}
