package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/e2e/servers"
)

// supply is what artifacts come from: a mirror of upstream's files, with a catalogue of what is
// there, a registry that wants a password, and a proxy. All are real, and this machine's.
type supply struct {
	files    *faulty.Server
	registry *servers.Registry
	proxy    *servers.Proxy
	dir      string // catalogue.yaml, ca.pem, docker/config.json
}

func newSupply(ctx context.Context, t *testing.T, l *lab.Lab) *supply {
	t.Helper()
	upstream, err := l.Upstream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := l.Binary(ctx, "registry")
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.Reach(ctx); err != nil {
		t.Fatal(err)
	}
	s := &supply{dir: t.TempDir()}
	if s.registry, err = servers.StartRegistry(ctx, binary, servers.Reachable+":0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.registry.Close() })
	if s.files, err = faulty.Serve(filepath.Join(upstream, "files"), faulty.Options{Address: servers.Reachable + ":0", TLS: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.files.Close() })
	if s.proxy, err = servers.StartProxy(ctx, servers.Reachable, "someone", "s3cret"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.proxy.Close() })
	catalogue, err := os.ReadFile(filepath.Join(upstream, "catalogue.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"catalogue.yaml":     catalogue,
		"ca.pem":             append(bytes.Clone(s.files.CA), s.registry.CA...),
		"docker/config.json": s.registry.DockerConfig(),
	} {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// here runs our command on this machine, as the operator's.
func (s *supply) here(ctx context.Context, t *testing.T, tool string, args ...string) string {
	t.Helper()
	cmd := s.command(ctx, tool, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if strings.Contains(stdout.String()+stderr.String(), s.registry.Password) || strings.Contains(stdout.String()+stderr.String(), "s3cret") {
		t.Error("a password was printed")
	}
	return stdout.String()
}

func (s *supply) command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(s.dir, "docker"), "HTTPS_PROXY="+s.proxy.URL, "NO_PROXY=")
	return cmd
}

// from are the flags that have artifacts come from here; paths are those on a host that has the folder at dir.
func (s *supply) from(dir string) []string {
	return []string{"--catalogue", dir + "/catalogue.yaml", "--mirror", s.files.URL, "--mirror-ca", dir + "/ca.pem",
		"--registry-mirror", "*=https://" + s.registry.Address + "/all"}
}

// give puts what the flags need on a host, and the password where root's Docker would have it.
func (s *supply) give(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	for name, to := range map[string]string{"catalogue.yaml": "/root/supply/catalogue.yaml", "ca.pem": "/root/supply/ca.pem", "docker/config.json": "/root/.docker/config.json"} {
		if err := h.CopyTo(ctx, filepath.Join(s.dir, name), to); err != nil {
			t.Fatal(err)
		}
	}
}

// The lab's CoreDNS is not the one that goes with its Kubernetes.
func suppliedDocument() string {
	return cluster.Document("dns: {imageTag: " + lab.CoreDNSVersion + "}")
}

// fill pushes the images of the lab's bundle to the registry with our command, and returns its path and that of a
// document for what is there.
func (s *supply) fill(ctx context.Context, t *testing.T, l *lab.Lab) (tool, document string) {
	t.Helper()
	tool, err := l.Kubewright(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := l.Bundle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	document = filepath.Join(s.dir, "cluster.yaml")
	if err := os.WriteFile(document, []byte(suppliedDocument()), 0o600); err != nil {
		t.Fatal(err)
	}
	pushed := s.here(ctx, t, tool, "bundle", "push", bundle, "--registry", s.registry.Address+"/all", "--mirror-ca", filepath.Join(s.dir, "ca.pem"))
	if !strings.Contains(pushed, s.registry.Address+"/all/pause:3.10.2") {
		t.Fatalf("pushed %s", pushed)
	}
	return tool, document
}

// Everything that comes from outside: from a mirror and a registry, through a proxy, into one file, and
// from there to a host without any network; and, beside it, straight to hosts that reach the mirror.
func TestArtifacts(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 30*time.Minute) // with what its parts wait for others
	s := newSupply(ctx, t, l)
	tool, document := s.fill(ctx, t, l)
	file := filepath.Join(s.dir, "kubernetes.tar.zst")

	// The mirror is not a good one.
	const kubelet = "/dl.k8s.io/release/" + lab.KubernetesVersion + "/bin/linux/"
	for path := range paths(t, s.files, kubelet) {
		s.files.Break(path, faulty.Fault{Cut: 20 << 20, Times: 2}, faulty.Fault{Status: 503, Times: 1}, faulty.Fault{NoRange: true, Cut: 1 << 20, Times: 1}, faulty.Fault{AddLength: -1000, Times: 1})
	}
	cache := filepath.Join(s.dir, "cache")
	begin := time.Now()
	made := s.here(ctx, t, tool, append([]string{"bundle", "create", file, "-o", "json", "--config", document, "--cache-dir", cache, "--image", lab.ProbeImage}, s.from(s.dir)...)...)
	t.Logf("bundle create: %.1f s", time.Since(begin).Seconds())
	var listed struct{ Lock, Origin string }
	if err := json.Unmarshal([]byte(made), &listed); err != nil || listed.Origin != "upstream" {
		t.Fatalf("create printed %s: %v", made, err)
	}
	if log := s.proxy.Log(); !strings.Contains(log, "CONNECT "+s.registry.Address) || !strings.Contains(log, "CONNECT "+strings.TrimPrefix(s.files.URL, "https://")) {
		t.Errorf("the proxy was passed by:\n%.2000s", log)
	}
	s.here(ctx, t, tool, "bundle", "verify", file, "--lock", listed.Lock)
	again := file + "2.tar.zst"
	s.here(ctx, t, tool, append([]string{"bundle", "create", again, "--config", document, "--cache-dir", cache, "--image", lab.ProbeImage}, s.from(s.dir)...)...)
	if x, y := digestOf(t, file), digestOf(t, again); x != y {
		t.Error("made again from the cache, it is another file")
	}

	// A folder that a web server serves is a bundle, too.
	www := filepath.Join(s.dir, "www")
	s.here(ctx, t, tool, "bundle", "push", file, "--folder", www, "--cache-dir", cache)
	web, err := faulty.Serve(www, faulty.Options{Address: servers.Reachable + ":0", TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	if err := os.WriteFile(filepath.Join(s.dir, "web.pem"), web.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	s.here(ctx, t, tool, "bundle", "verify", web.URL, "--mirror-ca", filepath.Join(s.dir, "web.pem"), "--lock", listed.Lock, "--cache-dir", filepath.Join(s.dir, "another"))

	machines := hosts(ctx, t, lab.HostOptions{}, "air-1", "net-1", "net-2")
	explainFailure(t, machines...)
	t.Run("made into clusters", func(t *testing.T) {
		t.Run("a host without any network", func(t *testing.T) {
			t.Parallel()
			ctx, _ := needLab(t, 8*time.Minute)
			airGap(ctx, t, machines[0], file, listed.Lock)
		})
		t.Run("hosts that download", func(t *testing.T) {
			t.Parallel()
			ctx, _ := needLab(t, 8*time.Minute)
			downloads(ctx, t, s, machines[1], machines[2])
		})
	})
}

func digestOf(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("sha256sum", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[0]
}

// paths of the served files that begin with prefix, and are no sums.
func paths(t *testing.T, s *faulty.Server, prefix string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"kubelet", "kubectl"} {
			all[prefix+arch+"/"+name] = true
		}
	}
	return all
}

const noNetwork = `table inet air {
	chain out { type filter hook output priority 0; oifname "eth0" ct state new drop; }
	chain through { type filter hook forward priority 0; oifname "eth0" ct state new drop; }
}
`

// airGap makes a cluster on a host that reaches nothing but itself.
func airGap(ctx context.Context, t *testing.T, h *lab.Host, file, lock string) {
	if err := h.CopyTo(ctx, file, "/root/kubernetes.tar.zst"); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(suppliedDocument())); err != nil {
		t.Fatal(err)
	}
	// Nobody can be reached from here; only who asks is answered, so that the test can look.
	if _, stderr, err := h.Exec(ctx, strings.NewReader(noNetwork), "nft", "-f", "-"); err != nil {
		t.Fatal(err, stderr)
	}
	if _, _, err := h.Exec(ctx, nil, "ping", "-c", "1", "-W", "1", servers.Reachable); err == nil {
		t.Fatal("the host reaches the network")
	}
	argv := []string{"init", "--config", "/root/cluster.yaml", "--bundle", "/root/kubernetes.tar.zst", "--lock"}
	refused(ctx, t, h, append([]string{tool}, append(argv, "sha256:"+strings.Repeat("0", 64))...), "--lock asks for", "another bundle, or somebody has changed it")
	if left := run(ctx, t, h, "sh", "-c", "find /var/cache/kubewright/blobs /usr/local/bin -type f 2>/dev/null; true"); left != "" {
		t.Errorf("a bundle of another lock left %s", left)
	}
	kubewright(ctx, t, h, append(argv, lock)...)
	c, err := cluster.WaitAPI(ctx, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	unchanged(ctx, t, h, append(argv, lock)...)
}

// unchanged runs a command again: nothing is sent, imported or installed.
func unchanged(ctx context.Context, t *testing.T, h *lab.Host, args ...string) {
	t.Helper()
	_, stderr, err := h.Exec(ctx, nil, append([]string{tool, "-o", "json"}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for line := range strings.Lines(stderr) {
		var e struct{ Phase, State string }
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		for _, phase := range []string{"artifacts", "download", "install", "images", "mirrors"} {
			if e.Phase == phase && (e.State == "done" || e.State == "progress" && phase != "artifacts") {
				t.Errorf("the second time: %s", line)
			}
		}
	}
}

// downloads makes a cluster of two hosts that have no bundle; the second knows of the mirrors by the cluster.
func downloads(ctx context.Context, t *testing.T, s *supply, first, second *lab.Host) {
	for _, h := range []*lab.Host{first, second} {
		s.give(ctx, t, h)
	}
	if err := first.Write(ctx, "/root/cluster.yaml", 0o600, strings.NewReader(suppliedDocument())); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"init", "--config", "/root/cluster.yaml"}, s.from("/root/supply")...)
	begin := time.Now()
	out := kubewright(ctx, t, first, append(argv, "-o", "json")...)
	t.Logf("init from the mirror: %.1f s", time.Since(begin).Seconds())
	var result struct{ Join string }
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("init printed %q: %v", out, err)
	}
	begin = time.Now()
	kubewright(ctx, t, second, strings.Fields(result.Join)[1:]...)
	t.Logf("join from the mirror: %.1f s", time.Since(begin).Seconds())
	c, err := cluster.WaitAPI(ctx, first, []*lab.Host{second})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	lock := run(ctx, t, first, "sh", "-c", "cat /var/cache/kubewright/locks/*.yaml | sha256sum")
	if theirs := run(ctx, t, second, "sh", "-c", "cat /var/cache/kubewright/locks/*.yaml | sha256sum"); theirs != lock {
		t.Error("the second host is held to another lock")
	}
	// A worker has none of what control planes run, in the cache or in the runtime.
	if images := run(ctx, t, second, "crictl", "images"); strings.Contains(images, "kube-apiserver") || !strings.Contains(images, "kube-proxy") {
		t.Errorf("the worker's images:\n%s", images)
	}
	// An image that came with nothing: the runtime pulls it from the mirror, with the password.
	if images := run(ctx, t, second, "crictl", "images"); strings.Contains(images, "probe") {
		t.Fatal("the probe is there before anybody needs it")
	}
	stdout, stderr, err := c.Kubectl(ctx, "run", "later", "--image", lab.ProbeImage, "--restart", "Never", "--rm", "--attach", "--quiet", "--pod-running-timeout", "60s", "--command", "--", "echo", "pulled")
	if err != nil || !strings.Contains(stdout, "pulled") {
		t.Errorf("%v: %s%s", err, stdout, stderr)
	}
	for _, h := range []*lab.Host{first, second} {
		if found := run(ctx, t, h, "sh", "-c", "grep -rl "+s.registry.Password+" /etc /var/lib/kubewright /var/cache/kubewright --exclude-dir=pki 2>/dev/null; grep -rl "+basic(s)+" /etc /var/lib/kubewright /var/cache/kubewright 2>/dev/null; true"); found != "/etc/containerd/certs.d/_default/hosts.toml\n" {
			t.Errorf("%s: the password is in %q", h.Name, found)
		}
		if mode := run(ctx, t, h, "stat", "-c", "%a", "/etc/containerd/certs.d/_default/hosts.toml"); mode != "600\n" {
			t.Errorf("%s: hosts.toml has mode %s", h.Name, mode)
		}
	}
	// Nobody is asked any more.
	s.files.Close()
	unchanged(ctx, t, first, argv...)
	unchanged(ctx, t, second, strings.Fields(result.Join)[1:]...)
}

// basic is the password as an HTTP header has it.
func basic(s *supply) string {
	var c struct {
		Auths map[string]struct{ Auth string }
	}
	if err := json.Unmarshal(s.registry.DockerConfig(), &c); err != nil {
		panic(err)
	}
	for _, a := range c.Auths {
		return a.Auth
	}
	panic(fmt.Sprint("no password in ", c))
}
