package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

const newCommand = "kubewright token create --print-join-command"

// refusedJoins tries what users get wrong, on a host that could join. Each is refused with
// the next step, and leaves nothing that a later join, kubeadm's even, would stumble over.
func refusedJoins(ctx context.Context, t *testing.T, c *cluster.Cluster, h *lab.Host) {
	cp := c.ControlPlane
	good := append([]string{tool}, strings.Fields(kubewright(ctx, t, cp, "token", "create", "--print-join-command"))[1:]...)
	with := func(flag, value string) []string {
		argv := slices.Clone(good)
		argv[slices.Index(argv, flag)+1] = value
		return argv
	}
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(kubewright(ctx, t, cp, append([]string{"token", "create"}, args...)...))
	}
	unsigned := func(token string) {
		t.Helper()
		key := signature(token)
		waitClusterInfo(ctx, t, c, "it has no "+key, func(cm *corev1.ConfigMap) bool { return cm.Data[key] == "" })
	}

	t.Run("by a token that has expired", func(t *testing.T) {
		expired := token("--ttl", "8s") // on a busy machine it takes a while until it signs
		unsigned(expired)
		refused(ctx, t, h, with("--token", expired), "cluster-info is not signed by token "+expired[:6], "expired", newCommand)
	})
	t.Run("by a token that was deleted", func(t *testing.T) {
		deleted := token()
		kubewright(ctx, t, cp, "token", "delete", deleted)
		unsigned(deleted)
		refused(ctx, t, h, with("--token", deleted), "cluster-info is not signed by token "+deleted[:6], "deleted", newCommand)
	})
	t.Run("by a token that may sign but not log in", func(t *testing.T) {
		signing := token("--usages", "signing")
		refused(ctx, t, h, with("--token", signing), "does not accept the token "+signing[:6], newCommand)
	})
	t.Run("by a token with a mistyped secret", func(t *testing.T) {
		mistyped := good[slices.Index(good, "--token")+1][:7] + "0123456789abcdef"
		refused(ctx, t, h, with("--token", mistyped), "the signature of cluster-info does not match token "+mistyped[:6], newCommand)
	})
	t.Run("by the pin of another cluster", func(t *testing.T) {
		other := "sha256:" + strings.Repeat("0", 64)
		refused(ctx, t, h, with("--discovery-token-ca-cert-hash", other), "the cluster's CA is not the pinned one", other, "take the pin from the join command of this very cluster")
	})
	t.Run("without a pin", func(t *testing.T) {
		refused(ctx, t, h, good[:slices.Index(good, "--discovery-token-ca-cert-hash")], "--discovery-token-ca-cert-hash", newCommand)
	})
	t.Run("on a host whose port 10250 is in use", func(t *testing.T) {
		listen(ctx, t, h, "10250")
		refused(ctx, t, h, good, "[Port-10250] port 10250 is in use", "ss -ltnp sport = :10250", "--ignore-preflight-errors")
	})
	t.Run("on a host that trusts another cluster", func(t *testing.T) {
		const ca = "/etc/kubernetes/pki/ca.crt"
		if err := h.Write(ctx, ca, 0o644, strings.NewReader("the CA of somebody else")); err != nil {
			t.Fatal(err)
		}
		refused(ctx, t, h, good, "[FileAvailable--etc-kubernetes-pki-ca.crt] this host belongs to another cluster", "kubewright reset")
		if got := run(ctx, t, h, "cat", ca); got != "the CA of somebody else" {
			t.Errorf("it overwrote %s with %q", ca, got)
		}
		run(ctx, t, h, "rm", ca)
	})
	t.Run("under the name of a node that is Ready", func(t *testing.T) {
		name := c.Workers[0].Name
		refused(ctx, t, h, append(slices.Clone(good), "--node-name", name), "the cluster has a node "+name+" that is Ready", "--node-name", "kubectl delete node "+name)
	})
	t.Run("on the control plane", func(t *testing.T) {
		refused(ctx, t, cp, good, "this host is a control plane already", "kubewright reset")
	})
	if left := run(ctx, t, h, "sh", "-c", "find /etc/kubernetes -type f; systemctl is-active kubelet || true"); left != "inactive\n" {
		t.Errorf("the refused joins left:\n%s", left)
	}
	t.Run("not on a worker that did so already", func(t *testing.T) {
		out := kubewright(ctx, t, c.Workers[0], good[1:]...)
		if !strings.Contains(out, c.Workers[0].Name+" is a node of the cluster") {
			t.Errorf("it printed %q", out)
		}
	})
}

// signature is the key in cluster-info of a token's signature.
func signature(token string) string { return "jws-kubeconfig-" + token[:6] }

// listen takes a port of a host until the test ends.
func listen(ctx context.Context, t *testing.T, h *lab.Host, port string) {
	t.Helper()
	unit := "squatter-" + port
	run(ctx, t, h, "systemd-run", "--quiet", "--unit", unit, "socat", "TCP-LISTEN:"+port+",fork,reuseaddr", "OPEN:/dev/null")
	t.Cleanup(func() { run(context.WithoutCancel(ctx), t, h, "systemctl", "stop", unit) })
	run(ctx, t, h, "timeout", "10", "sh", "-c", "until ss -ltn sport = :"+port+" | grep -q LISTEN; do :; done")
}

// tamperedClusterInfo changes what cluster-info says, as somebody on the way could. The
// controller manager would sign the change within milliseconds, so it is held meanwhile.
func tamperedClusterInfo(ctx context.Context, t *testing.T, c *cluster.Cluster, h *lab.Host) {
	argv := append([]string{tool}, strings.Fields(kubewright(ctx, t, c.ControlPlane, "token", "create", "--print-join-command"))[1:]...)
	run(ctx, t, c.ControlPlane, "pkill", "-STOP", "kube-controller")
	defer run(ctx, t, c.ControlPlane, "pkill", "-CONT", "kube-controller")
	maps := c.Client.CoreV1().ConfigMaps("kube-public")
	replace := func(old, new string) {
		t.Helper()
		info, err := maps.Get(ctx, "cluster-info", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		info.Data["kubeconfig"] = strings.Replace(info.Data["kubeconfig"], old, new, 1)
		if _, err := maps.Update(ctx, info, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	replace(c.ControlPlane.IP, h.IP)
	defer replace(h.IP, c.ControlPlane.IP)
	refused(ctx, t, h, argv, "the signature of cluster-info does not match token", "has changed the answer", newCommand)
}
