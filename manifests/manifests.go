// Package manifests computes the files of a node: static pods, the kubelet's configuration,
// flags and unit, the container runtime's configuration, and the documents that kubeadm
// keeps in the cluster.
//
// In go the Cluster, the Node and the Facts of its host; out come bytes. It touches no host.
//
// What it computes is what kubeadm v1.36 would write for the same wish, so that kubeadm's
// own join, upgrade and certs work on it. [Differences] lists what is meant to differ.
package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/config"
)

// Where things are on a host, as kubeadm has them.
const (
	ManifestDir         = "/etc/kubernetes/manifests" // watched by the kubelet
	KubeletDir          = "/var/lib/kubelet"
	KubeletConfig       = KubeletDir + "/config.yaml"
	KubeletInstance     = KubeletDir + "/instance-config.yaml"
	KubeletFlags        = KubeletDir + "/kubeadm-flags.env"
	kubernetesDir       = "/etc/kubernetes"
	pkiDir              = kubernetesDir + "/pki"
	kubeletKubeconfig   = kubernetesDir + "/kubelet.conf"
	bootstrapKubeconfig = kubernetesDir + "/bootstrap-kubelet.conf"
)

// The static pods, and their images.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Names are the static pods of a control plane, in the order in which they depend on one another.
func Names() []string { return []string{Etcd, APIServer, ControllerManager, Scheduler} }

// Wanted are those that such a cluster has: no etcd, where it is external.
func Wanted(c *config.Cluster) []string {
	if c.Spec.Etcd.External != nil {
		return Names()[1:]
	}
	return Names()
}

// Path is where the manifest of a static pod is.
func Path(name string) string { return ManifestDir + "/" + name + ".yaml" }

// Image is the image of a static pod or of kube-proxy.
func Image(c *config.Cluster, name string) string {
	tag := strings.ReplaceAll(c.Spec.KubernetesVersion, "+", "_") // no + in tags; v1.36.3+x is v1.36.3_x
	if name == Etcd {
		tag = c.Spec.Etcd.ImageTag
	}
	return c.Spec.ImageRepository + "/" + name + ":" + tag
}

// Images are those of the static pods.
func Images(c *config.Cluster) []string {
	var images []string
	for _, name := range Wanted(c) {
		images = append(images, Image(c, name))
	}
	return images
}

// IsControlPlaneImage tells whether only control planes run an image, from whichever registry it is.
func IsControlPlaneImage(image string) bool {
	name := image[strings.LastIndex(image, "/")+1:]
	if end := strings.IndexAny(name, ":@"); end >= 0 {
		name = name[:end]
	}
	return slices.Contains(Names(), name)
}

// Flags renders a component's flags as kubeadm does: the defaults sorted, without those
// that an override names, then the overrides in the user's order.
func Flags(defaults map[string]string, overrides []config.Arg) []string {
	defaults = maps.Clone(defaults)
	for _, o := range overrides {
		delete(defaults, o.Name)
	}
	var args []string
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		args = append(args, "--"+name+"="+defaults[name])
	}
	for _, o := range overrides {
		args = append(args, "--"+o.Name+"="+o.Value)
	}
	return args
}

// last is the value of the last argument of that name, the one that takes effect.
func last(args []config.Arg, name string) (string, bool) {
	for _, a := range slices.Backward(args) {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// controllerManagerArgs are those of the controller manager, and that it leaves a cloud to its own controller: of
// that kubeadm knows nothing, either.
func controllerManagerArgs(c *config.Cluster) []config.Arg {
	own := extraArgs(c, c.Spec.ControllerManager.ExtraArgs)
	if _, ok := last(own, "cloud-provider"); ok || !c.ExternalCloud() {
		return own
	}
	return append([]config.Arg{{Name: "cloud-provider", Value: "external"}}, own...)
}

// extraArgs are the user's arguments of a component, and the feature gates of the cluster
// unless the user has given the component its own. kubeadm knows no gates of the whole
// cluster, so it meets them in kubeadm-config as these arguments.
func extraArgs(c *config.Cluster, own []config.Arg) []config.Arg {
	if _, ok := last(own, "feature-gates"); ok || len(c.Spec.FeatureGates) == 0 {
		return own
	}
	var gates []string
	for _, name := range slices.Sorted(maps.Keys(c.Spec.FeatureGates)) {
		gates = append(gates, fmt.Sprintf("%s=%t", name, c.Spec.FeatureGates[name]))
	}
	return append([]config.Arg{{Name: "feature-gates", Value: strings.Join(gates, ",")}}, own...)
}
