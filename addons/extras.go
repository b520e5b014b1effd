package addons

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

// Images of the addons that are off by default, of the versions that go together with the objects here.
const (
	metricsServerImage = "registry.k8s.io/metrics-server/metrics-server:v0.9.0"
	localPathImage     = "docker.io/rancher/local-path-provisioner:v0.0.30"
	// localPathShell makes and removes the folders of volumes; any image with a shell, mkdir and rm would do.
	localPathShell       = "docker.io/library/busybox:1.35.0"
	traefikImage         = "docker.io/library/traefik:v3.6.25"
	cloudControllerImage = "registry.k8s.io/provider-aws/cloud-controller-manager:v1.37.0"
	// The driver's, and the companions that go with it.
	ebsImage            = "public.ecr.aws/ebs-csi-driver/aws-ebs-csi-driver:v1.49.0"
	ebsProvisionerImage = "registry.k8s.io/sig-storage/csi-provisioner:v5.3.0"
	ebsAttacherImage    = "registry.k8s.io/sig-storage/csi-attacher:v4.9.0"
	ebsResizerImage     = "registry.k8s.io/sig-storage/csi-resizer:v1.14.0"
	ebsRegistrarImage   = "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.14.0"
	ebsLivenessImage    = "registry.k8s.io/sig-storage/livenessprobe:v2.16.0"
)

// extra is an addon that is off by default.
type extra struct {
	wanted  func(config.Addons) bool
	objects func(*config.Cluster) ([]Object, error)
	images  []string
}

var extras = []extra{
	{func(a config.Addons) bool { return a.MetricsServer }, metricsServer, []string{metricsServerImage}},
	{func(a config.Addons) bool { return a.LocalPath }, localPath, []string{localPathImage, localPathShell}},
	{func(a config.Addons) bool { return a.Ingress == "traefik" }, traefik, []string{traefikImage}},
	{func(a config.Addons) bool { return len(a.DefaultDeny) > 0 }, defaultDeny, nil},
	{func(a config.Addons) bool { return a.CloudController.Name == "aws" }, cloudController, []string{cloudControllerImage}},
	{func(a config.Addons) bool { return a.EBSCSI }, ebsCSI,
		[]string{ebsImage, ebsProvisionerImage, ebsAttacherImage, ebsResizerImage, ebsRegistrarImage, ebsLivenessImage}},
}

// Extras returns the addons of spec.addons.
func Extras(c *config.Cluster) (all []Object, err error) {
	for _, e := range extras {
		if !e.wanted(c.Spec.Addons) {
			continue
		}
		more, err := e.objects(c)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func extraImages(c *config.Cluster) (images []string) {
	for _, e := range extras {
		if e.wanted(c.Spec.Addons) {
			images = append(images, e.images...)
		}
	}
	return images
}

// defaultDeny closes namespaces to all that no other policy allows; names are resolved all the same.
func defaultDeny(c *config.Cluster) ([]Object, error) {
	var out []Object
	for _, ns := range c.Spec.Addons.DefaultDeny {
		dns := func(p corev1.Protocol) networkingv1.NetworkPolicyPort {
			return networkingv1.NetworkPolicyPort{Protocol: new(p), Port: new(intstr.FromInt32(53))}
		}
		policy := &networkingv1.NetworkPolicy{
			ObjectMeta: named(ns, "default-deny"),
			Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
				Egress: []networkingv1.NetworkPolicyEgressRule{{
					To: []networkingv1.NetworkPolicyPeer{{
						NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: kubeSystem}},
						PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
					}},
					Ports: []networkingv1.NetworkPolicyPort{dns(corev1.ProtocolUDP), dns(corev1.ProtocolTCP)},
				}},
			},
		}
		namespace := &corev1.Namespace{ObjectMeta: named("", ns)}
		objs := objects(namespace, policy)
		// An empty selector is every pod, and has to be there.
		spec := objs[1].Object["spec"].(map[string]any)
		spec["podSelector"] = map[string]any{}
		out = append(out, objs...)
	}
	return out, nil
}
