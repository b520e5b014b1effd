package addons

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

const (
	typhaName   = "calico-typha"
	typhaPort   = 5473
	typhaHealth = 9098
)

// typha stands between the nodes and the API, so that not each of them watches everything there. It runs with
// calico-node's rights, which are all that it needs.
func typha(c *config.Cluster, replicas int32) []Object {
	labels := map[string]string{"k8s-app": typhaName}
	meta := labelled(kubeSystem, typhaName, labels)
	selector := &metav1.LabelSelector{MatchLabels: labels}
	return objects(
		&corev1.Service{
			ObjectMeta: meta,
			Spec: corev1.ServiceSpec{
				Selector: labels,
				Ports:    []corev1.ServicePort{{Name: typhaName, Protocol: corev1.ProtocolTCP, Port: typhaPort, TargetPort: intstr.FromString(typhaName)}},
			},
		},
		&policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt32(1)), Selector: selector}},
		&appsv1.Deployment{
			ObjectMeta: meta,
			Spec: appsv1.DeploymentSpec{
				Replicas: &replicas,
				Selector: selector,
				// Nodes go over from the old ones to the new at once; but each takes a port of its host.
				Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxUnavailable: new(intstr.FromInt32(1)), MaxSurge: new(intstr.FromString("100%")),
				}},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}},
					Spec: corev1.PodSpec{
						NodeSelector:                  map[string]string{corev1.LabelOSStable: "linux"},
						HostNetwork:                   true, // there are no other networks before it runs
						PriorityClassName:             "system-cluster-critical",
						ServiceAccountName:            "calico-node",
						TerminationGracePeriodSeconds: new(int64(300)),
						Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
						SecurityContext:               &corev1.PodSecurityContext{FSGroup: new(int64(65534)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
						Containers:                    []corev1.Container{typhaContainer(c)},
					},
				},
			},
		})
}

func typhaContainer(c *config.Cluster) corev1.Container {
	look := func(path string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(typhaHealth), Host: "localhost", Scheme: corev1.URISchemeHTTP}}
	}
	return corev1.Container{
		Name:            typhaName,
		Image:           calicoImage(c, "typha"),
		ImagePullPolicy: corev1.PullIfNotPresent,
		Ports:           []corev1.ContainerPort{{Name: typhaName, ContainerPort: typhaPort, Protocol: corev1.ProtocolTCP}},
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: endpointConfig}, Optional: new(true),
		}}},
		Env: []corev1.EnvVar{
			{Name: "TYPHA_LOGSEVERITYSCREEN", Value: "info"},
			{Name: "TYPHA_LOGFILEPATH", Value: "none"},
			{Name: "TYPHA_LOGSEVERITYSYS", Value: "none"},
			{Name: "TYPHA_CONNECTIONREBALANCINGMODE", Value: "kubernetes"},
			{Name: "TYPHA_DATASTORETYPE", Value: "kubernetes"},
			{Name: "TYPHA_HEALTHENABLED", Value: "true"},
			{Name: "TYPHA_SHUTDOWNTIMEOUTSECS", Value: "300"}, // as the pod's grace period
		},
		LivenessProbe:   &corev1.Probe{ProbeHandler: look("/liveness"), InitialDelaySeconds: 30, PeriodSeconds: 30, TimeoutSeconds: 10},
		ReadinessProbe:  &corev1.Probe{ProbeHandler: look("/readiness"), PeriodSeconds: 10, TimeoutSeconds: 10},
		SecurityContext: &corev1.SecurityContext{RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false)},
	}
}
