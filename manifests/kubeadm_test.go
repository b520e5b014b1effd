package manifests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

// kubeadmRun does `kubeadm init --dry-run` with a configuration in a root directory of its
// own, so that it neither sees nor touches this machine, and returns what it would write, by path.
func kubeadmRun(t *testing.T, configuration []byte, trustDirs []string, patches string) map[string]string {
	t.Helper()
	kubeadm := os.Getenv("KUBEADM")
	if kubeadm == "" || os.Geteuid() != 0 {
		t.Skip("set KUBEADM to the path of a kubeadm v1.36, and run as root")
	}
	root := t.TempDir()
	for _, dir := range append(trustDirs, "/tmp", "/patches") {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if patches != "" {
		if err := os.CopyFS(filepath.Join(root, "patches"), os.DirFS(patches)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "kubeadm.yaml"), configuration, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(kubeadm, "init", "--dry-run", "--ignore-preflight-errors=all", "--rootfs", root, "--config", "/kubeadm.yaml")
	cmd.Env = []string{"PATH=/nowhere"} // no proxies, no systemctl
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubeadm: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	files := map[string]string{}
	read := func(name, path string) {
		found, _ := filepath.Glob(filepath.Join(root, "/etc/kubernetes/tmp/*", name))
		if len(found) != 1 {
			t.Fatalf("kubeadm wrote %d files %s", len(found), name)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(b)
	}
	for _, name := range Names() {
		if name == Etcd && bytes.Contains(configuration, []byte("external:")) {
			continue
		}
		read(name+".yaml", Path(name))
	}
	for _, path := range []string{KubeletConfig, KubeletInstance, KubeletFlags} {
		read(filepath.Base(path), path)
	}
	for _, object := range strings.Split(stdout.String(), "[dryrun] Attached object:\n") {
		object, _, _ = strings.Cut(object, "\n\n")
		var cm struct {
			Kind     string
			Metadata struct{ Name string }
			Data     map[string]string
		}
		if err := yaml.Unmarshal([]byte(object), &cm); err != nil || cm.Kind != "ConfigMap" {
			continue
		}
		if slices.Contains([]string{"kubeadm-config", "kubelet-config", "kube-proxy"}, cm.Metadata.Name) {
			for key, value := range cm.Data {
				files["/api/"+cm.Metadata.Name+"/"+key] = value
			}
		}
	}
	return files
}

// asKubeadm undoes what Differences lists, and the last newline, which ConfigMaps may lack.
func asKubeadm(path, s string) string {
	if strings.HasSuffix(path, "config.conf") {
		s = strings.Replace(s, "\nmode: iptables\n", "\nmode: \"\"\n", 1)
	}
	if strings.HasSuffix(path, "kube-controller-manager.yaml") {
		for _, flag := range []string{"--kube-api-burst=" + controllerBurst, "--kube-api-qps=" + controllerQPS} {
			s = strings.Replace(s, "    - "+flag+"\n", "", 1)
		}
	}
	if strings.HasSuffix(path, "kube-apiserver.yaml") {
		s = strings.Replace(s, "    - --"+watchGrace+"="+watchGraceValue+"\n", "", 1)
	}
	if path == KubeletFlags {
		s = nodeIPv6.ReplaceAllString(s, "")
	}
	if path == KubeletConfig || path == KubeletInstance {
		s = providerID.ReplaceAllString(s, "")
	}
	return strings.TrimSuffix(s, "\n")
}

var (
	nodeIPv6   = regexp.MustCompile(` ?--node-ip=[^ "]*:[^ "]*`)
	providerID = regexp.MustCompile(`(?m)^providerID: .*\n`)
)

func compare(t *testing.T, c *config.Cluster, x fixture, kubeadm map[string]string) {
	t.Helper()
	compared := 0
	for path, ours := range outputs(t, c, x.node, x.facts) {
		theirs, ok := kubeadm[path]
		if !ok {
			continue // units and the runtime are not kubeadm's; what it has is counted below
		}
		compared++
		if diff := cmp.Diff(asKubeadm(path, theirs), asKubeadm(path, ours)); diff != "" {
			t.Errorf("%s, kubeadm's and ours:\n%s", path, diff)
		}
	}
	if compared != len(kubeadm) {
		t.Errorf("kubeadm wrote %d files, of which we have %d", len(kubeadm), compared)
	}
}

// asRun is the fixture on a host like kubeadm's in kubeadmRun.
func asRun(t *testing.T, x fixture) fixture {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	x.facts.Hostname, x.facts.Resolved = name, false
	return x
}

func TestFilesEqualKubeadms(t *testing.T) {
	for name, x := range fixtures() {
		wish, err := os.ReadFile(filepath.Join("testdata", name, "kubeadm.yaml"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := load(t, name)
			compare(t, c, asRun(t, x), kubeadmRun(t, wish, x.facts.TrustDirs, c.Spec.Patches))
		})
	}
}

// A kubeadm that has nothing but what we put into the cluster (as in its join and upgrade)
// computes what we computed.
func TestKubeadmUnderstandsOurConfigMaps(t *testing.T) {
	for name, x := range fixtures() {
		wish, err := os.ReadFile(filepath.Join("testdata", name, "kubeadm.yaml"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := load(t, name)
			ours := outputs(t, c, x.node, x.facts)
			instance, _, _ := strings.Cut(string(wish), "\n---\n") // the InitConfiguration: what is the host's
			documents := []string{instance, ours["/api/kubeadm-config/ClusterConfiguration"], ours["/api/kubelet-config/kubelet"]}
			if c.Spec.KubeProxy.Mode != "none" {
				documents = append(documents, ours["/api/kube-proxy/config.conf"])
			}
			run := kubeadmRun(t, []byte(strings.Join(documents, "\n---\n")), x.facts.TrustDirs, c.Spec.Patches)
			compare(t, c, asRun(t, x), run)
		})
	}
}
