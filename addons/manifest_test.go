package addons

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeTakesWhatKubectlTakes(t *testing.T) {
	objects, err := Decode([]byte(`# comments alone
---
apiVersion: v1
kind: Namespace
metadata: {name: net, creationTimestamp: null}
status: {phase: Active}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: net}}
- apiVersion: apps/v1
  kind: DaemonSet
  metadata: {name: a, namespace: net}
  spec: {template: {spec: {initContainers: [{name: i, image: r/i:1}], containers: [{name: c, image: r/c:1}, {name: d, image: r/i:1}], volumes: [{name: v, emptyDir: {}}]}}}
--- 
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "net"}, "data": {"n": "1"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, Identity(o))
		if again := Identified(Identity(o)); Identity(again) != Identity(o) {
			t.Errorf("%s is taken for %s", Identity(o), Identity(again))
		}
	}
	if diff := cmp.Diff([]string{"v1 Namespace net", "v1 ServiceAccount net/a", "apps/v1 DaemonSet net/a", "v1 ConfigMap net/a"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "net"}}, objects[0].Object); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"r/c:1", "r/i:1"}, ImagesOf(objects)); diff != "" {
		t.Error(diff)
	}
	if Identified("no object") != nil {
		t.Error("of two words an object was made")
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	const good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
	for name, tt := range map[string]struct{ manifest, want string }{
		"nothing":        {"# nothing\n", "it holds no object"},
		"no YAML":        {"a: [", "document 1:"},
		"a page":         {"<!DOCTYPE html>\n<p>Not found</p>\n", "document 1:"},
		"twice":          {good + "---\n" + good, "document 2: v1 Namespace a is there twice"},
		"a key twice":    {good + "kind: Pod\n", `document 1: `},
		"no kind":        {good + "---\nmetadata: {name: b}\n", "document 2:"},
		"no namespace":   {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n", "document 1: ServiceAccount a has no namespace"},
		"a name to make": {"apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n", `document 1: "v1" "Pod" "" lacks`},
	} {
		if _, err := Decode([]byte(tt.manifest)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
