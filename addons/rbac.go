package addons

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The groups and users that the contract grants something to.
const (
	bootstrappers    = "system:bootstrappers:kubeadm:default-node-token"
	nodes            = "system:nodes"
	clusterAdmins    = "kubeadm:cluster-admins"
	kubeletClient    = "kube-apiserver-kubelet-client"
	anonymous        = "system:anonymous"
	approveNewNode   = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
	approveSameNode  = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
	certificatesRole = "kubeadm:kubeadm-certs"
)

// RBAC returns what admins, joining nodes, nodes and API servers may do in the whole cluster.
// To apply it takes the rights of super-admin.conf, as kubeadm:cluster-admins is part of it.
func RBAC() []Object {
	getNodes := &rbacv1.ClusterRole{
		ObjectMeta: named("", "kubeadm:get-nodes"),
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get"}}},
	}
	return objects(
		clusterBinding(clusterAdmins, "cluster-admin", group(clusterAdmins)),
		clusterBinding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", group(bootstrappers)),
		getNodes,
		clusterBinding("kubeadm:get-nodes", "kubeadm:get-nodes", group(bootstrappers)),
		clusterBinding("kubeadm:node-autoapprove-bootstrap", approveNewNode, group(bootstrappers)),
		clusterBinding("kubeadm:node-autoapprove-certificate-rotation", approveSameNode, group(nodes)),
		clusterBinding("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", user(kubeletClient)),
	)
}

// CertificatesRBAC lets joining nodes read the Secret kubeadm-certs, which is encrypted
// with a key that only the joining control planes are told.
func CertificatesRBAC() []Object {
	role, binding := mayGet(kubeSystem, certificatesRole, "secrets", CertificatesName, group(bootstrappers))
	return objects(role, binding)
}

// mayGet lets subjects read one object, by a Role and a RoleBinding of the same name.
func mayGet(namespace, name, resource, object string, subjects ...rbacv1.Subject) (*rbacv1.Role, *rbacv1.RoleBinding) {
	role := &rbacv1.Role{
		ObjectMeta: named(namespace, name),
		Rules: []rbacv1.PolicyRule{{
			APIGroups:     []string{""},
			Resources:     []string{resource},
			ResourceNames: []string{object},
			Verbs:         []string{"get"},
		}},
	}
	return role, roleBinding(namespace, name, name, subjects...)
}

func roleBinding(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: named(namespace, name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   subjects,
	}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: named("", name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}

// The API server fills in a subject's apiGroup, so that it is named here: an apply that
// leaves it out would be told of a difference for ever.
func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

func serviceAccount(namespace, name string) (*corev1.ServiceAccount, rbacv1.Subject) {
	return &corev1.ServiceAccount{ObjectMeta: named(namespace, name)},
		rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}
