package addons

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubewright/kubewright/config"
)

const (
	weaveNet    = "weave-net"
	weaveSecret = "weave-passwd" // the Secret, and its key
)

// Password is one that comes out by its method reveal alone, which makes a Secret of it: printed with any verb,
// or as JSON, it shows nothing. [ParsePassword] makes it.
type Password struct {
	text *string // a pointer, as in Token
}

// ParsePassword reads a file with a password: its first line. The error does not repeat it.
func ParsePassword(file []byte) (Password, error) {
	text, _, _ := strings.Cut(string(file), "\n")
	text = strings.TrimSuffix(text, "\r")
	if text == "" {
		return Password{}, errors.New("its first line is empty: write the password there")
	}
	return Password{&text}, nil
}

func (p Password) reveal() string {
	if p.text == nil {
		return ""
	}
	return *p.text
}

// String hides it.
func (p Password) String() string { return "<secret>" }

// Weave returns Weave Net, after weave-daemonset-k8s-1.11.yaml of v2.9.0 of rajch/weave. Server is the address of
// the API, as in [Flannel]. The password encrypts what goes from host to host; pods read it when they start.
func Weave(c *config.Cluster, server string, password Password) ([]Object, error) {
	api, err := parseAPI(server)
	if err != nil {
		return nil, err
	}
	encrypted := c.Spec.Network.CNI.Weave.PasswordFile != ""
	if encrypted && password.reveal() == "" {
		return nil, fmt.Errorf("the password of spec.network.cni.weave.passwordFile (%s) is not at hand", c.Spec.Network.CNI.Weave.PasswordFile)
	}
	pods := c.Spec.Network.PodRanges()
	if len(pods) == 0 {
		return nil, errors.New("spec.network.podCIDR is empty, and weave needs a range")
	}
	labels := map[string]string{"name": weaveNet}
	account, subject := serviceAccount(kubeSystem, weaveNet)
	account.Labels = labels
	read := []string{"get", "list", "watch"}
	role := &rbacv1.ClusterRole{
		ObjectMeta: labelled("", weaveNet, labels),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods", "namespaces", "nodes"}, Verbs: read},
			{APIGroups: []string{"extensions"}, Resources: []string{"networkpolicies"}, Verbs: read},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch", "update"}},
		},
	}
	binding := clusterBinding(weaveNet, weaveNet, subject)
	binding.Labels = labels
	// Its peers are in a ConfigMap that it makes itself.
	peers := &rbacv1.Role{
		ObjectMeta: labelled(kubeSystem, weaveNet, labels),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{weaveNet}, Verbs: []string{"get", "update"}},
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
		},
	}
	peersBinding := roleBinding(kubeSystem, weaveNet, weaveNet, subject)
	peersBinding.Labels = labels
	env := []corev1.EnvVar{{Name: "IPALLOC_RANGE", Value: pods[0].String()}}
	if mtu := c.Spec.Network.CNI.MTU; mtu != 0 {
		env = append(env, corev1.EnvVar{Name: "WEAVE_MTU", Value: strconv.Itoa(mtu)})
	}
	all := objects(account, role, binding, peers, peersBinding)
	if encrypted {
		env = append(env, corev1.EnvVar{Name: "WEAVE_PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: weaveSecret}, Key: weaveSecret,
		}}})
		all = append(all, objects(&corev1.Secret{
			ObjectMeta: labelled(kubeSystem, weaveSecret, labels),
			Type:       corev1.SecretTypeOpaque,
			Data:       map[string][]byte{weaveSecret: []byte(password.reveal())},
		})...)
	}
	return append(all, objects(weaveDaemonSet(c, api, env))...), nil
}
