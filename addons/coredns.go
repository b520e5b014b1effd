package addons

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

// CoreDNS returns kubeadm's CoreDNS; nothing where the document wants none. Patch, which
// may be nil, changes the Deployment's YAML (target "corednsdeployment").
//
// Whoever applies it to a cluster that has one already keeps its replicas, and a Corefile
// that somebody wrote, as kubeadm does.
func CoreDNS(c *config.Cluster, patch func(target string, document []byte) ([]byte, error)) ([]Object, error) {
	if c.Spec.DNS.Disabled {
		return nil, nil
	}
	ip, err := manifests.DNSAddress(c)
	if err != nil {
		return nil, err
	}
	account, subject := serviceAccount(kubeSystem, "coredns")
	role := &rbacv1.ClusterRole{
		ObjectMeta: named("", "system:coredns"),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		},
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: named(kubeSystem, "coredns"),
		Data:       map[string]string{"Corefile": corefile(c.Spec.Network.DNSDomain)},
	}
	out := objects(account, role, clusterBinding(role.Name, role.Name, subject), cm, dnsService(ip.String()), coreDNSDeployment(c))
	if patch != nil {
		if err := patchObject(out[len(out)-1], patch); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func patchObject(o Object, patch func(string, []byte) ([]byte, error)) error {
	document, err := yaml.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("write %s: %w", manifests.CoreDNSDeploymentTarget, err)
	}
	if document, err = patch(manifests.CoreDNSDeploymentTarget, document); err != nil {
		return err
	}
	json, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return fmt.Errorf("patched %s: %w", manifests.CoreDNSDeploymentTarget, err)
	}
	return o.UnmarshalJSON(json)
}

// corefile is kubeadm's, to the byte: `kubeadm upgrade` replaces a Corefile that it knows
// as a default one, and migrates any other.
func corefile(domain string) string {
	return fmt.Sprintf(`.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes %[1]s in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success %[1]s
       disable denial %[1]s
    }
    loop
    reload
    loadbalance
}
`, domain)
}

func dnsLabels() map[string]string { return map[string]string{"k8s-app": "kube-dns"} }

func dnsService(ip string) *corev1.Service {
	port := func(name string, number int32, protocol corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, Protocol: protocol, TargetPort: intstr.FromInt32(number)}
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: kubeSystem,
			Name:      "kube-dns",
			Labels: map[string]string{
				"k8s-app":                       "kube-dns",
				"kubernetes.io/cluster-service": "true",
				"kubernetes.io/name":            "CoreDNS",
			},
			Annotations: map[string]string{"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip,
			Selector:  dnsLabels(),
			Ports: []corev1.ServicePort{
				port("dns", 53, corev1.ProtocolUDP),
				port("dns-tcp", 53, corev1.ProtocolTCP),
				port("metrics", 9153, corev1.ProtocolTCP),
			},
		},
	}
}

func coreDNSDeployment(c *config.Cluster) *appsv1.Deployment {
	tolerations := []corev1.Toleration{
		{Key: "CriticalAddonsOnly", Operator: corev1.TolerationOpExists},
		{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
	}
	if c.ExternalCloud() { // which may be long in coming, and somebody's may ask for names
		tolerations = append(tolerations, corev1.Toleration{Key: Uninitialized, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	return &appsv1.Deployment{
		ObjectMeta: labelled(kubeSystem, "coredns", dnsLabels()),
		Spec: appsv1.DeploymentSpec{
			Replicas: &c.Spec.DNS.Replicas,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromInt32(1))},
			},
			Selector: &metav1.LabelSelector{MatchLabels: dnsLabels()},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: dnsLabels()},
				Spec: corev1.PodSpec{
					PriorityClassName:  "system-cluster-critical",
					ServiceAccountName: "coredns",
					Affinity:           spreadOverHosts(),
					Tolerations:        tolerations,
					NodeSelector:       map[string]string{corev1.LabelOSStable: "linux"},
					Containers:         []corev1.Container{coreDNSContainer(c)},
					DNSPolicy:          corev1.DNSDefault,
					Volumes: []corev1.Volume{{Name: "config-volume", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
						LocalObjectReference: corev1.LocalObjectReference{Name: "coredns"},
						Items:                []corev1.KeyToPath{{Key: "Corefile", Path: "Corefile"}},
					}}}},
				},
			},
		},
	}
}

func coreDNSContainer(c *config.Cluster) corev1.Container {
	return corev1.Container{
		Name:            "coredns",
		Image:           dnsImage(c),
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args:            []string{"-conf", "/etc/coredns/Corefile"},
		Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("170Mi")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("70Mi")},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "config-volume", MountPath: "/etc/coredns", ReadOnly: true}},
		Ports: []corev1.ContainerPort{
			{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			{Name: "dns-tcp", ContainerPort: 53, Protocol: corev1.ProtocolTCP},
			{Name: "metrics", ContainerPort: 9153, Protocol: corev1.ProtocolTCP},
			{Name: "liveness-probe", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
			{Name: "readiness-probe", ContainerPort: 8181, Protocol: corev1.ProtocolTCP},
		},
		LivenessProbe: &corev1.Probe{
			ProbeHandler:        httpGet("/health", "liveness-probe"),
			InitialDelaySeconds: 60,
			TimeoutSeconds:      5,
			SuccessThreshold:    1,
			FailureThreshold:    5,
		},
		// Differs from kubeadm, see Differences.
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:     httpGet("/ready", "readiness-probe"),
			PeriodSeconds:    1,
			FailureThreshold: 30,
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}, Drop: []corev1.Capability{"ALL"}},
		},
	}
}

// spreadOverHosts prefers one CoreDNS a host.
func spreadOverHosts() *corev1.Affinity {
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "k8s-app", Operator: metav1.LabelSelectorOpIn, Values: []string{"kube-dns"}},
				}},
				TopologyKey: corev1.LabelHostname,
			},
		}},
	}}
}

func httpGet(path, port string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString(port), Scheme: corev1.URISchemeHTTP}}
}
