package phases

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kubewright/kubewright/addons"
)

// InitToken is a bootstrap token that init makes.
type InitToken struct {
	addons.Token                 // zero: any
	Description    string        // empty: that init made it
	TTL            time.Duration // 0: it never expires
	Expires        time.Time     // zero: by TTL
	Usages, Groups []string
}

// initDescription marks the token that init makes.
const initDescription = "Made by kubewright init."

func (t InitToken) secret(now time.Time) addons.Object {
	expires := t.Expires
	if expires.IsZero() && t.TTL > 0 {
		expires = now.Add(t.TTL)
	}
	return addons.TokenSecret(t.Token, cmp.Or(t.Description, initDescription), expires, t.Usages, t.Groups)
}

// JoinToken gives the token with which nodes join after init; every call gives the same
// answer. It is the one wanted, if any. Where the API server may have run before (not
// fresh), it is one that an earlier init has made and that is still good, the zero Token
// if none is left of a cluster that had one, and a new one else.
func JoinToken(api API, wanted addons.Token, fresh bool) func(context.Context) (addons.Token, error) {
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

// bootstrapToken lets nodes join: what they may do, the tokens, and cluster-info signed
// with them by ourselves, long before the controller manager would. A token that is there
// stays as it is.
func bootstrapToken(ctx context.Context, t *Target) error {
	there, err := liveTokens(ctx, t.API)
	if err != nil {
		return fmt.Errorf("look for bootstrap tokens: %w", err)
	}
	wished, err := t.wishedTokens(ctx)
	if err != nil {
		return fmt.Errorf("look for a bootstrap token: %w", err)
	}
	if len(wished) == 0 && t.Tokens == nil {
		t.notice("no token is left: make one with `kubewright token create --print-join-command`")
	}
	objects := addons.RBAC()
	signers := map[string]addons.Token{}
	for _, l := range there {
		signers[l.token.ID()] = l.token
	}
	for _, w := range wished {
		id := w.ID()
		have, err := t.API.Get(ctx, w.secret(time.Now()))
		switch {
		case isNotFound(err):
			objects = append(objects, w.secret(time.Now()))
		case err != nil:
			return fmt.Errorf("look for bootstrap token %s: %w", id, err)
		case !sameToken(have, w.Token):
			return fmt.Errorf("the cluster has a token %s with another secret: delete that one with `kubewright token delete %s`, or choose another", id, id)
		}
		if slices.Contains(w.Usages, "signing") {
			signers[id] = w.Token
		}
	}
	// Before cluster-info: the controller manager removes signatures for which it finds no token.
	if err := t.apply(ctx, objects...); err != nil {
		return err
	}
	info, err := addons.ClusterInfo(t.server(), t.Secrets.CACert(), slices.Collect(maps.Values(signers)))
	if err != nil {
		return err
	}
	if signed, err := t.isSigned(ctx, info, wished); err != nil || signed {
		return err
	}
	return t.apply(ctx, info...)
}

// wishedTokens are those that a document wishes for, else the one with which nodes join. One
// that nobody has named is made once in a cluster's life.
func (t *Target) wishedTokens(ctx context.Context) (list []InitToken, err error) {
	join, err := t.JoinToken(ctx)
	if err != nil {
		return nil, err
	}
	wished := t.Tokens
	if wished == nil {
		wished = []InitToken{{TTL: t.TTL, Usages: addons.TokenUsages(), Groups: addons.TokenGroups()}}
	}
	_, err = t.API.Get(ctx, ref("v1", "ConfigMap", "kube-public", "cluster-info"))
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	first := isNotFound(err)
	for i, w := range wished {
		switch {
		case w.Token != (addons.Token{}):
		case i == 0:
			w.Token = join
		case first:
			w.Token = addons.NewToken()
		}
		if w.Token != (addons.Token{}) {
			list = append(list, w)
		}
	}
	return list, nil
}

// sameToken tells whether a Secret holds a token.
func sameToken(secret addons.Object, t addons.Token) bool {
	var s corev1.Secret
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(secret.Object, &s)
	return err == nil && string(s.Data[bootstrapapi.BootstrapTokenIDKey])+"."+string(s.Data[bootstrapapi.BootstrapTokenSecretKey]) == t.Reveal()
}

// isSigned tells whether the live cluster-info says what info says, and is signed with the
// tokens: what the controller manager has added since is its own.
func (t *Target) isSigned(ctx context.Context, info []addons.Object, tokens []InitToken) (bool, error) {
	for _, o := range info {
		have, err := t.API.Get(ctx, o)
		if isNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		keys := []string{bootstrapapi.KubeConfigKey}
		for _, t := range tokens {
			keys = append(keys, bootstrapapi.JWSSignatureKeyPrefix+t.ID())
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
