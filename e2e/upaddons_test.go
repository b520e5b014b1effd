package e2e

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// withAddons is a line of a document's spec.
const withAddons = "addons: {metricsServer: true, localPath: true}"

const claim = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`

// podWith is a pod that does something with the claim's volume, and ends.
func podWith(name, command string) string {
	return `
---
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "` + lab.ProbeImage + `", command: [sh, -c, "` + command + `"], volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`
}

// addons wants a claim to be bound, its data to outlive the pod that wrote them and to go with the
// claim, and metrics of each node from kubelets that show a certificate of the cluster.
func (s *site) addons() {
	cp := s.members[0].Host
	kubectl := func(input string, argv ...string) string {
		s.t.Helper()
		out, stderr, err := cp.Exec(s.ctx, strings.NewReader(input), append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, argv...)...)
		if err != nil {
			s.t.Fatalf("kubectl %s: %v: %s", strings.Join(argv, " "), err, stderr)
		}
		return out
	}
	ended := func(pod string) {
		s.t.Helper()
		kubectl("", "wait", "pod/"+pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
	}
	kubectl(claim+podWith("writes", "echo kept > /data/file"), "apply", "-f", "-")
	ended("writes")
	kubectl("", "delete", "pod", "writes")
	kubectl(podWith("reads", "cat /data/file"), "apply", "-f", "-")
	ended("reads")
	if out := kubectl("", "logs", "reads"); out != "kept\n" {
		s.t.Errorf("the volume holds %q", out)
	}
	volume := strings.TrimSpace(kubectl("", "get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"))
	kubectl("", "delete", "pod/reads", "pvc/data")
	kubectl("", "wait", "pv/"+volume, "--for=delete", "--timeout=60s")
	if left := s.everywhere("ls -A /opt/local-path-provisioner 2>/dev/null; true"); left != "" {
		s.t.Errorf("the claim is gone, and left %s", left)
	}
	for _, m := range s.members {
		out := run(s.ctx, s.t, cp, "timeout", "90", "sh", "-c", `until kubectl --kubeconfig /etc/kubernetes/admin.conf top node "$0" --no-headers 2>/tmp/top; do sleep 0.2; done`, m.Name)
		if !strings.HasPrefix(out, m.Name) {
			s.t.Errorf("kubectl top node says %q", out)
		}
	}
	if argv := kubectl("", "-n", "kube-system", "get", "deploy", "metrics-server", "-o", "jsonpath={.spec.template.spec.containers[0].args}"); strings.Contains(argv, "insecure") {
		s.t.Errorf("kubelets may show any certificate: %s", argv)
	}
}

// addons has those that cannot run here in the API, once, and not for longer than they are wanted.
func (n *networks) addons() {
	const none, some = "network: {podCIDR: 10.244.0.0/16, cni: {name: none}}", "addons: {ingress: traefik, defaultDeny: [shop], cloudController: {name: aws}, ebsCSI: true}\n"
	c, err := config.Parse([]byte(cluster.Document(some + none)))
	if err != nil {
		n.Fatal(err)
	}
	c.Default(config.Versions{})
	wished, err := addons.Extras(c)
	if err != nil {
		n.Fatal(err)
	}
	argv := n.write("addons", some+none)
	argv[3] = "addon/extras"
	run(n.ctx, n.T, n.host, argv...)
	n.there(wished)
	if _, said, err := n.host.Exec(n.ctx, nil, argv...); err != nil || !strings.Contains(said, `"phase":"addon/extras","state":"unchanged"`) {
		n.Errorf("the second time: %v, %s", err, said)
	}
	// Whoever wants a load balancer, and says no more, gets one for a network.
	run(n.ctx, n.T, n.host, "timeout", "30", "sh", "-c", `until kubectl --kubeconfig /etc/kubernetes/admin.conf create service loadbalancer shop --tcp=80 --dry-run=server -o yaml |
		grep -q 'service.beta.kubernetes.io/aws-load-balancer-type: nlb'; do sleep 0.2; done`)
	n.write("addons", none)
	run(n.ctx, n.T, n.host, argv...)
	for _, o := range wished {
		if _, err := n.get(o); apierrors.IsNotFound(err) == (o.GetKind() == "Namespace") {
			n.Errorf("%s is not wanted any more: %v", addons.Identity(o), err)
		}
	}
}
