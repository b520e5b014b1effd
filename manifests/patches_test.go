package manifests

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

const smallPod = "spec:\n  containers:\n  - image: a\n    name: etcd\n  priority: 1\n"

func TestPatchesApply(t *testing.T) {
	for name, test := range map[string]struct {
		patches fstest.MapFS
		want    string
	}{
		"strategic merges lists by name": {
			files("etcd.yaml", "spec: {containers: [{name: etcd, tty: true}]}"),
			"spec:\n  containers:\n  - image: a\n    name: etcd\n    tty: true\n  priority: 1\n",
		},
		"merge replaces lists, null removes": {
			files("etcd+merge.yaml", "spec: {priority: null, containers: [{name: b}]}"),
			"spec:\n  containers:\n  - name: b\n",
		},
		"json, written as YAML": {
			files("etcd+json.yaml", "- {op: replace, path: /spec/priority, value: 2}"),
			"spec:\n  containers:\n  - image: a\n    name: etcd\n  priority: 2\n",
		},
		"files in the order of their names": {
			files("etcd2.yaml", "spec: {priority: 2}", "etcd10.json", `{"spec": {"priority": 10}}`, "etcd1+merge.json", `{"spec": {"priority": 1}}`),
			"spec:\n  containers:\n  - image: a\n    name: etcd\n  priority: 2\n",
		},
		"documents in their order": {
			files("etcd-x+strategic.yaml", "---\nspec: {priority: 2}\n---\n\n---\nspec: {priority: 3}\n"),
			"spec:\n  containers:\n  - image: a\n    name: etcd\n  priority: 3\n",
		},
		"in folders, too": {
			files("more/etcd.yaml", "spec: {priority: 4}"),
			"spec:\n  containers:\n  - image: a\n    name: etcd\n  priority: 4\n",
		},
		"none for the target": {
			files("kube-apiserver.yaml", "spec: {priority: 4}", "etcd.yaml", ""),
			smallPod,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := LoadPatches(test.patches)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Apply(Etcd, []byte(smallPod))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryTargetOfKubeadmCanBePatched(t *testing.T) {
	for _, target := range append(Names(), KubeletConfigurationTarget, CoreDNSDeploymentTarget) {
		p, err := LoadPatches(files(target+"0+strategic.yaml", "kind: Patched"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Apply(target, []byte("kind: Plain\n"))
		if err != nil || string(got) != "kind: Patched\n" {
			t.Errorf("%s: %q, %v", target, got, err)
		}
		if !strings.Contains(PatchFileForm, target) {
			t.Errorf("%q does not name %s", PatchFileForm, target)
		}
	}
}

func TestOtherFilesAreIgnoredAndNamed(t *testing.T) {
	p, err := LoadPatches(files("README.md", "", "kubeproxy.yaml", "a: b", "etcd.yml", "a: b", "etcd.yaml", "a: b"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"README.md", "etcd.yml", "kubeproxy.yaml"}, p.Ignored); diff != "" {
		t.Error(diff)
	}
}

func TestPatchErrorsNameTheFile(t *testing.T) {
	for name, test := range map[string]struct {
		patches fstest.MapFS
		want    []string
	}{
		"unknown type":    {files("etcd+strategy.yaml", "a: b"), []string{"etcd+strategy.yaml", PatchFileForm}},
		"no type":         {files("etcd+.yaml", "a: b"), []string{"etcd+.yaml", PatchFileForm}},
		"no YAML":         {files("etcd.yaml", "a: [b"), []string{"etcd.yaml", "yaml"}},
		"path not there":  {files("etcd+json.yaml", "- {op: replace, path: /spec/no/more, value: 2}"), []string{"etcd+json.yaml", "/spec/no/more"}},
		"not operations":  {files("etcd+json.yaml", "spec: {}"), []string{"etcd+json.yaml"}},
		"list for object": {files("etcd.yaml", "[a]"), []string{"etcd.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := LoadPatches(test.patches)
			if err == nil {
				_, err = p.Apply(Etcd, []byte(smallPod))
			}
			wantError(t, err, test.want...)
		})
	}
}

func TestUnknownTargetsAreErrors(t *testing.T) {
	_, err := Patches{}.Apply("kube-proxy", []byte("a: b"))
	wantError(t, err, "kube-proxy", PatchFileForm)
}
