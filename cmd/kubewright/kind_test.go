package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/providers"
)

func TestAnUpThatFailsTakesItsClusterOutOfTheKubeconfig(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	for path, text := range map[string]string{
		filepath.Join(dir, "docker"): "#!/bin/sh\n", // an engine that has no containers
		kubeconfig: `{apiVersion: v1, kind: Config, current-context: kind-ci, contexts: [{name: kind-ci, context: {cluster: kind-ci, user: kind-ci}}, {name: other, context: {cluster: other, user: other}}],
clusters: [{name: kind-ci, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: kind-ci, user: {}}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "docker")
	t.Setenv("CI", "")
	failure := errors.New("a node is not ready")
	for _, exported := range []bool{false, true} {
		o := &fleetOptions{kind: kindOptions{made: true, exported: exported, finish: func() error { return nil }, cluster: &config.Cluster{Metadata: config.Metadata{Name: "ci"}}}}
		if err := o.tidy(t.Context(), failure, kubeconfig); !errors.Is(err, failure) {
			t.Error(err)
		}
		b, err := os.ReadFile(kubeconfig)
		if err != nil || strings.Contains(string(b), "kind-ci") == exported || !strings.Contains(string(b), "other") {
			t.Errorf("exported: %v; the kubeconfig has %s, %v", exported, b, err)
		}
	}
}

// kind's library is asked by the side, of an engine that knows the cluster.
func TestAClusterOfContainersIsPutIntoAKubeconfigAsByKind(t *testing.T) {
	dir := t.TempDir()
	admin := adminConf(t, "192.0.2.7")
	for name, text := range map[string]string{"admin.conf": string(admin), "docker": `#!/bin/sh
case "$1 $*" in
ps*) echo ci-control-plane ;;
exec*) cat ` + dir + `/admin.conf ;;
*kind.role*) echo control-plane ;;
*desktop.docker.io*) echo ;;
*NetworkSettings.Ports*) printf '127.0.0.1\t40001\n' ;;
esac
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "docker")
	k, err := providers.NewKind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Cluster{}
	c.Spec.Provider.Name = "kind"
	ours := func(named string) error {
		path, err := kubeconfigOf(c, named)
		if err != nil {
			return err
		}
		return mergeAdmin(t.Context(), path, admin, "127.0.0.1:40001", mergeOptions{name: "kind-ci", overwrite: true})
	}
	theirs := func(named string) error { return k.Export(t.Context(), "ci", named) }
	for _, where := range []struct{ named, env string }{
		{"", ""}, {"", "new"}, {"", "there"}, {"named", "there"}, {"", ":new::folder:there:too"}, {"", "new:folder/newer:"},
	} {
		if got, want := written(t, where.named, where.env, ours), written(t, where.named, where.env, theirs); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: it has written\n%s, kind\n%s", where, got, want)
		}
	}
}

// written are the kubeconfigs in a folder after one of them was written to: two of another cluster, and an old one of this name, were there.
func written(t *testing.T, named, env string, write func(named string) error) map[string]any {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("HOME", ".")
	t.Setenv("KUBECONFIG", env)
	const had = `{apiVersion: v1, kind: Config, current-context: other, contexts: [{name: kind-ci, context: {cluster: kind-ci, user: kind-ci}}, {name: other, context: {cluster: other, user: other}}],
clusters: [{name: kind-ci, cluster: {server: "https://127.0.0.1:1"}}, {name: other, cluster: {server: "https://192.0.2.1"}}], users: [{name: kind-ci, user: {}}, {name: other, user: {}}]}`
	err := errors.Join(os.Mkdir("folder", 0o700), os.WriteFile("there", []byte(had), 0o600), os.WriteFile("too", []byte(had), 0o600), write(named))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, f := range []string{"there", "too", "new", "named", "folder/newer", ".kube/config"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var content any
		if err := yaml.Unmarshal(b, &content); err != nil {
			t.Fatal(err)
		}
		all[f] = content
	}
	return all
}

func TestLogsThatWereNotCollectedAreNotSaidToBeThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer func(was *os.File) { os.Stderr = was }(os.Stderr)
	os.Stderr = said
	o := &fleetOptions{kind: kindOptions{logs: dir}}
	o.logsOf(t.Context(), &config.Cluster{})
	b, err := os.ReadFile(said.Name())
	if s := string(b); err != nil || !strings.Contains(s, "is not empty: name another folder") || strings.Contains(s, "is in") {
		t.Errorf("it said %q, %v", s, err)
	}
}
