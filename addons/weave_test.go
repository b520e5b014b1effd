package addons

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/upstream"
)

func weaveCluster(change func(*config.Spec)) *config.Cluster {
	c := &config.Cluster{}
	c.Spec.Network.CNI.Name = "weave"
	c.Spec.Network.CNI.Weave.AcceptDeprecated = true
	if change != nil {
		change(&c.Spec)
	}
	c.Default(config.Versions{})
	return c
}

func TestWeave(t *testing.T) {
	password, err := ParsePassword([]byte("correct horse\r\nnot this\n"))
	if err != nil {
		t.Fatal(err)
	}
	encrypted := weaveCluster(func(s *config.Spec) {
		s.Network.CNI.Weave.PasswordFile, s.Network.CNI.MTU, s.Network.PodCIDR = "/root/weave", 1400, "10.32.0.0/12"
	})
	plain, err := CNI(weaveCluster(nil), calicoServer, Material{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "golden/weave.yaml", asYAML(t, plain))
	objects, err := CNI(encrypted, calicoServer, Material{Password: password})
	if err != nil {
		t.Fatal(err)
	}
	secret := find(t, objects, "Secret weave-passwd")
	if got := secret.Object["data"].(map[string]any)["weave-passwd"]; got != base64.StdEncoding.EncodeToString([]byte("correct horse")) {
		t.Errorf("the Secret holds %q", got)
	}
	golden(t, "golden/weave-encrypted.yaml", asYAML(t, []Object{find(t, objects, "DaemonSet weave-net")}))
	if _, err := CNI(encrypted, calicoServer, Material{}); err == nil || !strings.Contains(err.Error(), "/root/weave") {
		t.Errorf("without its password: %v", err)
	}
	for _, c := range []*config.Cluster{encrypted, weaveCluster(nil)} {
		if diff := cmp.Diff(ImagesOf(objects), networkImages(c)); diff != "" {
			t.Errorf("used (-), listed (+):\n%s", diff)
		}
	}
}

func TestAPasswordIsNotPrinted(t *testing.T) {
	p, err := ParsePassword([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(Material{Password: p})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(j), fmt.Sprint(p), fmt.Sprintf("%v %+v %#v %s %q", p, Material{Password: p}, Material{Password: p}, p, p)} {
		if strings.Contains(s, "hunter2") {
			t.Error(s)
		}
	}
	if _, err := ParsePassword([]byte("\nhunter2")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an empty line: %v", err)
	}
}

// TestAsWeave holds our objects to those that Weave publishes.
func TestAsWeave(t *testing.T) {
	theirs, err := Decode(upstream.File(t, upstream.Weave))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := CNI(weaveCluster(nil), calicoServer, Material{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ours) != len(theirs) {
		t.Errorf("%d objects, theirs are %d", len(ours), len(theirs))
	}
	meant := []string{"image", "imagePullPolicy", "env[IPALLOC_RANGE]", "env[KUBERNETES_SERVICE_HOST]", "env[KUBERNETES_SERVICE_PORT]"}
	for _, o := range theirs {
		mine, his := fields(find(t, ours, title(o))), fields(o)
		for field := range union(mine, his) {
			if mine[field] == his[field] || his[field] == "false" || his[field] == `"v1"` || slices.ContainsFunc(meant, func(m string) bool {
				return strings.HasSuffix(field, "."+m) || strings.Contains(field, "."+m+".")
			}) {
				continue
			}
			t.Errorf("%s: %s: ours %q, theirs %q", title(o), field, mine[field], his[field])
		}
	}
}

func union(a, b map[string]string) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}
