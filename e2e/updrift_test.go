package e2e

import (
	"strings"

	"github.com/google/go-cmp/cmp"
)

// drifts are what people and accidents do to the hosts of a cluster, the control plane first.
var drifts = []struct {
	what   string
	host   int    // of the document
	harm   string // a script
	mended string // a script that says nothing where all is well
}{
	{"a changed manifest", 0, "sed -i s/--leader-elect=true/--leader-elect=false/ /etc/kubernetes/manifests/kube-scheduler.yaml", "grep -q -e --leader-elect=true /etc/kubernetes/manifests/kube-scheduler.yaml"},
	{"a missing certificate", 0, "rm /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key", "openssl verify -CAfile /etc/kubernetes/pki/ca.crt /etc/kubernetes/pki/apiserver.crt >/dev/null"},
	{"a deleted binding", 0, "kubectl --kubeconfig /etc/kubernetes/admin.conf delete clusterrolebinding kubeadm:node-proxier", "kubectl --kubeconfig /etc/kubernetes/admin.conf get clusterrolebinding kubeadm:node-proxier >/dev/null"},
	{"a tool that is gone", 1, "rm /usr/local/bin/crictl", "test -x /usr/local/bin/crictl"}, // the first of its host
	{"a stopped container runtime", 1, "systemctl stop containerd", "systemctl is-active --quiet containerd"},
	{"a stopped kubelet", 1, "systemctl stop kubelet", "systemctl is-active --quiet kubelet"},
	{"a missing serving certificate", 1, "rm /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key", "openssl verify -CAfile /etc/kubernetes/pki/ca.crt /var/lib/kubelet/pki/kubelet.crt >/dev/null"},
	{"a deleted load balancer", 1, "rm /etc/kubernetes/manifests/kube-haproxy.yaml", "test -s /etc/kubernetes/manifests/kube-haproxy.yaml"},
	{"other sysctls", 1, "echo net.ipv4.ip_forward = 0 > " + sysctls, "grep -q 'ip_forward = 1' " + sysctls},
	{"a lost line", 1, "grep -v kubewright /etc/hosts > /root/hosts; cat /root/hosts > /etc/hosts", "grep -q 127.0.0.1.prod.kubewright.internal /etc/hosts"},
}

// driftIsMended wants status and plan to see it, up to do what the plan says, and all of it to be
// gone. A plan that is older than the last of it is refused.
func (s *site) driftIsMended() {
	broken := func(i int) {
		run(s.ctx, s.t, s.members[drifts[i].host].Host, "sh", "-ec", drifts[i].harm)
	}
	last := len(drifts) - 1
	for i := range last {
		broken(i)
		if drifts[i].what == "a tool that is gone" {
			if h := s.status(1)["up-2"]; h.Well() || (h.Drift == nil || *h.Drift == 0) && !strings.Contains(h.Error, "crictl") { // where no cache has it, that is said instead
				s.t.Errorf("status does not miss a tool: %+v", h)
			}
		}
	}
	for name, h := range s.status(1) {
		if h.Drift == nil || *h.Drift == 0 || h.Well() {
			s.t.Errorf("status of %s: %+v", name, h)
		}
	}
	_, early := s.plan()
	broken(last)
	before := s.now()
	planned, plan := s.plan()
	s.refuses(early, "up-2 is no longer as it was")
	s.refuses(strings.Replace(plan, "leader-elect=true", "leader-elect=maybe", 1), "somebody has changed the plan")
	restore := s.edited("cluster.yaml", "roles: [worker]", "roles: [worker]\n    labels: {rack: b}")
	s.refuses(plan, "the document is another one")
	restore()
	if diff := cmp.Diff(before, s.now(), cmp.AllowUnexported(moment{})); diff != "" {
		s.t.Errorf("plans that were refused have changed something:\n%s", diff)
	}
	s.up(0, "--plan", s.file("plan.json", plan))
	s.asPlanned(planned, s.since(before))
	for _, d := range drifts {
		if _, stderr, err := s.members[d.host].Exec(s.ctx, nil, "sh", "-ec", d.mended); err != nil {
			s.t.Errorf("%s is not mended: %v %s", d.what, err, stderr)
		}
	}
	if err := s.cluster().WaitReady(s.ctx); err != nil {
		s.t.Error(err)
	}
	s.nothing()
	s.well()
}

// refuses wants up not to follow a plan, and to say why.
func (s *site) refuses(plan, why string) {
	s.t.Helper()
	_, said := s.do(3, "up", "--bundle", s.Bundle, "--plan", s.file("stale.json", plan))
	if !strings.Contains(said, why) || !strings.Contains(said, "make a new one with `kubewright plan`") {
		s.t.Errorf("a plan was refused with %s, not as %s", errorsOf(said), why)
	}
}
