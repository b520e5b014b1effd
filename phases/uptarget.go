package phases

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// target is what the phases of a machine act on, and which those are.
func (u *Up) target(m *Machine) (*Target, []Phase) {
	t, list := u.bare(m)
	hooks := m.Node.Hooks.Over(u.Cluster.Spec.Hooks)
	if u.PrepareOnly { // neither init nor join comes to its end
		list, hooks.AfterInit, hooks.AfterJoin = prepare(), nil, nil
	}
	return t, hooked(list, u.hookKind(m), hooks)
}

// bare is target without hooks.
func (u *Up) bare(m *Machine) (*Target, []Phase) {
	t := &Target{
		Cluster: u.Cluster, Node: m.Node, Facts: m.Facts, Host: m.Host, Secrets: u.secrets[m], Bundle: u.Bundle, Acquires: u.Acquires, Journal: m.Journal,
		Ledger: true, Patches: u.Patches, Material: u.Material, Ignore: u.Ignore, Report: u.Report, Credentials: u.Credentials, Turns: u.turns,
		// Nobody joins by a token here; the one who wants to makes it.
		JoinToken: func(context.Context) (addons.Token, error) { return addons.Token{}, nil }, Tokens: []InitToken{},
		API: u.api, Changes: &u.changes, Began: u.Began, had: &m.had, Uploads: u.uploads,
	}
	if m == u.leader || u.members[m] {
		t.Further = len(u.members) > 0
		if client, err := u.clientOn(m); err == nil {
			t.API = client
		}
		list := without(Init(), networkReady) // that of all hosts comes last
		if m != u.leader {
			list = slices.DeleteFunc(list, func(p Phase) bool { return p.OfCluster })
			for i := range list {
				list[i].After = slices.DeleteFunc(slices.Clone(list[i].After), func(name string) bool { return len(Select(list, name)) == 0 })
			}
		}
		list = append(late(list), nodeReady("wait-control-plane", "mark-control-plane"))
		if m == u.leader {
			list = append(list, Phase{Name: "wait-dns", Short: "wait until the cluster's DNS is available", After: []string{"addon/coredns", "wait-node"}, Waits: true, Run: waitDNS})
		}
		return t, list
	}
	t.Discover, t.Known = u.discover(m), true
	if u.begins(m) && !u.planning {
		t.Await = u.answers
	}
	if m.controlPlane() {
		t.Admit = u.admit(m)
		return t, append(JoinControlPlane(), nodeReady("wait-control-plane", "mark-control-plane"))
	}
	return t, append(Join(),
		Phase{Name: "mark-node", Short: "label and taint the node", After: []string{"wait-kubelet"}, Run: markJoined},
		nodeReady("mark-node"))
}

// late has the kubelet wait for the images, which take longer from afar: one that finds no API server
// for long tries to register ever more seldom.
func late(list []Phase) []Phase {
	for i := range list {
		if list[i].Name == "kubelet-start" {
			list[i].After = append(slices.Clone(list[i].After), "images")
		}
	}
	return list
}

func nodeReady(after ...string) Phase {
	return Phase{Name: "wait-node", Short: "wait until the node is ready", After: after, Waits: true, Run: waitNode}
}

// last are the phases of a cluster whose hosts are done.
func (u *Up) last() []Phase {
	list := Select(Init(), networkReady)
	if u.Cluster.ExternalCloud() {
		list = append(list, Phase{Name: "wait-cloud", Short: "wait until the cloud controller has said what the nodes are", After: []string{networkReady}, OfCluster: true, Waits: true, Run: waitCloud})
	}
	return list
}

// clientOn is the API as the control plane's own server has it.
func (u *Up) clientOn(m *Machine) (*Client, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if have := u.clients[m]; have != nil {
		return have, nil
	}
	kubeconfig, err := u.secrets[m].ClientConfig()
	if err != nil {
		return nil, err
	}
	client, err := NewClient(m.Host, kubeconfig)
	if err != nil {
		return nil, err
	}
	if u.clients == nil {
		u.clients = map[*Machine]*Client{}
	}
	u.clients[m] = client.Within(u.Cluster.Spec.Timeouts.KubernetesAPICall.Duration)
	return u.clients[m], nil
}

// begins tells of a worker of a cluster that is only being made: all that it needs to know is known.
func (u *Up) begins(m *Machine) bool { return !m.controlPlane() && len(u.members) == 0 }

// discover says at once what the cluster is, and waits until it answers, if that is needed.
func (u *Up) discover(m *Machine) func(context.Context) (*Discovery, error) {
	return func(ctx context.Context) (*Discovery, error) {
		kubelet, err := manifests.KubeletConfiguration(u.Cluster)
		if err != nil {
			return nil, err
		}
		d := &Discovery{Server: pki.ControlPlaneURL(u.Cluster, m.Node), CA: u.secrets[u.leader].CACert(), Cluster: u.Cluster, KubeletConfiguration: kubelet, API: u.api}
		if u.Bundle != nil {
			d.Lock = u.Bundle.Lock().Bytes()
		}
		if u.planning {
			d.API = u.planned(ctx)
			return d, nil
		}
		if u.begins(m) {
			return d, nil
		}
		return d, u.answers(ctx)
	}
}

// answers waits for the API server, or for the end of the one who should start it.
func (u *Up) answers(ctx context.Context) error {
	limit := u.Cluster.Spec.Timeouts.Discovery.Duration
	return untilFinal(ctx, limit, "the cluster's API server", func(ctx context.Context) error {
		err := u.api.Ready(ctx, "/readyz/ping")
		if err == nil {
			return nil
		}
		select {
		case <-u.ended:
			if u.leaderErr != nil {
				return finalError{fmt.Errorf("there is no cluster to join, as %s failed", u.leader.Node.Name)}
			}
		default:
		}
		return err
	})
}

// admit gives a further control plane what the others have.
func (u *Up) admit(m *Machine) func(context.Context, *Target) (*Admission, error) {
	var mu sync.Mutex
	var found *Admission
	return func(ctx context.Context, t *Target) (*Admission, error) {
		mu.Lock()
		defer mu.Unlock()
		if found != nil {
			return found, nil
		}
		asking := *t
		if asking.API = u.api; !u.planning {
			if err := asking.nameIsLeft(ctx); err != nil {
				return nil, err
			}
		}
		local, err := u.clientOn(m)
		if err != nil {
			return nil, err
		}
		a := &Admission{Secrets: u.secrets[m], API: u.api, Local: local, Files: externalEtcdFiles(u.Cluster, missing(u.shared, m.Existing))}
		if u.planning {
			a.API, a.Local = u.planned(ctx), u.planned(ctx)
		}
		if u.planning && len(u.members) == 0 {
			a.Etcd = &EtcdRecorder{Live: EtcdMembers{Members: []EtcdMember{{ID: 1, Name: u.leader.Node.Name, PeerURL: manifests.PeerURL(u.leader.Node.IP())}}}}
		} else if u.Cluster.Spec.Etcd.External == nil {
			tls, err := a.Secrets.EtcdClient()
			if err != nil {
				return nil, err
			}
			a.Etcd = NewEtcdClient(m.Host, tls, etcdEndpoints(u.api))
		}
		found = a
		return a, nil
	}
}

// missing is what of all is not there yet.
func missing(all, there map[string][]byte) map[string][]byte {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(path string, _ []byte) bool { _, ok := there[path]; return ok })
	return out
}

// without is a list from which a phase was taken.
func without(list []Phase, name string) []Phase {
	var rest []Phase
	for _, p := range list {
		if p.Name == name {
			continue
		}
		p.After = slices.DeleteFunc(slices.Clone(p.After), func(n string) bool { return n == name })
		rest = append(rest, p)
	}
	return rest
}

func markJoined(ctx context.Context, t *Target) error {
	t, _, err := t.joined(ctx)
	if err != nil {
		return err
	}
	return markControlPlane(ctx, t)
}

// waitNode waits until the kubelet and the pod network are ready. Where somebody else is to install a network, it
// waits for the kubelet alone.
func waitNode(ctx context.Context, t *Target) error {
	bounded, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.KubeletHealthCheck.Duration)
	defer cancel()
	last, without := "", t.Cluster.Spec.Network.CNI.Name == "none"
	_, err := t.API.Until(bounded, ref("v1", "Node", "", t.Node.Name), func(o addons.Object) bool {
		last = conditionMessage(o, "Ready")
		return condition(o, "Ready") == "True" || without && strings.Contains(last, "NetworkReady=false")
	})
	if err != nil && ctx.Err() == nil {
		return t.withJournal(ctx, "kubelet", fmt.Errorf("node %s did not become ready: %s: %w%s", t.Node.Name, last, err, t.stuckPods(context.WithoutCancel(ctx))))
	}
	if err == nil && without && strings.Contains(last, "NetworkReady=false") {
		t.notice("node %s becomes ready when a pod network is installed: spec.network.cni.name is none", t.Node.Name)
	}
	return err
}

// stuckPods are those of the node that cannot start, and why, a line each: the pod network's, most likely.
func (t *Target) stuckPods(ctx context.Context) string {
	pods, _ := t.API.List(ctx, ref("v1", "Pod", "", ""), "")
	var all []trouble
	for _, o := range pods {
		if p, err := typed[corev1.Pod](o); err == nil && p.Spec.NodeName == t.Node.Name {
			all = append(all, slices.DeleteFunc(troubles(p), func(t trouble) bool { return t.container == "" })...)
		}
	}
	return firstOf(all)
}

func waitDNS(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.DNS.Disabled || t.Cluster.Spec.Network.CNI.Name == "none" { // its pods wait for a network
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration)
	defer cancel()
	last := ""
	_, err := t.API.Until(bounded, ref("apps/v1", "Deployment", "kube-system", "coredns"), func(o addons.Object) bool {
		last = conditionMessage(o, "Available")
		return condition(o, "Available") == "True"
	})
	if err != nil && ctx.Err() == nil {
		pods := t.notReady(ctx)
		return fmt.Errorf("CoreDNS did not become available: %s: see `kubectl -n kube-system describe pods -l k8s-app=kube-dns`: %w%s%s", last, err, firstOf(pods), t.lastWords(ctx, pods))
	}
	return err
}

func conditionMessage(o addons.Object, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			s, _ := m["message"].(string)
			return s
		}
	}
	return ""
}
