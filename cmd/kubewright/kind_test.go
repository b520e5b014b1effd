package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
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

func TestAClusterOfContainersGoesOnWithWhatItWasMadeOf(t *testing.T) {
	dir := t.TempDir()
	engine := "#!/bin/sh\ncase $1 in ps) cat " + dir + "/containers ;; cp) cp " + dir + "/mark $3 ;; esac\n"
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write("docker", engine)
	write("containers", "")
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "docker")
	is := func(args ...string) *config.Cluster {
		t.Helper()
		o, cmd := &kindOptions{}, &cobra.Command{}
		o.flags(cmd)
		if err := cmd.ParseFlags(append([]string{"--name", "ci"}, args...)); err != nil {
			t.Fatal(err)
		}
		c, err := o.complete(t.Context(), &config.Cluster{APIVersion: config.APIVersion, Kind: config.Kind, Spec: config.Spec{Provider: config.Provider{Name: "kind"}}}, "")
		if err == nil {
			err = providers.KindImages(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	roles := func(c *config.Cluster) (all string) {
		for _, n := range c.Spec.Provider.Kind.Nodes {
			all += string(n.Role)[:1] + "=" + n.Image + n.Labels["a"] + " "
		}
		return all + c.Spec.Network.CNI.Name
	}
	made := is("--control-planes", "2", "--workers", "1", "--image", "i:1", "--cni", "calico")
	made.Spec.Provider.Kind.Nodes[2].Labels = map[string]string{"a": "+"}
	text, err := made.Print()
	if err != nil {
		t.Fatal(err)
	}
	mark, err := json.Marshal(map[string]string{"cluster": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	write("mark", string(mark))
	const new, was = "c=" + providers.KindImage + " ", "c=i:1 c=i:1 w=i:1+ "
	for _, tt := range []struct{ there, args, want string }{
		{"", "", new},
		{"ci-control-plane", "", was + "calico"},
		{"ci-control-plane", "--control-planes=2 --cni=none", was + "none"},
		{"ci-control-plane", "--image=i:2", "c=i:2 c=i:2 w=i:2+ calico"},
		{"ci-control-plane", "--workers=1", was + "calico"},
	} {
		write("containers", tt.there)
		if got := roles(is(strings.Fields(tt.args)...)); got != tt.want {
			t.Errorf("%+v: it is %s", tt, got)
		}
	}
	for _, other := range []string{"--workers=0", "--workers=2", "--control-planes=1"} { // which up refuses
		if c := is(other); len(c.Spec.Hosts) == 3 {
			t.Errorf("%s: it stays as it is", other)
		}
	}
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
