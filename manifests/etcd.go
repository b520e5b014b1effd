package manifests

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

const etcdMetricsPort = 2381

// PeerURL is where the other members of etcd reach a node.
func PeerURL(address netip.Addr) string {
	return "https://" + net.JoinHostPort(address.String(), "2380")
}

// EtcdMember is a node as a member of etcd's initial cluster, NAME=PEERURL.
func EtcdMember(name string, address netip.Addr) string { return name + "=" + PeerURL(address) }

// InitialCluster are the members in an etcd manifest, for [Live]: a manifest that exists keeps
// them, since etcd reads them only before it has data. Nil for the manifest of a first member.
func InitialCluster(manifest []byte) ([]string, error) {
	var pod corev1.Pod
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return nil, fmt.Errorf("etcd's manifest: %w", err)
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, errors.New("etcd's manifest has no container")
	}
	args := map[string]string{}
	for _, a := range slices.Concat(pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args) {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		args[name] = value
	}
	if args["initial-cluster-state"] != "existing" {
		return nil, nil
	}
	return strings.Split(args["initial-cluster"], ","), nil
}

func clientURL(address netip.Addr) string {
	return "https://" + net.JoinHostPort(address.String(), "2379")
}

// loopback is of the family in which the node is addressed: the other one may be off.
func loopback(address netip.Addr) netip.Addr {
	if address.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func etcd(c *config.Cluster, n config.Node, address netip.Addr, members []string) component {
	e := c.Spec.Etcd
	local := loopback(address)
	defaults := map[string]string{
		"advertise-client-urls":          clientURL(address),
		"cert-file":                      pkiDir + "/etcd/server.crt",
		"client-cert-auth":               "true",
		"data-dir":                       e.DataDir,
		"feature-gates":                  "InitialCorruptCheck=true",
		"initial-advertise-peer-urls":    PeerURL(address),
		"initial-cluster":                EtcdMember(n.Name, address),
		"key-file":                       pkiDir + "/etcd/server.key",
		"listen-client-urls":             clientURL(local) + "," + clientURL(address),
		"listen-metrics-urls":            "http://" + net.JoinHostPort(local.String(), strconv.Itoa(etcdMetricsPort)),
		"listen-peer-urls":               PeerURL(address),
		"name":                           n.Name,
		"peer-cert-file":                 pkiDir + "/etcd/peer.crt",
		"peer-client-cert-auth":          "true",
		"peer-key-file":                  pkiDir + "/etcd/peer.key",
		"peer-trusted-ca-file":           pkiDir + "/etcd/ca.crt",
		"snapshot-count":                 "10000",
		"trusted-ca-file":                pkiDir + "/etcd/ca.crt",
		"watch-progress-notify-interval": "5s",
	}
	if len(members) > 0 {
		defaults["initial-cluster"] = strings.Join(members, ",")
		defaults["initial-cluster-state"] = "existing"
	}
	return component{
		command: Flags(defaults, e.ExtraArgs),
		cpu:     "100m",
		memory:  "100Mi",
		env:     e.ExtraEnvs,
		mounts: []config.HostPath{
			{Name: "etcd-data", HostPath: e.DataDir, MountPath: e.DataDir, PathType: corev1.HostPathDirectoryOrCreate},
			{Name: "etcd-certs", HostPath: pkiDir + "/etcd", MountPath: pkiDir + "/etcd", PathType: corev1.HostPathDirectoryOrCreate},
		},
		annotations: map[string]string{
			// kubeadm finds the members by it, and waits for one where it is missing.
			"kubeadm.kubernetes.io/etcd.advertise-client-urls": clientURL(address),
		},
		probe: etcdProbe(e.ExtraArgs, local.String()),
	}
}

// etcdProbe asks where metrics and health are served: the first of the user's URLs, if any.
func etcdProbe(args []config.Arg, local string) probe {
	p := probe{
		host: local, port: etcdMetricsPort, scheme: corev1.URISchemeHTTP,
		live: "/livez", ready: "/readyz", startup: "/readyz",
	}
	urls, _ := last(args, "listen-metrics-urls")
	first, _, _ := strings.Cut(urls, ",")
	u, err := url.Parse(first)
	if err != nil || first == "" {
		return p
	}
	if u.Scheme == "https" {
		p.scheme = corev1.URISchemeHTTPS
	}
	if u.Hostname() != "" {
		p.host = u.Hostname()
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && port > 0 {
		p.port = int32(port)
	}
	return p
}
