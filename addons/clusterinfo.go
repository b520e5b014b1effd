package addons

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
)

const clusterInfoReads = "kubeadm:bootstrap-signer-clusterinfo"

// ClusterInfo returns what anybody may read before joining: where the API is (server, a URL)
// and its CA (PEM), signed with each token. The bootstrap signer of the controller manager
// would sign the same, some five seconds later; it finds nothing to change.
func ClusterInfo(server string, ca []byte, tokens []Token) ([]Object, error) {
	// As kubeadm: a kubeconfig of one cluster without a name, and nothing else.
	kubeconfig, err := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{
		"": {Server: server, CertificateAuthorityData: ca},
	}})
	if err != nil {
		return nil, fmt.Errorf("write the kubeconfig of cluster-info: %w", err)
	}
	data := map[string]string{api.KubeConfigKey: string(kubeconfig)}
	for _, t := range tokens {
		signature, err := jws.ComputeDetachedSignature(string(kubeconfig), t.ID(), t.key())
		if err != nil {
			return nil, fmt.Errorf("sign cluster-info with token %s: %w", t.ID(), err)
		}
		data[api.JWSSignatureKeyPrefix+t.ID()] = signature
	}
	cm := &corev1.ConfigMap{ObjectMeta: named(metav1.NamespacePublic, api.ConfigMapClusterInfo), Data: data}
	role, binding := mayGet(metav1.NamespacePublic, clusterInfoReads, "configmaps", cm.Name, user(anonymous))
	return objects(role, binding, cm), nil
}
