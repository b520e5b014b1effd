// Package e2e tests real clusters: hosts are those of package lab, clusters are made on them by
// kubewright and by the real kubeadm. Its one result for others is [Differences].
package e2e

import (
	"fmt"
	"strings"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/manifests"
)

// Difference is a place where a cluster of ours is meant to differ from what the real kubeadm
// (and, for flannel, its own manifest) makes of the same wish.
type Difference struct {
	Where string // path of a file, or kind and namespace/name of an object; * is any text
	Field string // what differs, with all that is below it; * is any text; "exists": the whole
	// The values; both empty where it does not matter which.
	Kubeadm, Ours string
	Why           string
}

// Differences are all that two clusters of one control plane show. The test against the real
// kubeadm holds us to the list, both ways. What only other hosts and wishes show is in
// [manifests.Differences].
func Differences() []Difference {
	requests := why(manifests.Path(manifests.ControllerManager), "--kube-api-qps, --kube-api-burst")
	list := []Difference{
		{"*", "*certificate.key", "RSA-2048", "ECDSA-P256", algorithm},
		{"*", "*private key", "RSA-2048", "ECDSA-P256", algorithm},
		{"*/sa.pub", "public key", "", "", algorithm},
		{"*", "*certificate.signature", "SHA256-RSA", "ECDSA-SHA256", algorithm},
		{"ConfigMap kube-system/kubeadm-config", "data.ClusterConfiguration.encryptionAlgorithm", "RSA-2048", "ECDSA-P256", algorithm},
		{"*", "*certificate.usage", "digitalSignature keyEncipherment", "digitalSignature",
			"an ECDSA key cannot encipher keys (RFC 8813); kubeadm is about to drop it as well (kubernetes#141838)"},
		{"*", "*certificate.usage", "digitalSignature keyEncipherment certSign", "certSign CRLSign", "what cfssl makes of a CA: it signs and does nothing else"},
		{"*", "*certificate.names", "kubernetes", "", noNames},
		{"*", "*certificate.names", "etcd-ca", "", noNames},
		{"*", "*certificate.names", "front-proxy-ca", "", noNames},
		{"/var/lib/kubelet/pki/kubelet.crt", "*", "", "",
			"the kubelet serves with a certificate of the cluster's CA, for its name and address, instead of one that it signs itself and nobody can verify"},
		{"Secret kube-system/bootstrap-token-*", "data.description", "", "Made by kubewright init.", "`token list` says where a token is from"},
		{"ConfigMap kube-system/kubewright-config", "exists", "false", "true", own},
		{"Role* kube-system/kubewright:config", "exists", "false", "true", own},
		{"ConfigMap kube-system/kubewright-inventory-cni", "exists", "false", "true", "it remembers the pod network's objects, so that those go that a newer version has no longer"},
		{"ConfigMap kube-system/kube-proxy", "data[config.conf].mode", "", "iptables", why("kube-system/kube-proxy config.conf", "mode")},
		{manifests.Path(manifests.ControllerManager), "*.command[--kube-api-qps]", "", "150", requests},
		{manifests.Path(manifests.ControllerManager), "*.command[--kube-api-burst]", "", "300", requests},
		{manifests.Path(manifests.APIServer), "*.command[--shutdown-watch-termination-grace-period]", "", "10s",
			why(manifests.Path(manifests.APIServer), "--shutdown-watch-termination-grace-period")},
	}
	for _, d := range addons.Differences() {
		kind, name, _ := strings.Cut(d.Object, " ")
		list = append(list, Difference{Where: kind + " */" + name, Field: d.Field, Why: d.Reason})
	}
	return list
}

const (
	algorithm = "ECDSA P-256 is the default of spec.pki.algorithm: keys in microseconds instead of a second of processor time, and smaller certificates"
	noNames   = "cfssl gives a CA no SAN; nobody calls a CA by a host name"
	own       = "joining hosts read versions and runtime from it; kubeadm ignores it"
)

// why is the reason that manifests gives: it is written once.
func why(file, field string) string {
	for _, d := range manifests.Differences() {
		if d.File == file && d.Field == field {
			return d.Why
		}
	}
	panic(fmt.Sprintf("manifests.Differences has no %s: %s", file, field))
}
