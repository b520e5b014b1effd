package verify

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubewright/kubewright/verify/probe"
)

// pair is the two probes of a node, one in the pod network and one in the node's own. The
// functions wait until it runs; every caller gets the same answer.
type pair struct {
	node node
	pod  func() (*corev1.Pod, error)
	host func() (*corev1.Pod, error)
	etcd *probe.Etcd // how the API server of this node reaches etcd, as host can too; nil where none runs here
}

// startProbes makes a pair for every node, also for those that are tainted, cordoned or not
// ready: pods that are bound to a node need no scheduler.
func (c *Cluster) startProbes(ctx context.Context) ([]*pair, error) {
	ns, err := c.home()
	if err != nil {
		return nil, err
	}
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	var pairs []*pair
	for i, n := range c.nodes {
		start := func(p *corev1.Pod) func() (*corev1.Pod, error) {
			created := c.createPod(ctx, ns, p)
			return sync.OnceValues(func() (*corev1.Pod, error) {
				if created != nil {
					return nil, fmt.Errorf("node %s: %w", n.name, created)
				}
				running, err := c.awaitPod(ctx, ns, p.Name)
				if err != nil {
					return nil, fmt.Errorf("node %s: no probe: %w", n.name, err)
				}
				return running, nil
			})
		}
		host := c.pod(fmt.Sprintf("host-%d", i), n.name, "wait")
		host.Spec.HostNetwork = true
		host.Spec.DNSPolicy = corev1.DNSDefault // the node's own resolvers
		etcd := servers[n.name]
		if etcd != nil {
			for j, file := range []string{etcd.CA, etcd.Cert, etcd.Key} {
				mountFile(host, fmt.Sprintf("etcd-%d", j), file)
			}
		}
		pairs = append(pairs, &pair{n, start(c.pod(fmt.Sprintf("pod-%d", i), n.name, "serve")), start(host), etcd})
	}
	return pairs, nil
}

// apiServers tells for each node with a static pod of an API server how that reaches etcd.
func (c *Cluster) apiServers(ctx context.Context) (map[string]*probe.Etcd, error) {
	list, err := c.staticPods(ctx, "kube-apiserver", func(n node) bool { _, is := n.is.Labels[controlPlane]; return is })
	all := map[string]*probe.Etcd{}
	for _, p := range list {
		if e := etcdOf(&p); e != nil {
			all[p.Spec.NodeName] = e
		}
	}
	return all, err
}

// staticPods are those of a component of the control plane. A kubelet may show a static pod late, when the API server did
// not take it at first: those wanted on nodes that are new are waited for.
func (c *Cluster) staticPods(ctx context.Context, component string, wanted func(node) bool) (pods []corev1.Pod, err error) {
	until(ctx, 2*newFor, func(ctx context.Context) error {
		list, failed := c.client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=" + component + ",tier=control-plane"})
		if failed != nil {
			err = fmt.Errorf("list pods of %s: %w", component, failed)
			return nil
		}
		pods = list.Items
		for _, n := range c.nodes {
			if wanted(n) && time.Since(n.came()) < newFor && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == n.name }) {
				return fmt.Errorf("node %s shows no %s yet", n.name, component)
			}
		}
		return nil
	})
	return pods, err
}

// newFor is for how long a node is new. Kubelets try again after a minute, or one and a half.
const newFor = 2 * time.Minute

// came is when a node was made, or last became ready.
func (n node) came() time.Time {
	at := n.is.CreationTimestamp.Time
	for _, cond := range n.is.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.LastTransitionTime.After(at) {
			at = cond.LastTransitionTime.Time
		}
	}
	return at
}

// etcdOf reads the flags of an API server; nil where they don't say enough.
func etcdOf(p *corev1.Pod) *probe.Etcd {
	flags := map[string]string{}
	for _, c := range p.Spec.Containers {
		for _, arg := range append(c.Command, c.Args...) {
			if name, value, ok := strings.Cut(arg, "="); ok {
				flags[name] = value
			}
		}
	}
	e := &probe.Etcd{CA: flags["--etcd-cafile"], Cert: flags["--etcd-certfile"], Key: flags["--etcd-keyfile"]}
	for _, file := range []string{e.CA, e.Cert, e.Key} {
		if !path.IsAbs(file) {
			return nil
		}
	}
	if flags["--etcd-servers"] == "" {
		return nil
	}
	e.Endpoints = strings.Split(flags["--etcd-servers"], ",")
	return e
}

// mountFile shows a pod a file of its node, at the same path. It is never made.
func mountFile(p *corev1.Pod, name, file string) {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: file, Type: ptr.To(corev1.HostPathFile)}}})
	at := &p.Spec.Containers[0]
	at.VolumeMounts = append(at.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: file, ReadOnly: true})
}

// startBackends makes two pods that serve, with the label app=backend, on the first and on the last node.
func (c *Cluster) startBackends(ctx context.Context) ([]*corev1.Pod, error) {
	ns, err := c.home()
	if err != nil {
		return nil, err
	}
	nodes := []node{c.nodes[0], c.nodes[len(c.nodes)-1]}
	for i, n := range nodes {
		p := c.pod(fmt.Sprintf("backend-%d", i), n.name, "serve")
		p.Labels = map[string]string{"app": "backend", "backend": p.Name}
		if err := c.createPod(ctx, ns, p); err != nil {
			return nil, err
		}
	}
	var pods []*corev1.Pod
	for i := range nodes {
		p, err := c.awaitPod(ctx, ns, fmt.Sprintf("backend-%d", i))
		if err != nil {
			return nil, err
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// onEveryNode calls f with the probes of each node.
func (c *Cluster) onEveryNode(f func(*pair) error) error {
	probes, err := c.probes()
	if err != nil {
		return err
	}
	return onEach(probes, f)
}

// lastProbe is the pod of the last node, which is a worker where there is one.
func (c *Cluster) lastProbe() (*corev1.Pod, error) {
	probes, err := c.probes()
	if err != nil {
		return nil, err
	}
	return probes[len(probes)-1].pod()
}

// call gets URLs from a pod until one of these pods has answered at each.
func (c *Cluster) call(ctx context.Context, from *corev1.Pod, by []*corev1.Pod, urls ...string) error {
	return c.get(ctx, from, probe.Get{URLs: urls, By: podNames(by), Within: rulesLimit})
}

// get fetches URLs from a pod, and says what is not as wanted in one line.
func (c *Cluster) get(ctx context.Context, from *corev1.Pod, g probe.Get) error {
	got, err := ask[[]probe.Got](ctx, c, from, "get", g)
	if err != nil {
		return err
	}
	return judgeGot(got)
}

func judgeGot(got []probe.Got) error {
	var errs []error
	for _, x := range got {
		if x.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", x.URL, x.Error))
		}
	}
	if len(errs) > 1 {
		return fmt.Errorf("%d of %d URLs fail, the first is %w", len(errs), len(got), errs[0])
	}
	return lines(errs...)
}

func podNames(pods []*corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}

// calls fetches a URL from a pod so often, and counts who answered.
func (c *Cluster) calls(ctx context.Context, from *corev1.Pod, url string, by []*corev1.Pod, times int) (map[string]int, error) {
	got, err := ask[[]probe.Got](ctx, c, from, "get", probe.Get{URLs: []string{url}, By: podNames(by), Times: times, Within: rulesLimit})
	if err != nil {
		return nil, err
	}
	return got[0].By, judgeGot(got)
}
