package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// Hosts that something is wrong with, one mishap after the other on the same host. Each gives
// an error that says what to do next, with the exit code that the help tells; then it is
// mended, and what comes next finds a host as it was.
func TestBadHosts(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 5*time.Minute)
	h := hosts(ctx, t, lab.HostOptions{}, "bad")[0]
	const document = "/root/cluster.yaml"
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := h.Write(ctx, path, 0o600, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, document, cluster.Document(""))
	init := append([]string{tool, "init", "--config", document}, cluster.Bundle...)
	phase := func(name string) []string {
		return append([]string{tool, "init", "phase", name, "--config", document}, cluster.Bundle...)
	}
	run(ctx, t, h, append(init, "--dry-run")...)
	before := listing(ctx, t, h)
	sh := func(t *testing.T, script string) string {
		t.Helper()
		return run(ctx, t, h, "sh", "-c", script)
	}

	t.Run("a service range that is too small", func(t *testing.T) {
		write(t, "/root/small.yaml", cluster.Document("network: {serviceCIDR: 10.96.0.0/30}"))
		refusedWith(ctx, t, h, 2, append([]string{tool, "init", "--config", "/root/small.yaml"}, cluster.Bundle...), "spec.network.serviceCIDR: 10.96.0.0/30 holds fewer than 16 addresses: write a larger range")
	})
	t.Run("swap", func(t *testing.T) {
		// Swap is the whole machine's: this host is shown a file of ours in place of the kernel's.
		sh(t, `printf 'Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1048572 0 -2\n' > /tmp/swaps && mount --bind /tmp/swaps /proc/swaps`)
		defer sh(t, "umount /proc/swaps")
		write(t, "/root/swap.yaml", strings.Replace(cluster.Document(""), "failSwapOn: false", "", 1))
		refusedWith(ctx, t, h, 3, append([]string{tool, "init", "--config", "/root/swap.yaml"}, cluster.Bundle...), "[Swap] swap is on", "swapoff -a", "failSwapOn: false")
	})
	t.Run("a read-only /etc", func(t *testing.T) {
		sh(t, "mount --bind /etc /etc && mount -o remount,bind,ro /etc")
		defer sh(t, "umount /etc")
		refusedWith(ctx, t, h, 3, init, "[Writable--etc] /etc cannot be written to", "findmnt --target /etc")
		refusedWith(ctx, t, h, 1, append(phase("certs"), "--ignore-preflight-errors=all"), "write /etc/kubernetes/pki/ca.key", "read-only file system")
	})
	t.Run("a corrupt certificate", func(t *testing.T) {
		sh(t, "mkdir -p /etc/kubernetes/pki && echo nonsense > /etc/kubernetes/pki/ca.crt")
		defer sh(t, "rm -r /etc/kubernetes")
		refusedWith(ctx, t, h, 1, init, "/etc/kubernetes/pki/ca.crt is not a PEM certificate", "restore it from another control plane or a backup, or remove it")
	})
	t.Run("a certificate that another CA signed", func(t *testing.T) {
		defer sh(t, tool+" reset --yes; rm -rf /etc/kubernetes")
		run(ctx, t, h, phase("certs")...)
		sh(t, "mv /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key /tmp && rm -r /etc/kubernetes/pki")
		run(ctx, t, h, phase("certs")...)
		sh(t, "mv /tmp/apiserver.crt /tmp/apiserver.key /etc/kubernetes/pki/")
		sums := sh(t, "sha256sum /etc/kubernetes/pki/*.*")
		refusedWith(ctx, t, h, 1, init, "/etc/kubernetes/pki/apiserver.crt is not signed by /etc/kubernetes/pki/ca.crt", "restore the right one, or remove it and it is made")
		if now := sh(t, "sha256sum /etc/kubernetes/pki/*.*"); now != sums {
			t.Errorf("before:\n%safter:\n%s", sums, now)
		}
	})
	t.Run("a disk that is full in the middle", func(t *testing.T) {
		defer sh(t, tool+" reset --yes")
		sh(t, "mount -t tmpfs -o size=60m tmpfs /usr/local/bin")
		refusedWith(ctx, t, h, 1, init, "no space left on device", "make room and run the same command again")
		if left := sh(t, "find /usr/local/bin -name '.*'; for f in /usr/local/bin/*; do $f --version >/dev/null || echo half a $f; done"); left != "" {
			t.Errorf("it left %s", left)
		}
		sh(t, "mount -o remount,size=1g /usr/local/bin")
		run(ctx, t, h, phase("install")...)
		sh(t, "umount /usr/local/bin")
	})
	t.Run("a stale lock", func(t *testing.T) {
		sh(t, `mkdir -p /run/kubewright; printf '{"run":"1-1","command":"init","pid":4000000,"started":"1","boot":"%s","since":"2026-01-01T00:00:00Z","renewed":1}' "$(cat /proc/sys/kernel/random/boot_id)" > /run/kubewright/lock`)
		run(ctx, t, h, phase("preflight")...)
	})
	t.Run("two runs at once", func(t *testing.T) {
		// This one waits for a cluster that will never answer.
		first := h.Command(ctx, nil, append([]string{"timeout", "60"}, append([]string{tool, "join", "127.0.0.1:1", "--token", "abcdef.0123456789abcdef", "--discovery-token-unsafe-skip-ca-verification",
			"--skip-phases", "install,runtime,wait-runtime,images"}, cluster.Bundle...)...)...)
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		sh(t, "timeout 30 sh -c 'until grep -q join /run/kubewright/lock; do :; done'")
		refusedWith(ctx, t, h, 4, init, "another run is at work on this host: kubewright join, process ", "wait until it ends, or end it with `kill ")
		sh(t, "pkill -KILL -x kubewright")
		first.Wait()                          // it was killed
		run(ctx, t, h, phase("preflight")...) // at once: its process has ended
	})
	t.Run("a journal whose end is cut off, in the middle of a line", func(t *testing.T) {
		run(ctx, t, h, phase("ledger")...)
		run(ctx, t, h, phase("kernel")...)
		run(ctx, t, h, phase("install")...)
		sh(t, "truncate -s $(($(stat -c %s /var/lib/kubewright/journal) - 1000)) /var/lib/kubewright/journal")
		run(ctx, t, h, phase("install")...)
		_, stderr, err := h.Exec(ctx, nil, tool, "reset", "--yes")
		if err != nil || !strings.Contains(stderr, "of /var/lib/kubewright/journal cannot be read") {
			t.Errorf("%v: reset says:\n%s", err, stderr)
		}
		for f := range strings.Lines(stderr) { // as it says, by hand
			if _, path, ok := strings.Cut(strings.TrimSpace(f), "kept: "); ok {
				path, _, _ = strings.Cut(path, " ")
				sh(t, "rm -rf "+strings.TrimSuffix(path, ","))
			}
		}
		sh(t, "rmdir /etc/systemd/system/kubelet.service.d; systemctl daemon-reload")
	})
	if after := listing(ctx, t, h); after != before {
		write(t, "/root/before", before)
		write(t, "/root/after", after)
		t.Errorf("the mishaps left something, - before, + after:\n%s", sh(t, "diff /root/before /root/after; true"))
	}
}

// refusedWith is refused, and wants that exit code.
func refusedWith(ctx context.Context, t *testing.T, h *lab.Host, code int, argv []string, parts ...string) {
	t.Helper()
	refused(ctx, t, h, argv, parts...)
	_, stderr, err := h.Exec(ctx, nil, argv...)
	var exit *lab.ExitError
	if !errors.As(err, &exit) || exit.Code != code {
		t.Errorf("%v, want exit code %d: %s", err, code, stderr)
	}
}

// A join that loses the API server in the middle ends within its limits, says so, and is
// finished by the next.
func unreachableInTheMiddle(ctx context.Context, t *testing.T, c *cluster.Cluster, worker *lab.Host) {
	argv := joinArgv(ctx, t, c.ControlPlane)
	config := fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {apiServerEndpoint: %q, token: %q, caCertHashes: [%q]}}
timeouts: {kubernetesAPICall: 3s, tlsBootstrap: 3s, discovery: 20s}
`, argv[4], argv[6], argv[8])
	if err := worker.Write(ctx, "/root/join.yaml", 0o600, strings.NewReader(config)); err != nil {
		t.Fatal(err)
	}
	join := append([]string{tool, "join", "-o", "json", "--config", "/root/join.yaml"}, cluster.Bundle...)
	rule := "OUTPUT -p tcp --dport 6443 -j DROP"
	const script = `rule=$1; shift; "$@" 2>&1 >/dev/null | while IFS= read -r line; do
		case $line in *'"phase":"discovery","state":"unchanged"'*) iptables -A $rule;; *'"kind":"Error"'*) printf '%s\n' "$line";; esac; done`
	said := run(ctx, t, worker, append([]string{"bash", "-c", script, "cut", rule}, join...)...)
	run(ctx, t, worker, append([]string{"iptables", "-D"}, strings.Fields(rule)...)...)
	if !strings.Contains(said, `"exitCode":1`) || !strings.Contains(said, "did not answer within 3s") || !strings.Contains(said, "run the same command again") {
		t.Errorf("join said %q", said)
	}
	planned := plannedOn(ctx, t, worker, join[1:]...)
	had := doneOn(ctx, t, worker)
	run(ctx, t, worker, join...)
	done := doneOn(ctx, t, worker)
	for step := range had {
		delete(done, step)
	}
	if diff := cmp.Diff(planned, done); diff != "" {
		t.Errorf("a join goes on, - as planned, + as done:\n%s", diff)
	}
}
