package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/e2e/cluster"
)

// containers are somebody's clusters of containers.
type containers struct {
	*cluster.Kind
	ctx context.Context
	t   *testing.T
}

func newContainers(t *testing.T, limit time.Duration) *containers {
	ctx, l := needLab(t, limit)
	k, err := cluster.NewKind(ctx, l, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &containers{k, ctx, t}
}

// up makes a cluster, which is gone at the end, even of a run that was killed before.
func (c *containers) up(name string, args ...string) {
	c.t.Helper()
	if err := c.Remove(c.ctx, name); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.Remove(context.WithoutCancel(c.ctx), name) })
	begin := time.Now()
	if _, _, err := c.Up(c.ctx, name, args...); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%s is up after %.1f s", name, time.Since(begin).Seconds())
}

// do runs kubewright, and returns what it prints.
func (c *containers) do(args ...string) string {
	c.t.Helper()
	out, _, err := c.Run(c.ctx, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// kind runs the real one.
func (c *containers) kind(args ...string) string {
	c.t.Helper()
	out, _, err := c.Kind.Kind(c.ctx, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// docker is the engine's own word.
func (c *containers) docker(args ...string) string {
	c.t.Helper()
	out, err := c.Command(c.ctx, "docker", args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// tagged guards the name of kubewright's own image in the engine.
var tagged sync.Mutex

// probed brings the image that verify's pods run to the nodes as any image comes that kind's users have built.
func (c *containers) probed(name string) {
	c.t.Helper()
	tagged.Lock()
	defer tagged.Unlock()
	var version struct{ Version string }
	if err := json.Unmarshal([]byte(c.do("version", "-o", "json")), &version); err != nil {
		c.t.Fatal(err)
	}
	image := bundle.OwnImage(version.Version)
	tar := c.Command(c.ctx, "tar", "-c", "-C", filepath.Dir(c.Binary), filepath.Base(c.Binary))
	imported := c.Command(c.ctx, "docker", "import", "--change", `ENTRYPOINT ["/kubewright"]`, "-", image)
	var err error
	if imported.Stdin, err = tar.StdoutPipe(); err != nil {
		c.t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		c.t.Fatal(err)
	}
	if out, err := imported.CombinedOutput(); err != nil {
		c.t.Fatalf("docker import: %v: %s", err, out)
	}
	if err := tar.Wait(); err != nil {
		c.t.Fatal(err)
	}
	defer c.docker("image", "rm", image)
	c.kind("load", "docker-image", image, "--name", name)
}

// verified wants every row to be shown but those of notHere.
func (c *containers) verified(name string) {
	c.t.Helper()
	c.probed(name)
	kubeconfig := filepath.Join(c.Dir, name+".kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(c.kind("get", "kubeconfig", "--name", name)), 0o600); err != nil {
		c.t.Fatal(err)
	}
	stdout, stderr, err := c.Run(c.ctx, "verify", "-o", "json", "--kubeconfig", kubeconfig)
	shown(c.t, stdout, stderr, err)
}

// engine is what the engine has: containers, volumes and networks.
func (c *containers) engine() []string {
	c.t.Helper()
	return []string{c.docker("ps", "--all", "--format", "{{.Names}}", "--filter", "label=io.x-k8s.kind.cluster"),
		c.docker("volume", "ls", "--quiet"), c.docker("network", "ls", "--format", "{{.Name}}")}
}

func TestKind(t *testing.T) {
	t.Parallel()
	c := newContainers(t, 6*time.Minute)
	c.up("k12", "--workers", "2")
	c.verified("k12")

	t.Run("again", func(t *testing.T) {
		if out := c.do("up", "--provider", "kind", "--name", "k12", "--image", c.Image, "--workers", "2", "-o", "json"); !strings.Contains(out, `"changes":0`) {
			t.Errorf("a second up says %s", out)
		}
	})
	t.Run("kind knows it", func(t *testing.T) {
		if out := c.kind("get", "clusters"); !slices.Contains(strings.Fields(out), "k12") {
			t.Errorf("kind get clusters says %s", out)
		}
		if out := c.kind("get", "nodes", "--name", "k12"); len(strings.Fields(out)) != 3 {
			t.Errorf("kind get nodes says %s", out)
		}
		logs := filepath.Join(c.Dir, "logs")
		c.kind("export", "logs", logs, "--name", "k12")
		if b, err := os.ReadFile(filepath.Join(logs, "k12-control-plane", "kubelet.log")); err != nil || len(b) == 0 {
			t.Errorf("kind export logs: %d bytes of the kubelet's: %v", len(b), err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		logs := filepath.Join(c.Dir, "everything")
		c.do("logs", "--name", "k12", logs)
		for _, name := range []string{"k12-worker/kubelet.log", "k12-worker/console.log", "k12-control-plane/steps.jsonl", "cluster/nodes.json"} {
			if b, err := os.ReadFile(filepath.Join(logs, name)); err != nil || len(b) == 0 {
				t.Errorf("%s: %d bytes: %v", name, len(b), err)
			}
		}
		printed, err := filepath.Glob(filepath.Join(logs, "k12-worker", "pods", "kube-system_kube-proxy-*", "kube-proxy", "0.log"))
		if err != nil || len(printed) != 1 {
			t.Errorf("what pods print: %q, %v", printed, err)
		}
		noSecrets(t, logs)
	})
	t.Run("a node is killed, and comes back", func(t *testing.T) {
		c.docker("kill", "k12-worker2")
		c.docker("start", "k12-worker2")
		c.ready("k12", 3)
	})
	t.Run("addresses are swapped", func(t *testing.T) {
		names := []string{"k12-control-plane", "k12-worker", "k12-worker2"}
		had := c.addresses(names)
		c.docker(append([]string{"stop", "--time", "5"}, names...)...)
		order := names // the engine gives the lowest that is free
		byAddress := func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) }
		if slices.MinFunc(had, byAddress) == had[0] {
			order = []string{names[2], names[1], names[0]}
		}
		for _, name := range order {
			c.docker("start", name)
		}
		if has := c.addresses(names); has[0] == had[0] {
			t.Fatalf("the control plane has kept its address: %v, %v", had, has)
		}
		c.ready("k12", 3)
		c.verified("k12")
	})
	t.Run("what can't be made leaves its logs, and nothing else", func(t *testing.T) {
		cmd := c.Command(c.ctx, c.Binary, "up", "--provider", "kind", "--name", "late", "--image", c.Image, "--kubernetes-version", "v1.35.0")
		cmd.Env = append(cmd.Env, "CI=true")
		t.Cleanup(func() { c.Remove(context.WithoutCancel(c.ctx), "late") })
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Kubernetes v1.35.0 is asked for") {
			t.Errorf("%v: %s", err, out)
		}
		if b, err := os.ReadFile(filepath.Join(c.Dir, "kubewright-logs-late", "late-control-plane", "console.log")); err != nil || len(b) == 0 {
			t.Errorf("its console: %d bytes: %v", len(b), err)
		}
		if have := c.docker("ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster=late"); have != "" {
			t.Errorf("containers are left: %s", have)
		}
	})
	t.Run("down", func(t *testing.T) {
		volumes := strings.Fields(c.docker("inspect", "--format", `{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}`, "k12-control-plane", "k12-worker", "k12-worker2"))
		if len(volumes) < 3 {
			t.Errorf("the containers have the volumes %q", volumes)
		}
		c.do("down", "--provider", "kind", "--name", "k12")
		if b, err := os.ReadFile(c.Kubeconfig()); err != nil || strings.Contains(string(b), "k12") {
			t.Errorf("the kubeconfig still has it: %v %s", err, b)
		}
		after := c.engine()
		for _, v := range volumes {
			if slices.Contains(strings.Fields(after[1]), v) {
				t.Errorf("the volume %s is left", v)
			}
		}
		// kind's one network is for all clusters, and stays; other tests have theirs.
		if all := slices.DeleteFunc(strings.Fields(after[2]), func(n string) bool { return !strings.Contains(n, "kind") && !strings.Contains(n, "k12") }); !slices.Equal(all, []string{"kind"}) {
			t.Errorf("networks: %s", after[2])
		}
		if strings.Contains(after[0], "k12") {
			t.Errorf("containers: %s", after[0])
		}
	})
}

// noSecrets wants no key, token or password in the files of a folder.
func noSecrets(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if secret := secrets.Find(b); secret != nil {
			t.Errorf("%s has %.40s...", path, secret)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// secrets are keys, tokens of service accounts, and bootstrap tokens.
var secrets = regexp.MustCompile(`PRIVATE KEY|client-key-data|eyJhbGciOi[\w-]+\.[\w-]+\.|(^|[\s"'=])[a-z0-9]{6}\.[a-z0-9]{16}($|[\s"'])`)

func (c *containers) addresses(names []string) (all []string) {
	c.t.Helper()
	for _, name := range names {
		all = append(all, c.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name))
	}
	return all
}

// ready waits until so many nodes are Ready, by what the control plane says.
func (c *containers) ready(name string, nodes int) {
	c.t.Helper()
	hosts, err := c.Hosts(c.ctx, name, nodes-1)
	if err != nil {
		c.t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(c.ctx, 2*time.Minute)
	defer cancel()
	cl, err := cluster.WaitAPI(limited, hosts[0], hosts[1:])
	if err == nil {
		err = cl.WaitFresh(limited, time.Now())
	}
	if err != nil {
		c.t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
}

func TestKindSizes(t *testing.T) {
	t.Parallel()
	c := newContainers(t, 6*time.Minute)
	c.up("k10")
	if out := c.docker("exec", "k10-control-plane", "ls", "/kind"); strings.Contains(out, "kubeadm.conf") {
		c.t.Error("kind's library has gone on when the containers were made: it no longer says what it did")
	}
	c.verified("k10")
	c.refusals("k10")
	c.do("down", "--name", "k10")
	c.up("k31", "--control-planes", "3", "--workers", "1")
	c.verified("k31")
	c.kind("delete", "cluster", "--name", "k31")
	if out := c.docker("ps", "--all", "--format", "{{.Names}}"); strings.Contains(out, "k31-") {
		t.Errorf("kind has left %s", out)
	}
}

// refusals are what up says beside a cluster that is there. It makes nothing.
func (c *containers) refusals(there string) {
	port := c.docker("port", there+"-control-plane", "6443/tcp")
	taken := filepath.Join(c.Dir, "taken.yaml")
	document := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {apiServerPort: " + port[strings.LastIndex(port, ":")+1:] + "}\n"
	if err := os.WriteFile(taken, []byte(document), 0o600); err != nil {
		c.t.Fatal(err)
	}
	for name, refusal := range map[string]struct {
		args []string
		says string
	}{
		"a name is taken": {[]string{"--provider", "kind", "--name", there, "--image", c.Image, "--workers", "1"}, "containers are not added to it"},
		"no such image":   {[]string{"--provider", "kind", "--name", "refused", "--image", "none.invalid/node:1"}, "build one with `kubewright build node-image`"},
		"a port is taken": {[]string{"-f", taken, "--name", "refused", "--image", c.Image}, "choose another one (hostPort, apiServerPort)"},
	} {
		c.t.Run(name, func(t *testing.T) {
			if _, _, err := c.Run(c.ctx, append([]string{"up"}, refusal.args...)...); err == nil || !strings.Contains(err.Error(), refusal.says) {
				t.Errorf("it says %v, want %s", err, refusal.says)
			}
		})
	}
	if have := c.docker("ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster=refused"); have != "" {
		c.t.Errorf("containers are left: %s", have)
	}
}
