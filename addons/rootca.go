package addons

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RootCA returns the ConfigMaps by which pods of the given namespaces know the API's CA
// (PEM, as in /etc/kubernetes/pki/ca.crt). The controller manager makes the same, while it
// makes the first pods: a pod that comes before its ConfigMap waits for another try to mount
// it. Made beforehand, it is there.
func RootCA(ca []byte, namespaces ...string) []Object {
	var out []Object
	for _, namespace := range namespaces {
		out = append(out, objects(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace,
				Name:      "kube-root-ca.crt",
				// The controller manager leaves alone what has this annotation and its CA.
				Annotations: map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver " +
					"when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
					"No other usage is guaranteed across distributions of Kubernetes clusters."},
			},
			Data: map[string]string{"ca.crt": string(ca)},
		})...)
	}
	return out
}
