package phases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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

// initDescription marks the token that init makes.
const initDescription = "Made by kubewright init."

// InitToken gives the token that init lets nodes join with; every call gives the same
// answer. It is the one wanted, if any. Where the API server may have run before (not
// fresh), it is one that an earlier init has made and that is still good, the zero Token
// if none is left of a cluster that had one, and a new one else.
func InitToken(api API, wanted addons.Token, fresh bool) func(context.Context) (addons.Token, error) {
	var mu sync.Mutex
	token := wanted
	if fresh && token == (addons.Token{}) {
		token = addons.NewToken()
	}
	known := token != (addons.Token{})
	return func(ctx context.Context) (addons.Token, error) {
		mu.Lock()
		defer mu.Unlock()
		if known {
			return token, nil
		}
		live, err := liveTokens(ctx, api)
		if err != nil {
			return token, err
		}
		for _, l := range live {
			if l.description == initDescription {
				token, known = l.token, true
				return token, nil
			}
		}
		// cluster-info comes after the token: a cluster that has it had one.
		_, err = api.Get(ctx, ref("v1", "ConfigMap", "kube-public", "cluster-info"))
		if apierrors.IsNotFound(err) {
			token, err = addons.NewToken(), nil
		}
		known = err == nil
		return token, err
	}
}

// live is a token that a node can join with now.
type live struct {
	token       addons.Token
	description string
}

func liveTokens(ctx context.Context, api API) (all []live, err error) {
	secrets, err := bootstrapSecrets(ctx, api)
	if err != nil {
		return nil, err
	}
	for _, s := range secrets {
		t, err := addons.ParseToken(string(s.Data[bootstrapapi.BootstrapTokenIDKey]) + "." + string(s.Data[bootstrapapi.BootstrapTokenSecretKey]))
		if err != nil {
			continue // whoever wrote it, no node can show it
		}
		expires, err := time.Parse(time.RFC3339, string(s.Data[bootstrapapi.BootstrapTokenExpirationKey]))
		if err == nil && time.Until(expires) < time.Minute {
			continue
		}
		usable := true
		for _, usage := range addons.TokenUsages() {
			usable = usable && string(s.Data[bootstrapapi.BootstrapTokenUsagePrefix+usage]) == "true"
		}
		if usable {
			all = append(all, live{t, string(s.Data[bootstrapapi.BootstrapTokenDescriptionKey])})
		}
	}
	return all, nil
}

func bootstrapSecrets(ctx context.Context, api API) (secrets []corev1.Secret, err error) {
	objects, err := api.List(ctx, ref("v1", "Secret", "kube-system", ""), "")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		var s corev1.Secret
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s); err != nil {
			return nil, err
		}
		if s.Type == corev1.SecretTypeBootstrapToken {
			secrets = append(secrets, s)
		}
	}
	return secrets, nil
}

// bootstrapToken lets nodes join: what they may do, the token, and cluster-info signed
// with it by ourselves, long before the controller manager would. A token that is there
// stays as it is.
func bootstrapToken(ctx context.Context, t *Target) error {
	token, err := t.InitToken(ctx)
	if err != nil {
		return fmt.Errorf("look for a bootstrap token: %w", err)
	}
	there, err := liveTokens(ctx, t.API)
	if err != nil {
		return fmt.Errorf("look for bootstrap tokens: %w", err)
	}
	objects := addons.RBAC()
	tokens := []addons.Token{}
	found := token == (addons.Token{})
	for _, l := range there {
		tokens = append(tokens, l.token)
		if l.token.ID() != token.ID() {
			continue
		}
		if found = true; l.token.Reveal() != token.Reveal() {
			return fmt.Errorf("the cluster has a token %s with another secret: delete that one with `kubewright token delete %s`, or choose another", token.ID(), token.ID())
		}
	}
	if token == (addons.Token{}) {
		t.notice("no token is left: make one with `kubewright token create --print-join-command`")
	}
	if !found {
		var expires time.Time
		if t.TTL > 0 {
			expires = time.Now().Add(t.TTL)
		}
		objects = append(objects, addons.TokenSecret(token, initDescription, expires, addons.TokenUsages(), addons.TokenGroups()))
		tokens = append(tokens, token)
	}
	// Before cluster-info: the controller manager removes signatures for which it finds no token.
	if err := t.apply(ctx, objects...); err != nil {
		return err
	}
	info, err := addons.ClusterInfo(t.server(), t.Secrets.CACert(), tokens)
	if err != nil {
		return err
	}
	if signed, err := t.isSigned(ctx, info, token); err != nil || signed {
		return err
	}
	return t.apply(ctx, info...)
}

// isSigned tells whether the live cluster-info says what info says, and is signed with the
// token: what the controller manager has added since is its own.
func (t *Target) isSigned(ctx context.Context, info []addons.Object, token addons.Token) (bool, error) {
	for _, o := range info {
		have, err := t.API.Get(ctx, o)
		if isNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		keys := []string{bootstrapapi.KubeConfigKey}
		if token != (addons.Token{}) {
			keys = append(keys, bootstrapapi.JWSSignatureKeyPrefix+token.ID())
		}
		for _, key := range keys {
			want, _, _ := unstructured.NestedString(o.Object, "data", key)
			is, _, _ := unstructured.NestedString(have.Object, "data", key)
			if o.GetKind() == "ConfigMap" && want != is {
				return false, nil
			}
		}
	}
	return true, nil
}

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

// ClusterJoinCommand is the join command of a live cluster, from what cluster-info says.
func ClusterJoinCommand(ctx context.Context, api API, t addons.Token) (string, error) {
	d := &Discovery{API: api}
	conf, err := d.data(ctx, "kube-public", "cluster-info", "kubeconfig")
	if err != nil {
		return "", err
	}
	parsed, err := clientcmd.Load([]byte(conf))
	if err != nil {
		return "", fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
	}
	for _, c := range parsed.Clusters {
		pins, err := pki.Pins(c.CertificateAuthorityData)
		if err != nil {
			return "", fmt.Errorf("ConfigMap kube-public/cluster-info: %w", err)
		}
		return JoinCommand(c.Server, t, pins), nil
	}
	return "", fmt.Errorf("ConfigMap kube-public/cluster-info names no cluster")
}
