package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/e2e/upstream"
)

const networkPassword = "correct-horse-battery"

// The real API server takes all objects of Calico's real manifest in each mode, of Weave, and of a network that
// somebody brings along. Their images cannot be had here, so that their pods are placed and do not run.
func TestNetworksAreAcceptedByTheAPI(t *testing.T) {
	t.Parallel()
	calico := upstream.File(t, upstream.Calico)
	ctx, _ := needLab(t, 4*time.Minute)
	host := preparedHosts(ctx, t, "net-cp")[0]
	explainFailure(t, host)
	o := cluster.Options{Document: cluster.Document("network: {podCIDR: 10.244.0.0/16, cni: {name: none}}"), Args: cluster.Bundle, Log: newEventLog(t).add}
	c, err := cluster.Kubewright(ctx, host, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := addons.Decode(calico)
	if err != nil {
		t.Fatal(err)
	}
	n := &networks{T: t, ctx: ctx, host: host, client: dynamic.NewForConfigOrDie(c.Config), calico: manifest}
	n.bundle(calico)

	t.Run("Traefik, default-deny, and what is for AWS", func(t *testing.T) { n.on(t).addons() })
	for _, mode := range []struct{ name, spec string }{
		{"vxlan", "network: {podCIDR: 10.244.0.0/16, cni: {name: calico}}"},
		{"none, with Typha", "network: {podCIDR: 10.244.0.0/16, cni: {name: calico, mtu: 1400, calico: {encapsulation: none, typha: 3, interface: 'can-reach=192.0.2.1'}}}"},
		{"ipip, without Typha", "network: {podCIDR: 10.244.0.0/16, cni: {name: calico, calico: {encapsulation: ipip}}}"},
		{"IPv6", "network: {podCIDR: 'fd00:10:244::/56', serviceCIDR: 'fd00:10:96::/112', cni: {name: calico}}"},
	} {
		begin := time.Now()
		t.Run("Calico, "+mode.name, func(t *testing.T) { n.on(t).calicoIs(mode.spec) })
		t.Logf("%s: %.1f s", mode.name, time.Since(begin).Seconds())
	}
	t.Run("a network of one's own", func(t *testing.T) { n.on(t).ownNetwork() })
	t.Run("Weave, encrypted", func(t *testing.T) { n.on(t).weave() })
	t.Run("another network is refused", func(t *testing.T) {
		n := n.on(t)
		kubewright(n.ctx, t, host, "init", "phase", "upload-config", "--config", "/root/weave.yaml")
		refused(n.ctx, t, host, n.write("calico", "network: {podCIDR: 10.244.0.0/16, cni: {name: calico}}", "--bundle", networkBundle),
			"spec.network.cni.name: the cluster has", "make another cluster")
	})
}

type networks struct {
	*testing.T
	ctx    context.Context
	host   *lab.Host
	client dynamic.Interface
	calico []addons.Object
}

func (n networks) on(t *testing.T) *networks {
	n.T = t
	return &n
}

const networkBundle = "/root/network-bundle"

// bundle puts one with nothing but the manifest on the host.
func (n *networks) bundle(calico []byte) {
	n.Helper()
	dir, file := filepath.Join(n.TempDir(), "bundle"), filepath.Join(n.TempDir(), "calico.yaml")
	if err := os.WriteFile(file, calico, 0o600); err != nil {
		n.Fatal(err)
	}
	w, err := bundle.Create(dir, bundle.Upstream)
	if err != nil {
		n.Fatal(err)
	}
	machine := strings.TrimSpace(run(n.ctx, n.T, n.host, "dpkg", "--print-architecture"))
	if err := w.AddFile(n.ctx, bundle.Artifact{Name: "calico", Type: bundle.Manifest, Version: "v3.32.1", Platform: "linux/" + machine}, file); err != nil {
		n.Fatal(err)
	}
	if err := w.Close(); err != nil {
		n.Fatal(err)
	}
	for from, to := range map[string]string{filepath.Join(dir, "lock.yaml"): "lock.yaml", file: fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(calico))} {
		if err := n.host.CopyTo(n.ctx, from, networkBundle+"/"+to); err != nil {
			n.Fatal(err)
		}
	}
}

// write gives the command that installs the network of a document.
func (n *networks) write(name, spec string, args ...string) []string {
	n.Helper()
	path := "/root/" + name + ".yaml"
	if err := n.host.Write(n.ctx, path, 0o600, strings.NewReader(cluster.Document(spec))); err != nil {
		n.Fatal(err)
	}
	return append([]string{tool, "init", "phase", "addon/cni", "-o", "json", "--config", path}, args...)
}

// wished renders the objects of a document as the host does.
func (n *networks) wished(spec string, from addons.Material) []addons.Object {
	n.Helper()
	c, err := config.Parse([]byte(cluster.Document(spec)))
	if err != nil {
		n.Fatal(err)
	}
	c.Default(config.Versions{})
	objects, err := addons.CNI(c, "https://"+n.host.IP+":6443", from)
	if err != nil {
		n.Fatal(err)
	}
	return objects
}

// calicoIs brings Calico to a mode. What the mode before had beside it goes.
func (n *networks) calicoIs(spec string) {
	argv := n.write("calico", spec, "--bundle", networkBundle)
	run(n.ctx, n.T, n.host, argv...)
	wished := n.wished(spec, addons.Material{Manifest: n.calico})
	n.there(wished)
	definitions := 0
	for _, o := range wished {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		definitions++
		live, err := n.get(o)
		if err != nil {
			n.Fatal(err)
		}
		if !established(live) {
			n.Errorf("%s is not established: %v", o.GetName(), live.Object["status"])
		}
	}
	if definitions != 23 {
		n.Errorf("%d definitions", definitions)
	}
	n.placed("calico-node")
	typha := &unstructured.Unstructured{}
	typha.SetAPIVersion("apps/v1")
	typha.SetKind("Deployment")
	typha.SetNamespace("kube-system")
	typha.SetName("calico-typha")
	if _, err := n.get(typha); apierrors.IsNotFound(err) == strings.Contains(spec, "typha: 3") {
		n.Errorf("Typha: %v", err)
	}
	if _, said, err := n.host.Exec(n.ctx, nil, argv...); err != nil || !strings.Contains(said, `"phase":"addon/cni","state":"unchanged"`) {
		n.Errorf("the second time: %v, %s", err, said)
	}
}

// ownNetwork has kinds of its own, one with a plural that nobody could guess, in any order.
func (n *networks) ownNetwork() {
	const manifest = `
{apiVersion: net.example/v1, kind: Highway, metadata: {name: one, namespace: own-net}, spec: {lanes: 3}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: own-net}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {serviceAccountName: agent, containers: [{name: a, image: registry.example/a:1}]}}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: agent, namespace: own-net}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: own-net}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: autobahnen.net.example}
spec:
  group: net.example
  scope: Namespaced
  names: {kind: Highway, plural: autobahnen}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`
	if err := n.host.Write(n.ctx, "/root/own-net.yaml", 0o600, strings.NewReader(manifest)); err != nil {
		n.Fatal(err)
	}
	spec := fmt.Sprintf("network: {cni: {name: manifest, manifest: {source: /root/own-net.yaml, sha256: %x}}}", sha256.Sum256([]byte(manifest)))
	run(n.ctx, n.T, n.host, n.write("own", spec)...)
	road, err := n.client.Resource(schema.GroupVersionResource{Group: "net.example", Version: "v1", Resource: "autobahnen"}).Namespace("own-net").Get(n.ctx, "one", metav1.GetOptions{})
	if err != nil {
		n.Fatal(err)
	}
	if lanes, _, _ := unstructured.NestedInt64(road.Object, "spec", "lanes"); lanes != 3 {
		n.Errorf("it has %d lanes", lanes)
	}
	for _, o := range n.calico { // of the network before
		if _, err := n.get(o); apierrors.IsNotFound(err) == (o.GetKind() == "CustomResourceDefinition") {
			n.Errorf("%s: %v", addons.Identity(o), err)
		}
	}
	refused(n.ctx, n.T, n.host, n.write("own", strings.Replace(spec, "sha256: ", "sha256: ffff", 1)), "spec.network.cni.manifest.sha256")
	other := fmt.Sprintf("network: {cni: {name: manifest, manifest: {source: /root/own-net.yaml, sha256: %s}}}", strings.Repeat("f", 64))
	refused(n.ctx, n.T, n.host, n.write("own", other), "/root/own-net.yaml has digest sha256:", "somebody has changed it")
}

// weave keeps its password to the Secret.
func (n *networks) weave() {
	if err := n.host.Write(n.ctx, "/root/weave-password", 0o600, strings.NewReader(networkPassword+"\n")); err != nil {
		n.Fatal(err)
	}
	spec := "network: {podCIDR: 10.244.0.0/16, cni: {name: weave, mtu: 1350, weave: {acceptDeprecated: true, passwordFile: /root/weave-password}}}"
	argv := n.write("weave", spec)
	plan := run(n.ctx, n.T, n.host, append(argv, "--dry-run")...)
	if !strings.Contains(plan, `"name":"Secret kube-system/weave-passwd"`) || !strings.Contains(plan, "(secret, not shown)") {
		n.Errorf("the plan says %s", plan)
	}
	out, said, err := n.host.Exec(n.ctx, nil, argv...)
	if err != nil {
		n.Fatalf("%v\n%s%s", err, out, said)
	}
	password, err := addons.ParsePassword([]byte(networkPassword))
	if err != nil {
		n.Fatal(err)
	}
	n.there(n.wished(spec, addons.Material{Password: password}))
	n.placed("weave-net")
	if strings.Contains(plan+out+string(said), networkPassword) {
		n.Error("the password is in what was printed")
	}
	if found := run(n.ctx, n.T, n.host, "sh", "-c", "grep -rlF "+networkPassword+" /etc /var/lib/kubewright /var/log /run /opt 2>/dev/null || true"); found != "" {
		n.Errorf("the password is in %s", found)
	}
}
