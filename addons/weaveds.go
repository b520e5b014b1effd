package addons

import (
	"net/url"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubewright/kubewright/config"
)

// weaveDaemonSet has the settings of a cluster in the environment of its container weave.
func weaveDaemonSet(c *config.Cluster, api *url.URL, settings []corev1.EnvVar) *appsv1.DaemonSet {
	labels := map[string]string{"name": weaveNet}
	return &appsv1.DaemonSet{
		ObjectMeta: labelled(kubeSystem, weaveNet, labels),
		Spec: appsv1.DaemonSetSpec{
			Selector:        &metav1.LabelSelector{MatchLabels: labels},
			MinReadySeconds: 5,
			UpdateStrategy:  appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					HostNetwork:        true,
					DNSPolicy:          corev1.DNSClusterFirstWithHostNet,
					RestartPolicy:      corev1.RestartPolicyAlways,
					PriorityClassName:  "system-node-critical",
					ServiceAccountName: weaveNet,
					Tolerations: []corev1.Toleration{
						{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
						{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
					},
					InitContainers: []corev1.Container{{
						Name:            "weave-init",
						Image:           weaveImage(c, "weave-kube"),
						ImagePullPolicy: corev1.PullIfNotPresent,
						Command:         []string{"/home/weave/init.sh"},
						SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
						VolumeMounts: []corev1.VolumeMount{
							{Name: "cni-bin", MountPath: "/host/opt"},
							{Name: "cni-bin2", MountPath: "/host/home"},
							{Name: "cni-conf", MountPath: "/host/etc"},
							{Name: "lib-modules", MountPath: "/lib/modules"},
							{Name: "xtables-lock", MountPath: "/run/xtables.lock"},
						},
					}},
					Containers: weaveContainers(c, api, settings),
					Volumes: []corev1.Volume{
						hostVolume("weavedb", "/var/lib/weave", ""),
						hostVolume("cni-bin", "/opt", ""),
						hostVolume("cni-bin2", "/home", ""),
						hostVolume("cni-conf", "/etc", ""),
						hostVolume("cni-machine-id", "/etc/machine-id", ""),
						hostVolume("dbus", "/var/lib/dbus", ""),
						hostVolume("lib-modules", "/lib/modules", ""),
						hostVolume("xtables-lock", "/run/xtables.lock", corev1.HostPathFileOrCreate),
					},
				},
			},
		},
	}
}

func weaveContainers(c *config.Cluster, api *url.URL, settings []corev1.EnvVar) []corev1.Container {
	straight := []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: api.Hostname()}, {Name: "KUBERNETES_SERVICE_PORT", Value: portOf(api)}}
	cpu := corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}}
	lock := corev1.VolumeMount{Name: "xtables-lock", MountPath: "/run/xtables.lock"}
	return []corev1.Container{{
		Name:            "weave",
		Image:           weaveImage(c, "weave-kube"),
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         []string{"/home/weave/launch.sh"},
		Env: slices.Concat([]corev1.EnvVar{
			{Name: "INIT_CONTAINER", Value: "true"},
			fieldEnv("HOSTNAME", "spec.nodeName"),
			{Name: "CHECKPOINT_DISABLE", Value: "1"}, // there is nobody left to be told
		}, settings, straight),
		ReadinessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Path: "/status", Port: intstr.FromInt32(6784)}}},
		Resources:       cpu,
		SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "weavedb", MountPath: "/weavedb"},
			{Name: "dbus", MountPath: "/host/var/lib/dbus", ReadOnly: true},
			{Name: "cni-machine-id", MountPath: "/host/etc/machine-id", ReadOnly: true},
			lock,
		},
	}, {
		Name:            "weave-npc",
		Image:           weaveImage(c, "weave-npc"),
		ImagePullPolicy: corev1.PullIfNotPresent,
		Env:             append([]corev1.EnvVar{fieldEnv("HOSTNAME", "spec.nodeName")}, straight...),
		Resources:       cpu,
		SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
		VolumeMounts:    []corev1.VolumeMount{lock},
	}}
}
