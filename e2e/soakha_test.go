package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestSoakHA is TestUpHA with all of its combinations: each control plane is cut off and killed until the
// cluster takes its node for lost; a flag of etcd is changed; kubeadm joins a fourth control plane.
func TestSoakHA(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of a quarter of an hour: run it with make soak")
	}
	ctx, l := needLab(t, 40*time.Minute)
	begin := time.Now()
	hosts := preparedHosts(ctx, t, "steady-1", "steady-2", "steady-3", "steady-w1", "steady-w2", "steady-4")
	f := newFleet(ctx, t, l, "steady", hosts...)
	planes, workers, fourth := hosts[:3], hosts[3:5], hosts[5]
	f.step("three control planes and two workers", func(t *testing.T) {
		f.write(t, planes, workers...)
		f.up(t)
		f.voters(t, planes...)
	})
	w := f.witness()
	for _, h := range planes {
		for name, way := range map[string][2]func(context.Context) error{"cut off": {h.CutOff, h.Reconnect}, "killed": {h.Kill, h.Start}} {
			f.step(h.Name+" is "+name, func(t *testing.T) {
				f.lose(t, h, way[0])
				f.until(t, "the node "+h.Name+" is lost", func() error { return f.is(h, corev1.ConditionUnknown) })
				f.renewed(t, time.Now())
				f.bringBack(t, way[1])
			})
		}
	}
	f.step("a flag of etcd is changed", func(t *testing.T) {
		p := f.prober(t)
		f.spec = "etcd: {extraArgs: [{name: max-snapshots, value: '4'}]}"
		f.write(t, planes, workers...)
		f.up(t)
		p.end(t, "members of etcd", "API servers") // each has its own etcd, and is not ready without
	})
	w.end()
	f.step("kubeadm joins a control plane", func(t *testing.T) {
		key := strings.TrimSpace(run(ctx, t, planes[1], tool, "init", "phase", "upload-certs", "--upload-certs"))
		f.kubeadmJoins(t, fourth, "--control-plane", "--certificate-key", key)
		f.voters(t, hosts[0], hosts[1], hosts[2], fourth)
	})
	t.Logf("soak: three control planes cut off and killed, in %s", time.Since(begin).Round(time.Second))
}
