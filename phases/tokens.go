package phases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/pki"
)

// TokenInfo is a bootstrap token of a cluster, without its secret half.
type TokenInfo struct {
	ID          string    `json:"id"`
	Expires     time.Time `json:"expires,omitzero"` // zero: never
	Usages      []string  `json:"usages"`
	Groups      []string  `json:"groups,omitempty"`
	Description string    `json:"description,omitempty"`
}

// CreateToken stores a new token in a live cluster, and waits until the controller manager
// has signed cluster-info with it: before that, a host that joins takes it for a wrong one.
func CreateToken(ctx context.Context, api API, t addons.Token, description string, ttl time.Duration, usages, groups []string) error {
	var expires time.Time
	if ttl > 0 {
		expires = time.Now().Add(ttl)
	}
	o := addons.TokenSecret(t, description, expires, usages, groups)
	_, err := api.Get(ctx, o)
	if err == nil {
		return fmt.Errorf("there is a token %s already: delete it first with `kubewright token delete %s`, or choose another", t.ID(), t.ID())
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	if _, err = api.Apply(ctx, o); err != nil || !slices.Contains(usages, "signing") {
		return err
	}
	limit := signing
	if ttl > 0 {
		limit = min(limit, ttl) // it is never signed any more
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err = api.Until(bounded, ref("v1", "ConfigMap", "kube-public", "cluster-info"), func(o addons.Object) bool {
		signature, _, _ := unstructured.NestedString(o.Object, "data", bootstrapapi.JWSSignatureKeyPrefix+t.ID())
		return signature != ""
	})
	if err != nil {
		return fmt.Errorf("token %s is stored, but the controller manager did not sign cluster-info with it within %s, and no host can join before: see whether it runs with `kubectl -n kube-system get pods`: %w", t.ID(), limit, err)
	}
	return nil
}

// signing bounds the wait for a signature: a controller manager that was just restarted
// first waits for its predecessor's lease to end.
const signing = 30 * time.Second

// ListTokens returns the tokens of a live cluster, in the order of their names.
func ListTokens(ctx context.Context, api API) ([]TokenInfo, error) {
	secrets, err := bootstrapSecrets(ctx, api)
	if err != nil {
		return nil, err
	}
	tokens := []TokenInfo{}
	for _, s := range secrets {
		t := TokenInfo{ID: string(s.Data[bootstrapapi.BootstrapTokenIDKey]), Description: string(s.Data[bootstrapapi.BootstrapTokenDescriptionKey]), Usages: []string{}}
		if e, err := time.Parse(time.RFC3339, string(s.Data[bootstrapapi.BootstrapTokenExpirationKey])); err == nil {
			t.Expires = e
		}
		for key, value := range s.Data {
			if usage, ok := strings.CutPrefix(key, bootstrapapi.BootstrapTokenUsagePrefix); ok && string(value) == "true" {
				t.Usages = append(t.Usages, usage)
			}
		}
		slices.Sort(t.Usages)
		if g := string(s.Data[bootstrapapi.BootstrapTokenExtraGroupsKey]); g != "" {
			t.Groups = strings.Split(g, ",")
		}
		tokens = append(tokens, t)
	}
	slices.SortFunc(tokens, func(a, b TokenInfo) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, nil
}

// DeleteToken takes a token, given whole or by its id, out of a live cluster.
func DeleteToken(ctx context.Context, api API, idOrToken string) error {
	id, _, _ := strings.Cut(idOrToken, ".")
	o := ref("v1", "Secret", "kube-system", bootstrapapi.BootstrapTokenSecretPrefix+id)
	if _, err := api.Get(ctx, o); apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no token %s: see `kubewright token list`", id)
	} else if err != nil {
		return err
	}
	return api.Delete(ctx, o)
}

// ClusterJoinCommand is the join command of a live cluster, from what cluster-info says. Hosts are
// lines of /etc/hosts that `kubeadm join` needs, and `kubewright join` writes itself; none where the
// cluster's address is one that all hosts know.
func ClusterJoinCommand(ctx context.Context, api API, t addons.Token) (join string, hosts []string, err error) {
	d := &Discovery{API: api}
	conf, err := d.data(ctx, "kube-public", "cluster-info", "kubeconfig")
	if err != nil {
		return "", nil, err
	}
	parsed, err := clientcmd.Load([]byte(conf))
	if err != nil {
		return "", nil, fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
	}
	for _, c := range parsed.Clusters {
		pins, err := pki.Pins(c.CertificateAuthorityData)
		if err != nil {
			return "", nil, fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
		}
		server, hosts, err := d.reachable(ctx, c.Server)
		if err != nil {
			return "", nil, err
		}
		return JoinCommand(server, t, pins), hosts, nil
	}
	return "", nil, fmt.Errorf("ConfigMap kube-public/cluster-info names no cluster")
}
