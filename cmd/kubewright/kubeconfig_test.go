package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/pki"
)

// adminConf is a real admin.conf of a new cluster at https://ADDRESS:6443.
func adminConf(t testing.TB, address string) []byte {
	t.Helper()
	b, err := makeAdminConf(address)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func makeAdminConf(address string) ([]byte, error) {
	c := &config.Cluster{}
	c.Default(config.Versions{})
	s, err := pki.New(c, config.Node{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}, Address: address}, nil, time.Now())
	if err != nil {
		return nil, err
	}
	files, err := s.Kubeconfigs(true)
	for _, f := range files {
		if f.Path == pki.AdminConf {
			r, err := f.Content.Open()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			b := make([]byte, f.Content.Size())
			_, err = r.Read(b)
			return b, err
		}
	}
	return nil, errors.Join(errors.New("no admin.conf"), err)
}

// makeCerts writes the kubeconfigs of new clusters at 192.0.2.1, 192.0.2.2...: certs FILE...
func makeCerts(ts *testscript.TestScript, _ bool, args []string) {
	for i, file := range args {
		b, err := makeAdminConf(fmt.Sprintf("192.0.2.%d", i+1))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(file), b, 0o600))
	}
}

// mode compares the mode of a file: mode 0600 FILE.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, not %s", args[1], got, args[0])
	}
}

// readlink compares where a link leads: readlink LINK TARGET.
func readlink(ts *testscript.TestScript, _ bool, args []string) {
	target, err := os.Readlink(ts.MkAbs(args[0]))
	ts.Check(err)
	if target != args[1] && target != ts.MkAbs(args[1]) {
		ts.Fatalf("%s leads to %s, not %s", args[0], target, args[1])
	}
}

func TestKubeconfigPathIsTheUsersOwn(t *testing.T) {
	home := func(uid string) (string, error) {
		if uid == "1000" {
			return "/home/ada", nil
		}
		return "", errors.New("unknown user")
	}
	for name, tt := range map[string]struct {
		named string
		env   map[string]string
		euid  int
		want  string // or the error
	}{
		"named":                       {"x", map[string]string{"KUBECONFIG": "a", "HOME": "/root"}, 0, "x"},
		"the first of KUBECONFIG":     {"", map[string]string{"KUBECONFIG": ":a:b", "HOME": "/home/ada"}, 1000, "a"},
		"home":                        {"", map[string]string{"HOME": "/home/ada"}, 1000, "/home/ada/.kube/config"},
		"root's":                      {"", map[string]string{"HOME": "/root"}, 0, "/root/.kube/config"},
		"behind sudo":                 {"", map[string]string{"HOME": "/root", "SUDO_USER": "ada", "SUDO_UID": "1000"}, 0, "/home/ada/.kube/config"},
		"root behind sudo":            {"", map[string]string{"HOME": "/root", "SUDO_USER": "root", "SUDO_UID": "0"}, 0, "/root/.kube/config"},
		"sudo to somebody else":       {"", map[string]string{"HOME": "/home/bob", "SUDO_USER": "ada", "SUDO_UID": "1000"}, 1001, "/home/bob/.kube/config"},
		"behind sudo, in a directory": {"", map[string]string{"HOME": "/root", "SUDO_USER": "eve", "SUDO_UID": "7"}, 0, "the home of user eve is not known (unknown user): name the file with --kubeconfig"},
		"nowhere":                     {"", nil, 1000, "neither KUBECONFIG nor HOME is set: name the file with --kubeconfig"},
	} {
		got, err := kubeconfigPath(tt.named, func(k string) string { return tt.env[k] }, tt.euid, home)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %s, not %s", name, got, tt.want)
		}
	}
}

// Many at once, as tests of a CI do: each with a file handle and a lock of its own.
func TestMergesAtTheSameTimeLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config")
	from, err := source(adminConf(t, "192.0.2.1"), ".")
	if err != nil {
		t.Fatal(err)
	}
	const n = 16
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := editKubeconfig(t.Context(), path, time.Minute, func(e entries, have *api.Config) error {
				_, err := merge(e, have, from, mergeOptions{name: fmt.Sprint("c", i)})
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Clusters) != n || len(c.AuthInfos) != n || len(c.Contexts) != n {
		t.Errorf("%d clusters, %d users and %d contexts are left of %d", len(c.Clusters), len(c.AuthInfos), len(c.Contexts), n)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the file there are %v, %v", left, err)
	}
}

// Whoever writes through client-go, as kubectl does, is kept out by our lock, and keeps us out.
func TestTheLockIsClientGosOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	set := func() error {
		c := api.NewConfig()
		c.CurrentContext = "kubectl"
		return clientcmd.ModifyConfig(rules, *c, false)
	}
	unlock, err := lockKubeconfig(t.Context(), path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := set(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("client-go wrote past our lock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := set(); err != nil {
		t.Errorf("the lock is still there: %v", err)
	}
}

func TestWaitingForTheLockEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path+".lock", nil, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockKubeconfig(ctx, path, time.Hour); err == nil || !strings.Contains(err.Error(), path+".lock") {
		t.Errorf("got %v", err)
	}
}

// What root writes into a user's home is the user's.
func TestANewKubeconfigBelongsToTheOwnerOfItsFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	home := t.TempDir()
	if err := os.Chown(home, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, ".kube", "config")
	for i, want := range []fs.FileMode{0o600, 0o640} {
		name := fmt.Sprint("c", i)
		changed, err := editKubeconfig(t.Context(), path, time.Minute, func(e entries, _ *api.Config) error {
			e.set("clusters", name, map[string]any{"server": "https://x"})
			return nil
		})
		if err != nil || !changed {
			t.Fatal(changed, err)
		}
		for _, p := range []string{filepath.Dir(path), path} {
			if uid, gid, err := ownerOf(p); uid != 1234 || gid != 1235 || err != nil {
				t.Errorf("%s belongs to %d:%d, %v", p, uid, gid, err)
			}
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if err := os.Chmod(path, 0o640); err != nil { // of the second time, and kept
			t.Fatal(err)
		}
	}
}

func TestMergeKeepsWhatItsUserHasChosen(t *testing.T) {
	from, err := source(adminConf(t, "192.0.2.1"), ".")
	if err != nil {
		t.Fatal(err)
	}
	e, have, err := parseEntries(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := merge(e, have, from, mergeOptions{name: "prod"}); err != nil {
		t.Fatal(err)
	}
	e.get("contexts", "prod")["namespace"] = "mine"
	from.Clusters["kubernetes"].Server = "https://moved:6443"
	e, have = reparse(t, e)
	if _, err := merge(e, have, from, mergeOptions{name: "prod"}); err != nil {
		t.Fatal(err)
	}
	_, have = reparse(t, e)
	if c := have.Contexts["prod"]; c.Namespace != "mine" {
		t.Errorf("the namespace is %q", c.Namespace)
	}
	if c := have.Clusters["prod"]; c.Server != "https://moved:6443" {
		t.Errorf("the server is %s", c.Server)
	}
}

func TestForgetAdminLeavesOtherClusters(t *testing.T) {
	b := adminConf(t, "192.0.2.1")
	from, err := source(b, ".")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := forgetAdmin(t.Context(), path, "prod", nil); err != nil {
		t.Fatal(err) // there is no file, and none is made
	}
	_, err = editKubeconfig(t.Context(), path, time.Second, func(e entries, have *api.Config) error {
		_, err := merge(e, have, from, mergeOptions{name: "prod"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := source(adminConf(t, "192.0.2.1"), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ca   *api.Config
		name string
		left int
	}{{other, "prod", 1}, {from, "dev", 1}, {from, "prod", 0}} {
		if err := forgetAdmin(t.Context(), path, c.name, authority(c.ca.Clusters["kubernetes"])); err != nil {
			t.Fatal(err)
		}
		_, have, err := loadKubeconfig(path)
		if err != nil || len(have.Clusters) != c.left || len(have.AuthInfos) != c.left {
			t.Errorf("without %s there are %v: %v", c.name, have.Clusters, err)
		}
	}
}

func reparse(t *testing.T, e entries) (entries, *api.Config) {
	t.Helper()
	b, err := yaml.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	e, have, err := parseEntries(b)
	if err != nil {
		t.Fatal(err)
	}
	return e, have
}

// A source may name files beside it: they are read in.
func TestSourceIsOneClusterAndWhole(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("the CA"), 0o600); err != nil {
		t.Fatal(err)
	}
	doc := func(more string) []byte {
		return []byte(`{clusters: [{name: a, cluster: {server: "https://a", certificate-authority: ca.crt}}, {name: b, cluster: {server: "https://b"}}],
users: [{name: u, user: {token: t}}], contexts: [{name: x, context: {cluster: a, user: u}}` + more)
	}
	c, err := source(doc("]}"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Clusters) != 1 || string(c.Clusters["a"].CertificateAuthorityData) != "the CA" {
		t.Errorf("got %v", c.Clusters)
	}
	for more, want := range map[string]string{
		", {name: w, context: {cluster: a, user: u}}]}":                                         "has no current context",
		", {name: w, context: {cluster: c, user: u}}], current-context: w}":                     "is not whole: cannot locate cluster c",
		", {name: w, context: {cluster: b, user: v}}], current-context: w}":                     "is not whole: cannot locate user v",
		"], current-context: z}":                                                                "z",
		", {name: w, context: {cluster: a}}], current-context: w}":                              "names no cluster, or no user",
		", {name: x, context: {cluster: b, user: u}}]}":                                         "duplicate name",
		", {name: w, context: {cluster: a, user: u}}], current-context: w, current-context: x}": "already",
	} {
		if _, err := source(doc(more), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", more, err)
		}
	}
}
