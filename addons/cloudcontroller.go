package addons

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
)

// Until the cloud controller has said what a node is, it has this taint, which kubelets register.
const Uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// CloudControllerLabels are those of its pods, which are in kube-system.
func CloudControllerLabels() map[string]string {
	return map[string]string{"k8s-app": cloudControllerName}
}

const cloudControllerName = "aws-cloud-controller-manager"

// cloudController is AWS' cloud-controller-manager after upstream's manifest, but for four things. It has the rights that it
// uses itself, not that of asking for any account's token, as which it would then act. It talks to the API server of its host,
// and need not wait for kube-proxy, the pod network or a load balancer. It runs whatever taint a control plane has, for all others may wait
// for it. And it is not root, nor heard beyond its host.
func cloudController(c *config.Cluster) ([]Object, error) {
	const name = "cloud-controller-manager" // of the account, and of the lease
	own := c.Spec.Addons.CloudController
	account, subject := serviceAccount(kubeSystem, name)
	role := &rbacv1.ClusterRole{
		ObjectMeta: named("", "system:"+name),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch", "update", "patch", "delete"}},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
			{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"services/status"}, Verbs: []string{"patch"}},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch", "update"}},
		},
	}
	leases := &rbacv1.Role{
		ObjectMeta: named(kubeSystem, "system:"+name),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{name}, Verbs: []string{"get", "update"}},
		},
	}
	out := objects(account, role, leases, roleBinding(kubeSystem, leases.Name, leases.Name, subject),
		roleBinding(kubeSystem, name+":apiserver-authentication-reader", "extension-apiserver-authentication-reader", subject),
		clusterBinding(role.Name, role.Name, subject), cloudControllerDaemonSet(c, own, account.Name))
	return append(out, networkLoadBalancers(c)...), nil
}

func cloudControllerDaemonSet(c *config.Cluster, own config.CloudController, account string) *appsv1.DaemonSet {
	labels := CloudControllerLabels()
	args := map[string]string{
		"bind-address":                    "127.0.0.1",
		"cloud-provider":                  own.Name,
		"cluster-name":                    c.Metadata.Name,
		"concurrent-node-syncs":           "10",    // not one after the other: it asks for all of them at once
		"configure-cloud-routes":          "false", // the pod network leads to pods
		"use-service-account-credentials": "false",
		"v":                               "2",
	}
	return &appsv1.DaemonSet{
		ObjectMeta: labelled(kubeSystem, cloudControllerName, labels),
		Spec: appsv1.DaemonSetSpec{
			Selector:       &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					PriorityClassName:  "system-cluster-critical",
					HostNetwork:        true,
					DNSPolicy:          corev1.DNSDefault, // the cloud's names, and the cluster's DNS may not run yet
					ServiceAccountName: account,
					NodeSelector:       map[string]string{"node-role.kubernetes.io/control-plane": ""},
					Tolerations:        []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), RunAsGroup: new(int64(65532)),
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
					Containers: []corev1.Container{{
						Name: cloudControllerName, Image: cloudControllerImage, ImagePullPolicy: corev1.PullIfNotPresent,
						Args: manifests.Flags(args, own.ExtraArgs),
						Env: append([]corev1.EnvVar{
							fieldEnv("KUBERNETES_SERVICE_HOST", "status.hostIP"),
							{Name: "KUBERNETES_SERVICE_PORT", Value: strconv.Itoa(int(c.Spec.ControlPlane.BindPort))},
						}, own.ExtraEnvs...),
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}},
						SecurityContext: &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false),
							Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
						VolumeMounts: manifests.Mounts(own.ExtraVolumes),
					}},
					Volumes: manifests.Volumes(own.ExtraVolumes),
				},
			},
		},
	}
}
