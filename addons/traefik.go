package addons

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

// traefik follows Ingress rules, and is the default class. It is reached at the node ports of its Service, and at
// a load balancer's address where the cluster has somebody who gives one. Its custom resources are not installed.
func traefik(c *config.Cluster) ([]Object, error) {
	const name = "traefik"
	labels := map[string]string{"app.kubernetes.io/name": name}
	namespace := &corev1.Namespace{ObjectMeta: labelled("", name, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})}
	account, subject := serviceAccount(name, name)
	read := []string{"get", "list", "watch"}
	role := &rbacv1.ClusterRole{
		ObjectMeta: named("", name),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "secrets", "nodes", "namespaces"}, Verbs: read},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses", "ingressclasses"}, Verbs: read},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses/status"}, Verbs: []string{"update"}},
		},
	}
	class := &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: "traefik.io/ingress-controller"},
	}
	port := func(name string, port int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString(name)}
	}
	service := &corev1.Service{
		ObjectMeta: labelled(name, name, labels),
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: labels, Ports: []corev1.ServicePort{port("web", 80), port("websecure", 443)}},
	}
	if c.Spec.Addons.CloudController.Name == "aws" { // the policy that would say so may come later
		service.Annotations = map[string]string{balancerKind: "nlb"}
	}
	ping := &corev1.Probe{PeriodSeconds: 2, FailureThreshold: 15,
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ping", Port: intstr.FromString("ping")}}}
	deployment := &appsv1.Deployment{
		ObjectMeta: labelled(name, name, labels),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(2)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					ServiceAccountName: name,
					Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
						Weight:          100,
						PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}},
					}}}},
					SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), RunAsGroup: new(int64(65532)),
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
					Containers: []corev1.Container{{
						Name: name, Image: traefikImage, ImagePullPolicy: corev1.PullIfNotPresent,
						Args: []string{
							"--providers.kubernetesingress",
							"--providers.kubernetesingress.ingressendpoint.publishedservice=" + name + "/" + name,
							"--entrypoints.web.address=:8000",
							"--entrypoints.websecure.address=:8443",
							"--entrypoints.websecure.http.tls",
							"--entrypoints.ping.address=:8080",
							"--ping", "--ping.entrypoint=ping",
							"--global.checknewversion=false",
							"--global.sendanonymoususage=false",
						},
						Ports: []corev1.ContainerPort{
							{Name: "web", ContainerPort: 8000, Protocol: corev1.ProtocolTCP},
							{Name: "websecure", ContainerPort: 8443, Protocol: corev1.ProtocolTCP},
							{Name: "ping", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
						},
						Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
						ReadinessProbe: ping,
						LivenessProbe:  ping,
						SecurityContext: &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false),
							Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
					}},
				},
			},
		},
	}
	return objects(namespace, account, role, clusterBinding(name, name, subject), class, service, deployment), nil
}
