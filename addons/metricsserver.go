package addons

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

// metricsServer is metrics-server after upstream's manifest, but for three things: kubelets have to show a
// certificate of the cluster's CA, which upstream leaves to its users, most of whom give up on it; it is
// asked for its health at once; and it looks at kubelets every ten seconds, not every fifteen.
func metricsServer(*config.Cluster) ([]Object, error) {
	const name = "metrics-server"
	labels := map[string]string{"k8s-app": name}
	account, subject := serviceAccount(kubeSystem, name)
	reader := &rbacv1.ClusterRole{
		ObjectMeta: labelled("", "system:aggregated-metrics-reader", map[string]string{
			"rbac.authorization.k8s.io/aggregate-to-view":  "true",
			"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
			"rbac.authorization.k8s.io/aggregate-to-admin": "true",
		}),
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}}},
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: named("", "system:metrics-server"),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes/metrics"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}},
		},
	}
	authReader := roleBinding(kubeSystem, name+"-auth-reader", "extension-apiserver-authentication-reader", subject)
	service := &corev1.Service{
		ObjectMeta: labelled(kubeSystem, name, labels),
		Spec: corev1.ServiceSpec{
			Selector: labels,
			Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("https"),
				AppProtocol: new("https")}},
		},
	}
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 2, FailureThreshold: 15,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("https"), Scheme: corev1.URISchemeHTTPS}}}
	}
	deployment := &appsv1.Deployment{
		ObjectMeta: labelled(kubeSystem, name, labels),
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromInt32(0))}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					PriorityClassName:  "system-cluster-critical",
					ServiceAccountName: name,
					NodeSelector:       map[string]string{corev1.LabelOSStable: "linux"},
					Containers: []corev1.Container{{
						Name: name, Image: metricsServerImage, ImagePullPolicy: corev1.PullIfNotPresent,
						Args: []string{
							"--cert-dir=/tmp",
							"--secure-port=10250",
							"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
							"--kubelet-use-node-status-port",
							"--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
							"--metric-resolution=15s",
						},
						Ports:          []corev1.ContainerPort{{Name: "https", ContainerPort: 10250, Protocol: corev1.ProtocolTCP}},
						Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("200Mi")}},
						ReadinessProbe: probe("/readyz"),
						LivenessProbe:  probe("/livez"),
						SecurityContext: &corev1.SecurityContext{
							ReadOnlyRootFilesystem: new(true), RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), AllowPrivilegeEscalation: new(false),
							SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
							Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						},
						VolumeMounts: []corev1.VolumeMount{{Name: "tmp-dir", MountPath: "/tmp"}},
					}},
					Volumes: []corev1.Volume{scratch("tmp-dir")},
				},
			},
		},
	}
	api := &unstructured.Unstructured{Object: map[string]any{ // whose Go type is in a module that nothing else here needs
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"},
		"spec": map[string]any{
			"service": map[string]any{"name": name, "namespace": kubeSystem},
			"group":   "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"insecureSkipTLSVerify": true, // its own certificate is of its own making; it is given no secrets
		},
	}}
	out := objects(account, reader, role, authReader,
		clusterBinding(name+":system:auth-delegator", "system:auth-delegator", subject), clusterBinding(role.Name, role.Name, subject), service, deployment)
	return append(out, api), nil
}

// scratch is a folder that lasts as long as its pod.
func scratch(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}
