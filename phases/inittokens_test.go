package phases

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

// keepingAPI keeps what is applied.
type keepingAPI struct {
	APIRecorder
	applied []addons.Object
}

func (a *keepingAPI) Apply(ctx context.Context, objects ...addons.Object) ([]string, error) {
	a.applied = append(a.applied, objects...)
	return a.APIRecorder.Apply(ctx, objects...)
}

func TestInitMakesAllTokensAndSignsWithThoseThatMay(t *testing.T) {
	parse := func(s string) addons.Token {
		tok, err := addons.ParseToken(s)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	h, c := newFakeHost(t), cluster()
	target := initTarget(h, c, nil)
	api := &keepingAPI{}
	target.API = api
	target.Tokens = []InitToken{
		{Token: parse("aaaaaa.0123456789abcdef"), Usages: addons.TokenUsages(), Groups: addons.TokenGroups()},
		{Token: parse("bbbbbb.0123456789abcdef"), Description: "of b", TTL: time.Hour, Expires: end, Usages: []string{"authentication"}, Groups: []string{"system:bootstrappers:b"}},
		{Token: parse("cccccc.0123456789abcdef"), TTL: time.Hour, Usages: []string{"signing"}},
	}
	if err := bootstrapToken(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	var made, signed []string
	for _, o := range api.applied {
		switch {
		case strings.HasPrefix(o.GetName(), "bootstrap-token-"):
			var s corev1.Secret
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s); err != nil {
				t.Fatal(err)
			}
			made = append(made, string(s.Data["token-id"]))
			expires := string(s.Data["expiration"])
			switch string(s.Data["token-id"]) {
			case "aaaaaa":
				if expires != "" {
					t.Errorf("the first expires %s", expires)
				}
			case "bbbbbb":
				if expires != end.Format(time.RFC3339) || string(s.Data["description"]) != "of b" || string(s.Data["auth-extra-groups"]) != "system:bootstrappers:b" || s.Data["usage-bootstrap-signing"] != nil {
					t.Errorf("the second is %q", s.Data)
				}
			case "cccccc":
				if when, err := time.Parse(time.RFC3339, expires); err != nil || time.Until(when) > time.Hour || time.Until(when) < 50*time.Minute {
					t.Errorf("the third expires %s", expires)
				}
			}
		case o.GetName() == "cluster-info" && o.GetKind() == "ConfigMap":
			for key := range o.Object["data"].(map[string]any) {
				if id, ok := strings.CutPrefix(key, "jws-kubeconfig-"); ok {
					signed = append(signed, id)
				}
			}
		}
	}
	slices.Sort(signed)
	if !slices.Equal(made, []string{"aaaaaa", "bbbbbb", "cccccc"}) || !slices.Equal(signed, []string{"aaaaaa", "cccccc"}) {
		t.Errorf("made %q, signed by %q", made, signed)
	}
}

// What a JoinConfiguration says of its host counts; what it leaves open is the cluster's word.
func TestAJoiningHostsOwnWordCounts(t *testing.T) {
	c := cluster()
	c.Spec.Hosts = []config.Node{{Name: "w-1", Labels: map[string]string{"a": "b"}, Taints: []corev1.Taint{{Key: "old", Effect: "NoSchedule"}}}}
	h := newFakeHost(t)
	own := &config.Cluster{Spec: config.Spec{Hosts: []config.Node{{Name: "w-1", Taints: []corev1.Taint{}, KubeletArgs: []config.Arg{{Name: "v", Value: "4"}}}}}}
	own.Default(config.Versions{})
	target := h.target(own, config.WorkerRole)
	target.Node.Name = "w-1"
	target.Discover = discovered(t, c)
	joined, _, err := target.joined(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := joined.Node
	if n.Labels["a"] != "b" || n.Taints == nil || len(n.Taints) > 0 || len(n.KubeletArgs) != 1 || !n.Has(config.WorkerRole) {
		t.Errorf("%+v", n)
	}
}

func TestJoinTokenIsMadeOnceInTheLifeOfACluster(t *testing.T) {
	alive, gone := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	made := func(expires time.Time) addons.Object {
		return InitToken{Token: token(t), Expires: expires, Usages: addons.TokenUsages()}.secret(time.Now())
	}
	info := ref("v1", "ConfigMap", "kube-public", "cluster-info")
	for name, tt := range map[string]struct {
		secrets []addons.Object
		info    bool
		want    string // "" for none, "new" for a new one
	}{
		"one that is still good":           {[]addons.Object{made(alive)}, true, tokenText},
		"a run was killed after the token": {[]addons.Object{made(alive)}, false, tokenText},
		"it has expired":                   {[]addons.Object{made(gone)}, true, ""},
		"it was deleted":                   {nil, true, ""},
		"a run was killed before it":       {nil, false, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			api := &objectsAPI{objects: map[string]addons.Object{}}
			for _, o := range tt.secrets {
				api.objects[describe(o)] = o
			}
			if tt.info {
				api.objects[describe(info)] = info
			}
			give := JoinToken(api, addons.Token{}, false)
			got, err := give(t.Context())
			again, _ := give(t.Context())
			if err != nil || again != got {
				t.Fatalf("%v, and then another", err)
			}
			if is := got.Reveal(); tt.want == "new" && (is == "" || is == tokenText) || tt.want != "new" && is != tt.want {
				t.Errorf("the token is %s", got)
			}
		})
	}
	if got, err := JoinToken(NoAPI{}, addons.Token{}, true)(t.Context()); err != nil || got == (addons.Token{}) {
		t.Errorf("on a fresh host nobody is asked: %v", err)
	}
}
