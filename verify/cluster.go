package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Label is on every namespace that a run makes, with the value "true".
const Label = "kubewright.dev/verify"

// runLabel tells the namespaces of this run from those that others left.
const runLabel = "kubewright.dev/verify-run"

// Cluster is what checks act on.
type Cluster struct {
	config *rest.Config
	client kubernetes.Interface
	image  string
	nodes  []node
	run    string // value of runLabel

	probes func() ([]*probe, error) // made by whichever check asks first
}

// node is a Linux node of the cluster.
type node struct {
	name string
	ip   string // the first InternalIP
}

func connect(ctx context.Context, kubeconfig []byte, image string) (*Cluster, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// Many checks ask at once; the API server has its own fairness.
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	c := &Cluster{config: config, client: client, image: image, run: rand.String(8)}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: corev1.LabelOSStable + "=linux"})
	if err != nil {
		return nil, fmt.Errorf("list nodes at %s: %w", config.Host, err)
	}
	for _, n := range list.Items {
		i := slices.IndexFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
		if i < 0 {
			return nil, fmt.Errorf("node %s has no InternalIP in its status", n.Name)
		}
		c.nodes = append(c.nodes, node{n.Name, n.Status.Addresses[i].Address})
	}
	if len(c.nodes) == 0 {
		return nil, fmt.Errorf("the cluster at %s has no Linux node", config.Host)
	}
	return c, nil
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

// Cleanup deletes what runs that were killed left, waits until it is gone, and names it.
func Cleanup(ctx context.Context, kubeconfig []byte) ([]string, error) {
	c, err := connect(quiet(ctx), kubeconfig, "")
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
	return fmt.Sprintf("%d namespaces deleted, and gone", len(names)), c.awaitGone(ctx, mine)
}

// remove deletes namespaces, and names them.
func (c *Cluster) remove(ctx context.Context, selector string) ([]string, error) {
	list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, ns := range list.Items {
		// The namespace controller takes its time before it looks, which the pods can use to end.
		// What goes wrong here, it does again.
		_ = c.client.CoreV1().Pods(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		err := c.client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return names, fmt.Errorf("delete namespace %s: %w", ns.Name, err)
		}
		names = append(names, ns.Name)
	}
	return names, nil
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
