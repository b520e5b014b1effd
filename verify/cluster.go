package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubewright/kubewright/apiclient"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubewright/kubewright/verify/probe"
)

// Label is on every namespace that a run makes, with the value "true".
const Label = "kubewright.dev/verify"

// runLabel tells the namespaces of this run from those that others left.
const runLabel = "kubewright.dev/verify-run"

// Cluster is what checks act on.
type Cluster struct {
	config *rest.Config
	client apiclient.Interface
	image  string
	nodes  []node // control planes first: the last is a worker where there is one
	run    string // value of runLabel

	hosts    map[string]Runner
	contexts func(context.Context, []byte) (string, error)
	file     []byte // the kubeconfig

	// What several checks look at is made by whichever asks first.
	home      func() (string, error)                 // the namespace of all that needs none of its own
	servers   func() (map[string]*probe.Etcd, error) // how the API server of a node reaches etcd
	probes    func() ([]*pair, error)
	backends  func() ([]*corev1.Pod, error)
	etcd      func() (probe.EtcdState, error)
	composed  func() (*corev1.Pod, error)
	readiness func() (string, error)
	liveness  func() (revival, error)
}

// share has each of these made once. ctx is that of the run.
func (c *Cluster) share(ctx context.Context) {
	c.home = sync.OnceValues(func() (string, error) { return c.namespace(ctx, "pods") })
	c.servers = sync.OnceValues(func() (map[string]*probe.Etcd, error) { return c.apiServers(ctx) })
	c.probes = sync.OnceValues(func() ([]*pair, error) { return c.startProbes(ctx) })
	c.backends = sync.OnceValues(func() ([]*corev1.Pod, error) { return c.startBackends(ctx) })
	c.etcd = sync.OnceValues(func() (probe.EtcdState, error) { return c.askEtcd(ctx) })
	c.composed = sync.OnceValues(func() (*corev1.Pod, error) { return c.compose(ctx) })
	c.readiness = sync.OnceValues(func() (string, error) { return c.tryReadiness(ctx) })
	c.liveness = sync.OnceValues(func() (revival, error) { return c.tryLiveness(ctx) })
}

// controlPlane is the label, and the key of the taint, of control planes.
const controlPlane = "node-role.kubernetes.io/control-plane"

// node is a Linux node of the cluster.
type node struct {
	name string
	ip   string // the first InternalIP
	is   corev1.Node
}

// connect also finds the nodes.
func connect(ctx context.Context, kubeconfig []byte) (*Cluster, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// Many checks ask at once; the API server has its own fairness.
	config.QPS, config.Burst = 200, 400
	client, err := apiclient.New(config, nil)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	c := &Cluster{config: config, client: client, run: rand.String(8), file: kubeconfig}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: corev1.LabelOSStable + "=linux"})
	if err != nil {
		return nil, fmt.Errorf("list nodes at %s: %w", config.Host, err)
	}
	var planes, workers []node
	for _, n := range list.Items {
		i := slices.IndexFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
		if i < 0 {
			return nil, fmt.Errorf("node %s has no InternalIP in its status", n.Name)
		}
		to := &workers
		if _, ok := n.Labels[controlPlane]; ok {
			to = &planes
		}
		*to = append(*to, node{n.Name, n.Status.Addresses[i].Address, n})
	}
	c.nodes = append(planes, workers...)
	if len(c.nodes) == 0 {
		return nil, fmt.Errorf("the cluster at %s has no Linux node", config.Host)
	}
	return c, nil
}

// hasHosts: hosts of which none is a node belong to another cluster, and nothing shall be done to this one.
func (c *Cluster) hasHosts() error {
	for _, n := range c.nodes {
		if c.hosts[n.name] != nil {
			return nil
		}
	}
	if len(c.hosts) == 0 {
		return nil
	}
	return fmt.Errorf("the hosts are %s, and none of them is a node of the cluster at %s, which has %s: name that of the document with --kubeconfig or --context",
		words(slices.Sorted(maps.Keys(c.hosts))), c.config.Host, c.nodeNames())
}

func (c *Cluster) nodeNames() string {
	var names []string
	for _, n := range c.nodes {
		names = append(names, n.name)
	}
	return strings.Join(names, " ")
}

// namespace makes a namespace for a check. The end of the run deletes it.
func (c *Cluster) namespace(ctx context.Context, check string) (string, error) {
	name := "kubewright-verify-" + check + "-" + rand.String(5)
	_, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name,
		// Privileged: some probes use the host's network.
		Labels: map[string]string{Label: "true", runLabel: c.run, "pod-security.kubernetes.io/enforce": "privileged"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create namespace %s: %w", name, err)
	}
	// Pods are refused until the service account is there; its controller is not what is tested.
	_, err = c.client.CoreV1().ServiceAccounts(name).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("create service account in %s: %w", name, err)
	}
	return name, nil
}

// Cleanup undoes what runs that were killed left, waits until it is gone, and names it: namespaces, nodes.
func Cleanup(ctx context.Context, kubeconfig []byte) ([]string, error) {
	c, err := connect(quiet(ctx), kubeconfig)
	if err != nil {
		return nil, err
	}
	names, err := c.remove(ctx, Label+"=true")
	if err != nil {
		return names, err
	}
	return names, c.awaitGone(quiet(ctx), Label+"=true")
}

// cleanup is the last check of a run. It asks for the namespaces, and doesn't remember them:
// so one is found whose creation was cut off.
func cleanup(ctx context.Context, c *Cluster) (string, error) {
	// Also when the run was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 90*time.Second)
	defer cancel()
	mine := runLabel + "=" + c.run
	names, err := c.remove(ctx, mine)
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "nothing was made", nil
	}
	return strings.Join(names, " ") + " deleted, and gone", c.awaitGone(ctx, mine)
}

// remove uncordons nodes that a run has cordoned, deletes namespaces, and names both.
func (c *Cluster) remove(ctx context.Context, selector string) ([]string, error) {
	names, err := c.uncordonMarked(ctx)
	errs := []error{err}
	list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return names, lines(append(errs, fmt.Errorf("list namespaces: %w", err))...)
	}
	for _, ns := range list.Items {
		c.removePods(ctx, ns.Name)
		err := c.client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete namespace %s: %w", ns.Name, err))
			continue
		}
		names = append(names, ns.Name)
	}
	return names, lines(errs...)
}

// removePods begins with what takes longest: the namespace controller takes its time before it looks, which the pods can
// use to end. On a node that is down nobody would say that they have ended. What goes wrong here, that controller does again.
func (c *Cluster) removePods(ctx context.Context, namespace string) {
	pods := c.client.CoreV1().Pods(namespace)
	_ = pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	for _, n := range c.nodes {
		if !nodeReady(&n.is) {
			_ = pods.DeleteCollection(ctx, *metav1.NewDeleteOptions(0), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.name).String()})
		}
	}
}

func (c *Cluster) awaitGone(ctx context.Context, selector string) error {
	w := watched{c.client.CoreV1().RESTClient(), "namespaces", "", "", selector}
	return await(ctx, w, time.Minute, func(left []*corev1.Namespace) (bool, string) {
		var states []string
		for _, ns := range left {
			states = append(states, namespaceState(ns))
		}
		slices.Sort(states)
		return len(left) == 0, strings.Join(states, "; ")
	})
}

// namespaceState says what a namespace's deletion waits for.
func namespaceState(ns *corev1.Namespace) string {
	s := fmt.Sprintf("namespace %s is %s", ns.Name, ns.Status.Phase)
	for _, cond := range ns.Status.Conditions {
		if cond.Status == corev1.ConditionTrue {
			s += ": " + cond.Message
		}
	}
	return s
}
