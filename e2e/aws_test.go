package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// account is a person with an account of AWS, which a stand-in plays (package cloud), and a document.
type account struct {
	t                   *testing.T
	ctx                 context.Context
	dir, binary, bundle string
	cloud               *cloud.Cloud
	machines            *cloud.Lab
}

const awsNetwork = "10.215.0.0/20"

func newAccount(t *testing.T, limit time.Duration) *account {
	ctx, _ := needLab(t, limit)
	l, err := lab.New(ctx, lab.Options{Name: "aws", Subnet: awsNetwork, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	a := &account{t: t, ctx: ctx, dir: t.TempDir()}
	if a.machines, err = cloud.NewLab(l, lab.Image{}); err != nil {
		t.Fatal(err)
	}
	a.cloud = cloud.New(cloud.Options{Machines: a.machines, Log: t.Logf, Lag: 1})
	if err := a.machines.Serve(a.cloud); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.cloud.Close()
		if err := a.machines.Close(); err != nil {
			t.Error(err)
		}
	})
	if a.binary, err = l.Kubewright(ctx); err != nil {
		t.Fatal(err)
	}
	if a.bundle, err = l.CloudBundle(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

// write writes the document: one control plane, and so many workers.
func (a *account) write(workers int) {
	a.t.Helper()
	document := cluster.Document(fmt.Sprintf(`
provider:
  name: aws
  aws:
    region: eu-west-1
    network: {cidr: %s, nat: none, zones: [eu-west-1a, eu-west-1b]}
    pools:
    - {name: work, count: %d, labels: {team: a}}
addons:
  cloudController: {name: aws, extraEnvs: [{name: AWS_ENDPOINT_URL, value: %q}]}
`, awsNetwork, workers, a.machines.Endpoint))
	document = strings.Replace(document, "kind: Cluster\n", "kind: Cluster\nmetadata: {name: cloudy}\n", 1)
	if err := os.WriteFile(filepath.Join(a.dir, "cluster.yaml"), []byte(document), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// run runs kubewright with the document, as it is run with the real AWS but for where that is.
func (a *account) run(args ...string) (stdout, stderr string, err error) {
	a.t.Helper()
	cmd := exec.CommandContext(a.ctx, a.binary, append(args, "-f", "cluster.yaml")...)
	cmd.Dir = a.dir
	cmd.Env = slices.Concat(os.Environ(), cloud.Env(a.machines.Endpoint), []string{"HOME=" + a.dir, "XDG_DATA_HOME=" + a.dir, "KUBECONFIG=" + a.kubeconfig(), "SSH_AUTH_SOCK="})
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("kubewright %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), errs.String(), err
}

func (a *account) kubeconfig() string { return filepath.Join(a.dir, "kubeconfig") }

func (a *account) do(args ...string) string {
	a.t.Helper()
	out, _, err := a.run(args...)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// up tells how many changes it has made.
func (a *account) up() int {
	a.t.Helper()
	var r struct{ Changes int }
	if out := a.do("up", "--bundle", a.bundle, "-o", "json"); json.Unmarshal([]byte(out), &r) != nil {
		a.t.Fatalf("up printed %q", out)
	}
	return r.Changes
}

// cluster is what there is on the machines, with which status is content.
func (a *account) cluster() *cluster.Cluster {
	a.t.Helper()
	var r struct {
		Hosts []struct{ Host string }
	}
	if out := a.do("status", "-o", "json"); json.Unmarshal([]byte(out), &r) != nil || len(r.Hosts) == 0 {
		a.t.Fatalf("status printed %q", out)
	}
	c := &cluster.Cluster{}
	for _, line := range a.cloud.Resources() {
		kind, rest, _ := strings.Cut(line, " ")
		id, name, _ := strings.Cut(rest, " ")
		if h := a.machines.Host(id); kind == "instance" && h != nil {
			if strings.Contains(name, "control-plane") {
				c.ControlPlane = h
			} else {
				c.Workers = append(c.Workers, h)
			}
		}
	}
	if c.ControlPlane == nil {
		a.t.Fatalf("no machine is a control plane: %v", a.cloud.Resources())
	}
	return c
}

func (a *account) kubectl(c *cluster.Cluster, args ...string) string {
	a.t.Helper()
	out, errs, err := c.Kubectl(a.ctx, args...)
	if err != nil {
		a.t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, errs)
	}
	return out
}

// TestAWS makes a cluster on machines of a stand-in: all on them is real, the cloud controller manager too.
func TestAWS(t *testing.T) {
	t.Parallel()
	a := newAccount(t, 10*time.Minute)
	a.write(2)
	if n := a.up(); n == 0 {
		t.Fatal("up says that it has changed nothing")
	}
	c := a.cluster()
	explainFailure(t, append(c.Workers, c.ControlPlane)...)
	t.Run("nodes are machines", func(t *testing.T) {
		for line := range strings.Lines(a.kubectl(c, "get", "nodes", "-o", `jsonpath={range .items[*]}{.spec.providerID} {.spec.taints[*].key} {.metadata.labels.topology\.kubernetes\.io/zone} {.metadata.labels.node\.kubernetes\.io/instance-type}{"\n"}{end}`)) {
			if !strings.HasPrefix(line, "aws:///eu-west-1") || strings.Contains(line, "uninitialized") || strings.Count(line, "eu-west-1") != 2 || !strings.HasSuffix(line, " t3.medium\n") {
				t.Errorf("a node is %q", line)
			}
		}
	})
	t.Run("verify", func(t *testing.T) { verified(a.ctx, t, c) })
	t.Run("again", func(t *testing.T) {
		before := len(a.cloud.Calls())
		if n := a.up(); n != 0 {
			t.Errorf("it has made %d changes", n)
		}
		if calls := personal(a.cloud.Calls()[before:]); len(calls) > 12 {
			t.Errorf("it has made %d calls: %v", len(calls), calls)
		}
	})
	t.Run("a service gets a load balancer", func(t *testing.T) {
		a.kubectl(c, "create", "deployment", "web", "--image", lab.ProbeImage, "--", "httpd", "-f", "-p", "8080", "-h", "/")
		a.kubectl(c, "expose", "deployment", "web", "--type", "LoadBalancer", "--port", "80", "--target-port", "8080")
		a.kubectl(c, "wait", "service/web", "--for=jsonpath={.status.loadBalancer.ingress[0].hostname}", "--timeout=90s")
		name := a.kubectl(c, "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].hostname}")
		if !slices.ContainsFunc(a.cloud.Resources(), func(r string) bool { return strings.HasPrefix(r, "load-balancer ") && !strings.Contains(r, "cloudy") }) {
			t.Errorf("%s is in %v", name, a.cloud.Resources())
		}
	})
	t.Run("a pool shrinks", func(t *testing.T) {
		a.write(1)
		a.up()
		if nodes := strings.Fields(a.kubectl(c, "get", "nodes", "-o", "name")); len(nodes) != 2 {
			t.Errorf("the nodes are %v", nodes)
		}
	})
	t.Run("down", func(t *testing.T) {
		a.do("down", "--yes")
		if left := a.cloud.Resources(); len(left) > 0 {
			t.Errorf("it has left %v", left)
		}
		if b, err := os.ReadFile(a.kubeconfig()); err != nil || strings.Contains(string(b), "cloudy") {
			t.Errorf("the kubeconfig still has it: %v %s", err, b)
		}
	})
}

// personal are the calls that the person has made, and no machine.
func personal(calls []cloud.Call) (actions []string) {
	for _, c := range calls {
		if c.Key == cloud.TestKeyID {
			actions = append(actions, c.Action)
		}
	}
	return actions
}
