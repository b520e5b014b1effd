package bundle

import (
	"strings"

	"github.com/kubewright/kubewright/config"
)

// Versions are those of what the lock holds for a platform (empty: any), so that a
// document need not repeat them.
func (l Lock) Versions(platform string) config.Versions {
	var v config.Versions
	// Others may have images of the same names: those of Kubernetes are where its proxy is.
	home := ""
	for _, a := range l.Artifacts {
		if repo, _, ok := strings.Cut(a.Name, "/kube-proxy:"); ok {
			home = repo + "/"
		}
	}
	for _, a := range l.Artifacts {
		if platform != "" && a.Platform != platform {
			continue
		}
		if a.Name == "kubelet" {
			v.Kubernetes = a.Version
		}
		if a.Type != Image {
			continue
		}
		i := strings.LastIndex(a.Name, ":")
		name, tag := a.Name[:i], a.Name[i+1:]
		switch name {
		case "quay.io/calico/node":
			v.Calico = tag
		case "docker.io/rajchaudhuri/weave-kube":
			v.Weave = tag
		}
		base := name[strings.LastIndex(name, "/")+1:]
		if base != "flannel" && name != "docker.io/library/haproxy" && !strings.HasPrefix(name, home) {
			continue
		}
		switch base {
		case "etcd":
			v.Etcd = tag
		case "coredns":
			v.CoreDNS = tag
		case "pause":
			v.Pause = tag
		case "flannel":
			v.Flannel = tag
		case "haproxy":
			v.HAProxy = tag
		}
	}
	return v
}
