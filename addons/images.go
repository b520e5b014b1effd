package addons

import (
	"slices"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

// kubeadm's registry; CoreDNS has a folder of its own there, and only there.
const defaultRepository = "registry.k8s.io"

const flannelRepository = "ghcr.io/flannel-io/flannel"

// Images lists what the addons run on every node. CoreDNS may be scheduled on any.
func Images(c *config.Cluster) []string {
	var images []string
	if c.Spec.KubeProxy.Mode != "none" {
		images = append(images, kubeProxyImage(c))
	}
	if !c.Spec.DNS.Disabled {
		images = append(images, dnsImage(c))
	}
	return slices.Concat(images, networkImages(c), extraImages(c))
}

// networkImages are those of the pod network: none of somebody's own, whose manifest names them.
func networkImages(c *config.Cluster) []string {
	switch c.Spec.Network.CNI.Name {
	case "flannel":
		return []string{flannelImage(c)}
	case "calico":
		images := []string{calicoImage(c, "node"), calicoImage(c, "cni"), calicoImage(c, "kube-controllers")}
		if c.Typhas() > 0 {
			images = append(images, calicoImage(c, "typha"))
		}
		return images
	case "weave":
		return []string{weaveImage(c, "weave-kube"), weaveImage(c, "weave-npc")}
	}
	return nil
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

func calicoImage(c *config.Cluster, name string) string {
	return "quay.io/calico/" + name + ":" + c.Spec.Network.CNI.Calico.Version
}

func weaveImage(c *config.Cluster, name string) string {
	return "docker.io/rajchaudhuri/" + name + ":" + c.Spec.Network.CNI.Weave.Version
}
