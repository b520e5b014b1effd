package addons

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/config"
)

// KubeProxy returns kubeadm's kube-proxy with the given files; nothing where the document
// wants none.
func KubeProxy(c *config.Cluster, configuration, kubeconfig []byte) []Object {
	if c.Spec.KubeProxy.Mode == "none" {
		return nil
	}
	const name = "kube-proxy"
	account, subject := serviceAccount(kubeSystem, name)
	role, binding := mayGet(kubeSystem, name, "configmaps", name, group(bootstrappers))
	cm := &corev1.ConfigMap{
		ObjectMeta: labelled(kubeSystem, name, map[string]string{"app": name}),
		Data: map[string]string{ // without a last newline, as in kubeadm's
			"config.conf":     strings.TrimRight(string(configuration), "\n"),
			"kubeconfig.conf": strings.TrimRight(string(kubeconfig), "\n"),
		},
	}
	if !userKubeProxy(c) {
		sign(cm)
	}
	return objects(account,
		clusterBinding("kubeadm:node-proxier", "system:node-proxier", subject),
		role, binding, cm, kubeProxyDaemonSet(c, cm))
}

// userKubeProxy tells whether the configuration holds what kubeadm's defaults do not.
// Iptables is what kubeadm's empty mode means.
func userKubeProxy(c *config.Cluster) bool {
	return len(c.Spec.KubeProxy.Config) > 0 || len(c.Spec.FeatureGates) > 0 || c.Spec.KubeProxy.Mode != "iptables"
}

func kubeProxyDaemonSet(c *config.Cluster, configuration *corev1.ConfigMap) *appsv1.DaemonSet {
	labels := map[string]string{"k8s-app": "kube-proxy"}
	return &appsv1.DaemonSet{
		ObjectMeta: labelled(kubeSystem, "kube-proxy", labels),
		Spec: appsv1.DaemonSetSpec{
			Selector:       &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: digestOf(configuration)},
				Spec: corev1.PodSpec{
					PriorityClassName:  "system-node-critical",
					HostNetwork:        true,
					ServiceAccountName: "kube-proxy",
					NodeSelector:       map[string]string{corev1.LabelOSStable: "linux"},
					Tolerations:        []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					Containers: []corev1.Container{{
						Name:            "kube-proxy",
						Image:           kubeProxyImage(c),
						ImagePullPolicy: corev1.PullIfNotPresent,
						Command: []string{
							"/usr/local/bin/kube-proxy",
							"--config=/var/lib/kube-proxy/config.conf",
							"--hostname-override=$(NODE_NAME)",
						},
						Env:             []corev1.EnvVar{fieldEnv("NODE_NAME", "spec.nodeName")},
						SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
						VolumeMounts: []corev1.VolumeMount{
							{Name: "kube-proxy", MountPath: "/var/lib/kube-proxy"},
							{Name: "xtables-lock", MountPath: "/run/xtables.lock"},
							{Name: "lib-modules", MountPath: "/lib/modules", ReadOnly: true},
						},
					}},
					Volumes: []corev1.Volume{
						configMapVolume("kube-proxy", "kube-proxy"),
						hostVolume("xtables-lock", "/run/xtables.lock", corev1.HostPathFileOrCreate),
						hostVolume("lib-modules", "/lib/modules", ""),
					},
				},
			},
		},
	}
}

// digestOf annotates pods with the configuration that they read when they start: changed alone, it would restart nothing.
func digestOf(configuration ...*corev1.ConfigMap) map[string]string {
	return map[string]string{"kubewright.dev/config": digest(configuration...)}
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

func configMapVolume(name, configMap string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
	}}}
}

// hostVolume mounts a path of the host; an empty type checks nothing.
func hostVolume(name, path string, kind corev1.HostPathType) corev1.Volume {
	source := &corev1.HostPathVolumeSource{Path: path}
	if kind != "" {
		source.Type = &kind
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: source}}
}
