package addons

import (
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

// kubeadm's registry; CoreDNS has a folder of its own there, and only there.
const defaultRepository = "registry.k8s.io"

// The flannel plugin's version is the one that upstream's manifest for v0.28.10 names.
const (
	flannelRepository  = "ghcr.io/flannel-io/flannel"
	flannelPluginImage = "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3"
)

// Images lists what the addons run on every node. CoreDNS may be scheduled on any.
func Images(c *config.Cluster) []string {
	var images []string
	if c.Spec.KubeProxy.Mode != "none" {
		images = append(images, kubeProxyImage(c))
	}
	if !c.Spec.DNS.Disabled {
		images = append(images, dnsImage(c))
	}
	if c.Spec.Network.CNI.Name == "flannel" {
		images = append(images, flannelImage(c), flannelPluginImage)
	}
	return images
}

func kubeProxyImage(c *config.Cluster) string {
	return manifests.Image(c, "kube-proxy")
}

func dnsImage(c *config.Cluster) string {
	name := "/coredns:"
	if c.Spec.ImageRepository == defaultRepository {
		name = "/coredns/coredns:"
	}
	return c.Spec.ImageRepository + name + c.Spec.DNS.ImageTag
}

func flannelImage(c *config.Cluster) string {
	return flannelRepository + ":" + c.Spec.Network.CNI.Flannel.Version
}
