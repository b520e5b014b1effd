package addons

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/config"
)

const (
	ebsDriver = "ebs.csi.aws.com"
	ebsNode   = "ebs-csi-node"
	ebsPlane  = "ebs-csi-controller"
)

// ebsCSI is the driver of EC2's volumes after upstream's manifest, and a default StorageClass of encrypted ones. But for four things: the
// controller runs on control planes, on the host's network, one on each, so that no other machine needs rights in EC2 and no pod the way to
// their credentials; the node's part waits for what the cloud controller says of its node, and asks nobody else; it may
// not change nodes; and there are no snapshots, whose definitions a cluster doesn't have by itself.
func ebsCSI(c *config.Cluster) ([]Object, error) {
	controller, controllerSubject := serviceAccount(kubeSystem, ebsPlane+"-sa")
	node, nodeSubject := serviceAccount(kubeSystem, ebsNode+"-sa")
	read := []string{"get", "list", "watch"}
	role := &rbacv1.ClusterRole{
		ObjectMeta: named("", ebsPlane),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: append(read[:3:3], "create", "patch", "delete")},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: append(read[:3:3], "update")},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims/status"}, Verbs: []string{"patch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes", "pods"}, Verbs: read},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list", "watch", "create", "update", "patch"}},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"storageclasses", "csinodes", "volumeattributesclasses"}, Verbs: read},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"volumeattachments"}, Verbs: append(read[:3:3], "patch")},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"volumeattachments/status"}, Verbs: []string{"patch"}},
		},
	}
	leases := &rbacv1.Role{
		ObjectMeta: named(kubeSystem, ebsPlane),
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "list", "watch", "create", "update"}}},
	}
	leasing := roleBinding(kubeSystem, ebsPlane, ebsPlane, controllerSubject)
	nodeRole := &rbacv1.ClusterRole{
		ObjectMeta: named("", ebsNode),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get"}},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"csinodes"}, Verbs: []string{"get"}},
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"volumeattachments"}, Verbs: read}, // before a node goes, it waits until its volumes have gone
		},
	}
	driver := &storagev1.CSIDriver{
		ObjectMeta: named("", ebsDriver),
		Spec:       storagev1.CSIDriverSpec{AttachRequired: new(true), PodInfoOnMount: new(false), FSGroupPolicy: new(storagev1.FileFSGroupPolicy)},
	}
	class := &storagev1.StorageClass{
		ObjectMeta:           metav1.ObjectMeta{Name: "gp3", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:          ebsDriver,
		Parameters:           map[string]string{"type": "gp3", "encrypted": "true", "csi.storage.k8s.io/fstype": "ext4"},
		VolumeBindingMode:    new(storagev1.VolumeBindingWaitForFirstConsumer), // then the zone is known
		ReclaimPolicy:        new(corev1.PersistentVolumeReclaimDelete),
		AllowVolumeExpansion: new(true),
	}
	return objects(controller, node, role, leases, leasing, nodeRole, clusterBinding(ebsPlane, role.Name, controllerSubject),
		clusterBinding(ebsNode, nodeRole.Name, nodeSubject), driver, class,
		ebsDaemonSet(ebsPlane, ebsControllerPod(c, controller.Name)), ebsDaemonSet(ebsNode, ebsNodePod(node.Name))), nil
}

func ebsDaemonSet(name string, pod corev1.PodSpec) *appsv1.DaemonSet {
	labels := map[string]string{"app": name, "app.kubernetes.io/name": "aws-ebs-csi-driver"}
	return &appsv1.DaemonSet{
		ObjectMeta: labelled(kubeSystem, name, labels),
		Spec: appsv1.DaemonSetSpec{
			Selector:       &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType},
			Template:       corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
		},
	}
}
