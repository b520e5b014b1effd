package manifests

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/config"
)

// An API server that is stopped has this long to end its clients' watches. Without it, nobody does: it waits for
// them until the kubelet kills it, half a minute in which it answers nothing else.
const (
	watchGrace      = "shutdown-watch-termination-grace-period"
	watchGraceValue = "10s"
)

func apiServer(c *config.Cluster, address netip.Addr, trustDirs []string) component {
	s := c.Spec
	port := strconv.Itoa(int(s.ControlPlane.BindPort))
	defaults := map[string]string{
		"advertise-address":                  address.String(),
		"allow-privileged":                   "true",
		"authorization-mode":                 "Node,RBAC",
		"client-ca-file":                     pkiDir + "/ca.crt",
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"etcd-cafile":                        pkiDir + "/etcd/ca.crt",
		"etcd-certfile":                      pkiDir + "/apiserver-etcd-client.crt",
		"etcd-keyfile":                       pkiDir + "/apiserver-etcd-client.key",
		"etcd-servers":                       clientURL(loopback(address)),
		"kubelet-client-certificate":         pkiDir + "/apiserver-kubelet-client.crt",
		"kubelet-client-key":                 pkiDir + "/apiserver-kubelet-client.key",
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file":             pkiDir + "/front-proxy-client.crt",
		"proxy-client-key-file":              pkiDir + "/front-proxy-client.key",
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-client-ca-file":       pkiDir + "/front-proxy-ca.crt",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"secure-port":                        port,
		"service-account-issuer":             "https://kubernetes.default.svc." + s.Network.DNSDomain,
		"service-account-key-file":           pkiDir + "/sa.pub",
		"service-account-signing-key-file":   pkiDir + "/sa.key",
		"service-cluster-ip-range":           s.Network.ServiceCIDR,
		watchGrace:                           watchGraceValue,
		"tls-cert-file":                      pkiDir + "/apiserver.crt",
		"tls-private-key-file":               pkiDir + "/apiserver.key",
	}
	// etcd that was told to listen elsewhere is asked there.
	if urls, ok := last(s.Etcd.ExtraArgs, "advertise-client-urls"); ok {
		defaults["etcd-servers"] = urls
	}
	paths := certificates(trustDirs)
	if e := s.Etcd.External; e != nil {
		delete(defaults, "etcd-cafile")
		delete(defaults, "etcd-certfile")
		delete(defaults, "etcd-keyfile")
		defaults["etcd-servers"] = strings.Join(e.Endpoints, ",")
		for name, file := range map[string]string{"etcd-cafile": e.CAFile, "etcd-certfile": e.CertFile, "etcd-keyfile": e.KeyFile} {
			if file != "" {
				defaults[name] = file
			}
		}
		paths = append(paths, etcdDirectories(e, paths)...)
	}
	// The server refuses a mode beside a file of authorizers.
	if _, ok := last(s.APIServer.ExtraArgs, "authorization-config"); ok {
		delete(defaults, "authorization-mode")
	}
	return component{
		command: Flags(defaults, extraArgs(c, s.APIServer.ExtraArgs)),
		cpu:     "250m",
		env:     s.APIServer.ExtraEnvs,
		mounts:  mountPaths(append(paths, s.APIServer.ExtraVolumes...)),
		annotations: map[string]string{
			// kubeadm finds the API servers by it.
			"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": net.JoinHostPort(address.String(), port),
		},
		probe: probe{
			host: probeHost(address.String()), port: s.ControlPlane.BindPort, scheme: corev1.URISchemeHTTPS,
			live: "/livez", ready: "/readyz", startup: "/livez",
		},
	}
}

// At its start the controller manager asks for a token for each of its controllers, one
// after the other, and its default limit of 20 requests a second stretches that to five
// seconds, in which no node joins and no pod is made. The API server's priority and
// fairness limits it as well.
const (
	controllerQPS   = "150"
	controllerBurst = "300"
)

func controllerManager(c *config.Cluster, trustDirs []string, externalCA bool) component {
	s := c.Spec
	kubeconfig := kubernetesDir + "/controller-manager.conf"
	defaults := map[string]string{
		"authentication-kubeconfig":        kubeconfig,
		"authorization-kubeconfig":         kubeconfig,
		"bind-address":                     "127.0.0.1",
		"client-ca-file":                   pkiDir + "/ca.crt",
		"cluster-name":                     c.Metadata.Name,
		"cluster-signing-cert-file":        pkiDir + "/ca.crt",
		"cluster-signing-key-file":         pkiDir + "/ca.key",
		"controllers":                      "*,bootstrapsigner,tokencleaner",
		"kube-api-burst":                   controllerBurst,
		"kube-api-qps":                     controllerQPS,
		"kubeconfig":                       kubeconfig,
		"leader-elect":                     "true",
		"requestheader-client-ca-file":     pkiDir + "/front-proxy-ca.crt",
		"root-ca-file":                     pkiDir + "/ca.crt",
		"service-account-private-key-file": pkiDir + "/sa.key",
		"use-service-account-credentials":  "true",
	}
	// Both files empty, and not absent, keeps the signing controllers from starting.
	if externalCA {
		defaults["cluster-signing-cert-file"] = ""
		defaults["cluster-signing-key-file"] = ""
	}
	if s.Network.PodCIDR != "" {
		defaults["allocate-node-cidrs"] = "true"
		defaults["cluster-cidr"] = s.Network.PodCIDR
		defaults["service-cluster-ip-range"] = s.Network.ServiceCIDR
	}
	paths := append(certificates(trustDirs), kubeconfigFile(kubeconfig))
	return component{
		command: Flags(defaults, controllerManagerArgs(c)),
		cpu:     "200m",
		env:     s.ControllerManager.ExtraEnvs,
		mounts:  mountPaths(append(paths, s.ControllerManager.ExtraVolumes...)),
		probe: probe{
			host: boundTo(s.ControllerManager.ExtraArgs), port: 10257, scheme: corev1.URISchemeHTTPS,
			live: "/healthz", startup: "/healthz", // it has no /livez, and nobody waits for its readiness
		},
	}
}

func scheduler(c *config.Cluster) component {
	s := c.Spec
	kubeconfig := kubernetesDir + "/scheduler.conf"
	defaults := map[string]string{
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"kubeconfig":                kubeconfig,
		"leader-elect":              "true",
	}
	return component{
		command: Flags(defaults, extraArgs(c, s.Scheduler.ExtraArgs)),
		cpu:     "100m",
		env:     s.Scheduler.ExtraEnvs,
		mounts:  mountPaths(append([]config.HostPath{kubeconfigFile(kubeconfig)}, s.Scheduler.ExtraVolumes...)),
		probe: probe{
			host: boundTo(s.Scheduler.ExtraArgs), port: 10259, scheme: corev1.URISchemeHTTPS,
			live: "/livez", ready: "/readyz", startup: "/livez",
		},
	}
}

// boundTo is where the controller manager or the scheduler answers probes.
func boundTo(args []config.Arg) string {
	if addr, ok := last(args, "bind-address"); ok {
		return probeHost(addr)
	}
	return "127.0.0.1"
}

// certificates are the cluster's and the system's. The links in /etc/ssl/certs lead into
// the other trust directories, so those that the host has come along.
func certificates(trustDirs []string) []config.HostPath {
	mounts := []config.HostPath{directory("k8s-certs", pkiDir), directory("ca-certs", "/etc/ssl/certs")}
	for _, dir := range trustDirs {
		name := strings.ReplaceAll(strings.TrimPrefix(dir, "/"), "/", "-")
		mounts = append(mounts, directory(name, dir))
	}
	return mounts
}

// etcdDirectories are those of an external etcd's files that are not mounted already, the
// outermost alone.
func etcdDirectories(e *config.ExternalEtcd, mounted []config.HostPath) (out []config.HostPath) {
	var dirs []string
	for _, file := range []string{e.CAFile, e.CertFile, e.KeyFile} {
		if file != "" {
			dirs = append(dirs, path.Dir(file))
		}
	}
	slices.Sort(dirs) // the outer before the inner
	for _, dir := range dirs {
		if !slices.ContainsFunc(append(mounted, out...), func(m config.HostPath) bool { return dir == m.HostPath || strings.HasPrefix(dir, m.HostPath+"/") }) {
			out = append(out, directory(fmt.Sprintf("etcd-certs-%d", len(out)), dir))
		}
	}
	return out
}

// mountPaths are sorted; the user's replace ours of the same name.
func mountPaths(paths []config.HostPath) []config.HostPath {
	return byName(paths, func(p config.HostPath) string { return p.Name })
}

func directory(name, path string) config.HostPath {
	return config.HostPath{Name: name, HostPath: path, MountPath: path, ReadOnly: true, PathType: corev1.HostPathDirectoryOrCreate}
}

func kubeconfigFile(path string) config.HostPath {
	return config.HostPath{Name: "kubeconfig", HostPath: path, MountPath: path, ReadOnly: true, PathType: corev1.HostPathFileOrCreate}
}
