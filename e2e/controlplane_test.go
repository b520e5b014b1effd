package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// Three control planes by hand, two of which join at the same time, as etcd takes them one
// after the other; then what may happen to the third; then a fourth that kubeadm makes.
func TestControlPlanes(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 6*time.Minute)
	hosts := preparedHosts(ctx, t, "ha-1", "ha-2", "ha-3", "ha-4")
	explainFailure(t, hosts...)
	first := hosts[0]
	const document = "/root/ha.yaml"
	if err := first.Write(ctx, document, 0o600, strings.NewReader(cluster.Document("controlPlane: {endpoint: "+first.IP+"}"))); err != nil {
		t.Fatal(err)
	}
	out := kubewright(ctx, t, first, append([]string{"init", "-o", "json", "--upload-certs", "--config", document}, cluster.Bundle...)...)
	var result struct{ Join, JoinControlPlane string }
	if err := json.Unmarshal([]byte(out), &result); err != nil || !strings.HasPrefix(result.JoinControlPlane, result.Join+" --control-plane --certificate-key ") {
		t.Fatalf("init printed %q: %v", out, err)
	}
	argv := append(strings.Fields(result.JoinControlPlane)[1:], cluster.Bundle...)
	begin := time.Now()
	both(t, func(h *lab.Host) error { return join(ctx, h, argv) }, hosts[1:3]...)
	t.Logf("two joins at once: %.1f s", time.Since(begin).Seconds())
	c, err := cluster.WaitAPI(ctx, first, hosts[1:3])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	voters(ctx, t, hosts[1], "ha-1", "ha-2", "ha-3")
	third := hosts[2]

	t.Run("a second join changes nothing", func(t *testing.T) {
		digests := func() string {
			return run(ctx, t, third, "sh", "-c", "find /etc/kubernetes /var/lib/kubelet/pki /var/lib/kubelet/config.yaml -type f -printf '%p %T@ %s\\n' | sort")
		}
		before := digests()
		if err := join(ctx, third, argv); err != nil {
			t.Fatal(err)
		}
		if after := digests(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
	t.Run("refused", func(t *testing.T) {
		h := hosts[3]
		with := func(flag, value string) []string {
			argv := append([]string{tool}, argv...)
			argv[slices.Index(argv, flag)+1] = value
			return argv
		}
		refused(ctx, t, h, with("--certificate-key", strings.Repeat("0", 64)), "the certificate key is not the one", "kubewright init phase upload-certs --upload-certs")
		refused(ctx, t, h, append(append([]string{tool}, argv...), "--node-name", "ha-2"), "the cluster has a node ha-2 that is Ready", "--node-name")
		keyless := slices.DeleteFunc(append([]string{tool}, argv...), func(a string) bool {
			return a == "--certificate-key" || a == argv[slices.Index(argv, "--certificate-key")+1]
		})
		refused(ctx, t, h, keyless, "neither are they on this host nor was a key", "kubewright init phase upload-certs --upload-certs")
		if left := run(ctx, t, h, "sh", "-c", "find /etc/kubernetes /var/lib/etcd -type f 2>/dev/null || true"); left != "" {
			t.Errorf("the refused joins left:\n%s", left)
		}
	})
	t.Run("one whose member was removed joins anew and keeps its data", func(t *testing.T) {
		id := memberID(ctx, t, first, third.Name)
		etcdctl(ctx, t, first, "member", "remove", id)
		if err := join(ctx, third, argv); err != nil {
			t.Fatal(err)
		}
		voters(ctx, t, third, "ha-1", "ha-2", "ha-3")
		if memberID(ctx, t, first, third.Name) == id {
			t.Error("it is the member of before")
		}
		if names := run(ctx, t, third, "ls", "/var/lib/etcd"); !strings.Contains(names, "member-2") {
			t.Errorf("the data of before are not beside: %s", names)
		}
	})
	t.Run("kubeadm joins as a control plane, with a key of a new upload", func(t *testing.T) {
		key := strings.TrimSpace(kubewright(ctx, t, hosts[1], "init", "phase", "upload-certs", "--upload-certs"))
		theirs := strings.Fields(result.Join)[2:]
		if err := cluster.KubeadmJoin(ctx, hosts[3], append(theirs, "--control-plane", "--certificate-key", key)...); err != nil {
			t.Fatal(err)
		}
		voters(ctx, t, hosts[3], "ha-1", "ha-2", "ha-3", "ha-4")
	})
	c.Workers = hosts[1:]
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Run("verify", func(t *testing.T) { verified(ctx, t, c) })
}

// Ours joins as a control plane the cluster that kubeadm made.
func TestControlPlaneJoinsKubeadms(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 5*time.Minute)
	hosts := preparedHosts(ctx, t, "ka-1", "ka-2")
	explainFailure(t, hosts...)
	const key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	if err := cluster.KubeadmInit(ctx, hosts[0], cluster.KubeadmConfig("controlPlaneEndpoint: "+hosts[0].IP+":6443"), "--upload-certs"); err != nil {
		t.Fatal(err)
	}
	uploaded := run(ctx, t, hosts[0], cluster.KubeadmPath, "init", "phase", "upload-certs", "--upload-certs", "--certificate-key", key)
	out := run(ctx, t, hosts[0], cluster.KubeadmPath, "token", "create", "--print-join-command", "--certificate-key", key)
	if !strings.Contains(out, "--control-plane") {
		t.Fatalf("kubeadm printed %q after %q", out, uploaded)
	}
	argv := append(strings.Fields(out)[1:], cluster.Bundle...)
	c, err := cluster.WaitAPI(ctx, hosts[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	signed := signature(argv[slices.Index(argv, "--token")+1])
	waitClusterInfo(ctx, t, c, "it has a "+signed, func(cm *corev1.ConfigMap) bool { return cm.Data[signed] != "" }) // by a controller manager that has just begun
	if err := join(ctx, hosts[1], argv); err != nil {
		t.Fatal(err)
	}
	voters(ctx, t, hosts[1], "ka-1", "ka-2")
	// Its own API server answers, with a kubeconfig that kubeadm's RBAC knows.
	for _, h := range hosts {
		if got := run(ctx, t, h, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "--server", "https://"+h.IP+":6443", "get", "nodes", "-o", "name"); got != "node/ka-1\nnode/ka-2\n" {
			t.Errorf("%s knows the nodes %q", h.Name, got)
		}
	}
}

func join(ctx context.Context, h *lab.Host, argv []string) error {
	stdout, stderr, err := h.Exec(ctx, nil, append([]string{tool}, argv...)...)
	if err != nil {
		return fmt.Errorf("%w\nstdout: %s\nstderr: %s", err, stdout, stderr)
	}
	return nil
}

// both does the same on several hosts at the same time.
func both(t *testing.T, do func(*lab.Host) error, hosts ...*lab.Host) {
	t.Helper()
	var g errgroup.Group
	for _, h := range hosts {
		g.Go(func() error { return do(h) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// voters wants etcd to consist of these, each started, none a learner, all healthy, as the
// member on that host sees it.
func voters(ctx context.Context, t *testing.T, h *lab.Host, names ...string) {
	t.Helper()
	var got []string
	for _, m := range members(ctx, t, h) {
		if m.IsLearner {
			t.Errorf("%s is a learner", m.Name)
		}
		got = append(got, m.Name)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("etcd consists of %q, want %q", got, names)
	}
	etcdctl(ctx, t, h, "endpoint", "health", "--cluster") // fails if one is not
}

type member struct {
	ID        uint64
	Name      string
	IsLearner bool
}

func members(ctx context.Context, t *testing.T, h *lab.Host) []member {
	t.Helper()
	var list struct{ Members []member }
	out := etcdctl(ctx, t, h, "member", "list", "-w", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("etcdctl printed %q: %v", out, err)
	}
	return list.Members
}

func memberID(ctx context.Context, t *testing.T, h *lab.Host, name string) string {
	t.Helper()
	for _, m := range members(ctx, t, h) {
		if m.Name == name {
			return fmt.Sprintf("%x", m.ID)
		}
	}
	t.Fatalf("etcd has no member %s", name)
	return ""
}

func etcdctl(ctx context.Context, t *testing.T, h *lab.Host, argv ...string) string {
	t.Helper()
	id := strings.TrimSpace(run(ctx, t, h, "crictl", "ps", "--quiet", "--name", "^etcd$"))
	pki := "/etc/kubernetes/pki/etcd/"
	return run(ctx, t, h, append([]string{"crictl", "exec", id, "etcdctl", "--endpoints", "https://127.0.0.1:2379",
		"--cacert", pki + "ca.crt", "--cert", pki + "healthcheck-client.crt", "--key", pki + "healthcheck-client.key"}, argv...)...)
}

// An etcd that somebody else runs: init with it, and a second control plane, which gets its
// files with the other certificates.
func TestExternalEtcd(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 5*time.Minute)
	hosts := preparedHosts(ctx, t, "ext-1", "ext-2")
	explainFailure(t, hosts...)
	document := func(h *lab.Host, extra string) {
		if err := h.Write(ctx, "/root/ext.yaml", 0o600, strings.NewReader(cluster.Document(extra))); err != nil {
			t.Fatal(err)
		}
	}
	// Its certificates are as good as any, and come from elsewhere.
	document(hosts[1], "")
	kubewright(ctx, t, hosts[1], "init", "phase", "certs", "--config", "/root/ext.yaml")
	run(ctx, t, hosts[1], "mv", "/etc/kubernetes/pki", "/srv/pki")
	binary, err := l.Binary(ctx, "etcd")
	if err != nil {
		t.Fatal(err)
	}
	if err := hosts[1].CopyTo(ctx, binary, "/usr/local/bin/etcd"); err != nil {
		t.Fatal(err)
	}
	url := "https://" + hosts[1].IP + ":2379"
	for from, to := range map[string]string{"etcd/ca.crt": "ca.crt", "apiserver-etcd-client.crt": "client.crt", "apiserver-etcd-client.key": "client.key"} {
		content := run(ctx, t, hosts[1], "cat", "/srv/pki/"+from)
		if err := hosts[0].Write(ctx, "/etc/etcd/"+to, 0o600, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	document(hosts[0], "controlPlane: {endpoint: "+hosts[0].IP+"}\netcd: {external: {endpoints: ["+url+"], caFile: /etc/etcd/ca.crt, certFile: /etc/etcd/client.crt, keyFile: /etc/etcd/client.key}}")
	init := append([]string{"init", "-o", "json", "--upload-certs", "--config", "/root/ext.yaml"}, cluster.Bundle...)
	refused(ctx, t, hosts[0], append([]string{tool}, init...), "[ExternalEtcdVersion] etcd at "+url+" does not answer", "spec.etcd.external")

	run(ctx, t, hosts[1], "systemd-run", "--quiet", "--unit", "etcd", "/usr/local/bin/etcd", "--data-dir", "/srv/etcd", "--listen-client-urls", url, "--advertise-client-urls", url,
		"--cert-file", "/srv/pki/etcd/server.crt", "--key-file", "/srv/pki/etcd/server.key", "--trusted-ca-file", "/srv/pki/etcd/ca.crt", "--client-cert-auth")
	run(ctx, t, hosts[1], "timeout", "30", "sh", "-c", "until ss -ltn sport = :2379 | grep -q LISTEN; do :; done")
	out := kubewright(ctx, t, hosts[0], init...)
	var result struct{ JoinControlPlane string }
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("init printed %q: %v", out, err)
	}
	if err := join(ctx, hosts[1], append(strings.Fields(result.JoinControlPlane)[1:], cluster.Bundle...)); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.WaitAPI(ctx, hosts[0], hosts[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNodes(ctx); err != nil {
		t.Error(err)
	}
	for _, h := range hosts {
		if got := run(ctx, t, h, "sh", "-c", "ls /etc/kubernetes/manifests; ls -d /etc/kubernetes/pki/etcd 2>/dev/null || true"); got != "kube-apiserver.yaml\nkube-controller-manager.yaml\nkube-scheduler.yaml\n" {
			t.Errorf("%s has %q", h.Name, got)
		}
	}
}
