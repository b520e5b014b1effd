package addons

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

// localPathDir on each node holds a folder for each volume.
const localPathDir = "/opt/local-path-provisioner"

// The provisioner has these run on the node of a volume, by a pod with a shell.
const (
	localPathSetup    = "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n"
	localPathTeardown = "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n"
)

// localPath is Rancher's local-path-provisioner after upstream's manifest: volumes are folders on the node
// where their first pod runs. The class is the default one.
func localPath(*config.Cluster) ([]Object, error) {
	const name, ns, configMap = "local-path-provisioner", "local-path-storage", "local-path-config"
	settings, err := json.MarshalIndent(map[string]any{
		"nodePathMap": []any{map[string]any{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": []string{localPathDir}}},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	helper, err := yaml.Marshal(&corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "helper-pod"},
		Spec: corev1.PodSpec{
			PriorityClassName: "system-node-critical",
			Tolerations:       []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:        []corev1.Container{{Name: "helper-pod", Image: localPathShell, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	})
	if err != nil {
		return nil, err
	}
	// Its pods mount folders of the host.
	namespace := &corev1.Namespace{ObjectMeta: labelled("", ns, map[string]string{"pod-security.kubernetes.io/enforce": "privileged"})}
	account, subject := serviceAccount(ns, name)
	role := &rbacv1.Role{
		ObjectMeta: named(ns, name),
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch", "create", "patch", "update", "delete"}}},
	}
	binding := roleBinding(ns, name, name, subject)
	everywhere := &rbacv1.ClusterRole{
		ObjectMeta: named("", name),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get", "list", "watch", "create", "patch", "update", "delete"}},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"storageclasses"}, Verbs: []string{"get", "list", "watch"}},
		},
	}
	cm := &corev1.ConfigMap{ObjectMeta: named(ns, configMap), Data: map[string]string{
		"config.json": string(settings), "setup": localPathSetup, "teardown": localPathTeardown, "helperPod.yaml": string(helper),
	}}
	class := &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: "local-path", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:       "rancher.io/local-path",
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer), // then the node is known
		ReclaimPolicy:     new(corev1.PersistentVolumeReclaimDelete),
	}
	labels := map[string]string{"app": name}
	deployment := &appsv1.Deployment{
		ObjectMeta: named(ns, name),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(1)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					ServiceAccountName: name,
					Containers: []corev1.Container{{
						Name: name, Image: localPathImage, ImagePullPolicy: corev1.PullIfNotPresent,
						Command: []string{"local-path-provisioner", "start", "--config", "/etc/config/config.json",
							"--service-account-name", name},
						Env:          []corev1.EnvVar{fieldEnv("POD_NAMESPACE", "metadata.namespace"), {Name: "CONFIG_MOUNT_PATH", Value: "/etc/config/"}},
						VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config/"}},
					}},
					Volumes: []corev1.Volume{configMapVolume("config", configMap)},
				},
			},
		},
	}
	return objects(namespace, account, role, binding, everywhere, clusterBinding(name, name, subject), cm, class, deployment), nil
}
