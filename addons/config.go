package addons

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// hashAnnotation tells `kubeadm upgrade` that nobody wrote or changed this configuration
// by hand, so that it may make it anew from its own defaults.
const hashAnnotation = "kubeadm.kubernetes.io/component-config.hash"

// Names in kubewright-config.
const (
	ConfigName  = "kubewright-config" // ConfigMap of kube-system
	ClusterKey  = "cluster.yaml"      // the document
	DigestKey   = "lock"              // sha256 of the artifact lock
	LockKey     = "lock.yaml"         // the lock itself; not there where the cluster was made without one
	configReads = "kubewright:config" // Role and RoleBinding
)

// Config returns the ConfigMaps that `kubeadm join` and `kubeadm upgrade` read, and who may
// read them. UserKubelet tells that the kubelet's configuration holds what kubeadm's
// defaults do not; it must then survive an upgrade.
func Config(clusterConfiguration, kubeletConfiguration []byte, userKubelet bool) []Object {
	kubeadm := &corev1.ConfigMap{
		ObjectMeta: named(kubeSystem, "kubeadm-config"),
		Data:       map[string]string{"ClusterConfiguration": string(clusterConfiguration)},
	}
	kubelet := &corev1.ConfigMap{
		ObjectMeta: named(kubeSystem, "kubelet-config"),
		Data:       map[string]string{"kubelet": string(kubeletConfiguration)},
	}
	if !userKubelet {
		sign(kubelet)
	}
	kubeadmRole, kubeadmBinding := mayGet(kubeSystem, "kubeadm:nodes-kubeadm-config", "configmaps", kubeadm.Name, group(bootstrappers), group(nodes))
	kubeletRole, kubeletBinding := mayGet(kubeSystem, "kubeadm:kubelet-config", "configmaps", kubelet.Name, group(nodes), group(bootstrappers))
	return objects(kubeadmRole, kubeadmBinding, kubeadm, kubeletRole, kubeletBinding, kubelet)
}

// KubewrightConfig returns the document, and the artifact lock in its canonical form (nil:
// there is none) with its digest, for hosts that join with nothing but a token. The document
// holds no secrets, and nothing of how its operator reaches the hosts.
func KubewrightConfig(c *config.Cluster, lock []byte) ([]Object, error) {
	kept := *c
	kept.Spec.Provider, kept.Spec.Hooks = config.Provider{}, config.Hooks{}
	kept.Spec.Hosts = slices.Clone(kept.Spec.Hosts)
	for i := range kept.Spec.Hosts {
		kept.Spec.Hosts[i].SSH, kept.Spec.Hosts[i].Hooks = nil, config.Hooks{}
	}
	document, err := kept.Print()
	if err != nil {
		return nil, fmt.Errorf("write the document as YAML: %w", err)
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: named(kubeSystem, ConfigName),
		Data:       map[string]string{ClusterKey: string(document), DigestKey: ""},
	}
	if lock != nil {
		cm.Data[DigestKey], cm.Data[LockKey] = host.Digest(lock), string(lock)
	}
	role, binding := mayGet(kubeSystem, configReads, "configmaps", ConfigName, group(bootstrappers), group(nodes))
	return objects(role, binding, cm), nil
}

// sign annotates as kubeadm's componentconfigs.SignConfigMap: a digest of the values in the
// order of their keys. The ConfigMaps here have no binary data.
func sign(cm *corev1.ConfigMap) { cm.Annotations = map[string]string{hashAnnotation: digest(cm)} }

func digest(of ...*corev1.ConfigMap) string {
	hash := sha256.New()
	for _, cm := range of {
		for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
			hash.Write([]byte(cm.Data[key]))
		}
	}
	return fmt.Sprintf("sha256:%x", hash.Sum(nil))
}
