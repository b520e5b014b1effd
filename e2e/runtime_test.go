package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// TestSomebodyElsesContainerdIsUsedAndNeverReplaced takes the sign of our own off a running
// containerd, and breaks what preflight has to find in its configuration.
func TestSomebodyElsesContainerdIsUsedAndNeverReplaced(t *testing.T) {
	t.Parallel()
	ctx, _ := needLab(t, 5*time.Minute)
	h := preparedHosts(ctx, t, "theirs")[0]
	const unit, conf = "/etc/systemd/system/containerd.service", "/etc/containerd/config.toml"
	run(ctx, t, h, "sed", "-i", "1d", unit)
	if err := h.Write(ctx, conf, 0o644, strings.NewReader(`version = 3
imports = ['/etc/containerd/conf.d/*.toml']
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
`)); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, h, "systemctl", "daemon-reload")
	run(ctx, t, h, "systemctl", "restart", "containerd")
	if err := h.Write(ctx, "/root/mine.yaml", 0o644, strings.NewReader(cluster.Document(""))); err != nil {
		t.Fatal(err)
	}
	phase := func(name string) []string {
		return []string{tool, "init", "phase", name, "--config", "/root/mine.yaml", "--bundle", lab.BundleDir}
	}
	refused(ctx, t, h, phase("preflight"), `[CNI] containerd looks for CNI plugins in /usr/lib/cni, and they come to /opt/cni/bin: set bin_dir = "/opt/cni/bin"`)

	run(ctx, t, h, "sed", "-i", "s#/usr/lib/cni#/opt/cni/bin#", conf)
	run(ctx, t, h, "systemctl", "restart", "containerd")
	sums := func() string {
		return run(ctx, t, h, "sh", "-c", "sha256sum "+unit+" "+conf+" /usr/local/bin/containerd; systemctl show --property MainPID containerd")
	}
	before := sums()
	for _, name := range []string{"preflight", "install", "runtime", "images"} {
		run(ctx, t, h, phase(name)...)
	}
	if after := sums(); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}
