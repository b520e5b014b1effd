package phases

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// living bounds the question whether there is a cluster.
const living = 10 * time.Second

// Live reads the document of the cluster that runs on the hosts; nil where none answers.
func (u *Up) Live(ctx context.Context) *config.Cluster {
	if u.live != nil {
		return u.live.Cluster
	}
	for _, m := range u.controlPlanes() {
		conf := m.Existing[pki.AdminConf]
		if m.Err != nil || conf == nil {
			continue
		}
		client, err := NewClient(m.ownAPI(u.Cluster), conf)
		if err != nil {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, living)
		d := &Discovery{API: client}
		if client.Ready(bounded, "/readyz/ping") == nil {
			err = d.read(bounded)
		}
		cancel()
		if err == nil && d.Cluster != nil {
			u.live = d
			return d.Cluster
		}
	}
	return nil
}

// Versions are those of the cluster that runs, else of the images that hosts have which bring their own; the zero value
// where there are none.
func (u *Up) Versions(ctx context.Context) (v config.Versions) {
	if live := u.Live(ctx); live != nil {
		return live.Versions()
	}
	for _, m := range u.controlPlanes() { // one that was stopped is not to come back as another version
		if m.Err != nil || m.Journal.Lock() == "" || m.manifests == nil {
			continue
		}
		if l, err := bundle.ParseLock([]byte(m.Journal.Lock())); err == nil {
			return l.Versions((&Target{Facts: m.Facts}).Platform())
		}
	}
	for _, m := range u.controlPlanes() {
		if m.Err == nil {
			return m.heldVersions(ctx, u.Cluster)
		}
	}
	return v
}

// Of static pods' manifests: what is fixed for a cluster's life.
var (
	imageVersion = regexp.MustCompile(`image: \S+/kube-apiserver:(\S+)`)
	serviceRange = regexp.MustCompile(`--service-cluster-ip-range=(\S+)`)
	podRange     = regexp.MustCompile(`--cluster-cidr=(\S+)`)
	clusterName  = regexp.MustCompile(`--cluster-name=(\S+)`)
)

// keptOnHost refuses what its own manifests contradict, where no API server tells what the cluster is.
func (u *Up) keptOnHost(m *Machine, refuse func(field, has, wants, what string)) {
	s := u.Cluster.Spec
	for _, f := range []struct {
		pod, field, wants string
		is                *regexp.Regexp
	}{
		{manifests.APIServer, "spec.kubernetesVersion", strings.ReplaceAll(s.KubernetesVersion, "+", "_"), imageVersion},
		{manifests.APIServer, "spec.network.serviceCIDR", s.Network.ServiceCIDR, serviceRange},
		{manifests.ControllerManager, "spec.network.podCIDR", s.Network.PodCIDR, podRange},
		{manifests.ControllerManager, "metadata.name", u.Cluster.Metadata.Name, clusterName},
	} {
		if found := f.is.FindSubmatch(m.manifests[manifests.Path(f.pod)]); found != nil {
			refuse(f.field, string(found[1]), f.wants, fmt.Sprintf("so %s has it in %s, while no API server answers; write what it has", m.Node.Name, manifests.Path(f.pod)))
		}
	}
}

// Lock is what the hosts were made from before; nil where that was nothing, or no longer fits the document.
func (u *Up) Lock() *bundle.Lock {
	var locks []string
	if u.live != nil {
		locks = append(locks, string(u.live.Lock))
	}
	for _, m := range u.answering() {
		locks = append(locks, m.Journal.Lock())
	}
	for _, text := range locks {
		l, err := bundle.ParseLock([]byte(text))
		if text == "" || err != nil {
			continue
		}
		if !slices.ContainsFunc(u.answering(), func(m *Machine) bool {
			t := &Target{Facts: m.Facts, Node: m.Node}
			return !t.Fits(l, u.Cluster)
		}) {
			return &l
		}
	}
	return nil
}

// Installs tells whether any host has to be given a kubelet or a container runtime, or was given one before.
func (u *Up) Installs() bool {
	return slices.ContainsFunc(u.answering(), func(m *Machine) bool {
		t := &Target{Facts: m.Facts, Journal: m.Journal}
		return t.Lacks() || m.Journal.Lock() != ""
	})
}

// kept refuses another value of a field that a running cluster keeps for its life.
func (u *Up) kept() error {
	var all *multierror.Error
	refuse := func(field, has, wants, what string) {
		if has != wants {
			all = multierror.Append(all, fmt.Errorf("%s: the cluster has %q and the document %q: %s", field, has, wants, what))
		}
	}
	if u.live != nil {
		has, wants := u.live.Cluster, u.Cluster
		const anew = "that is fixed when a cluster is made; write what it has, or make another cluster"
		refuse("spec.kubernetesVersion", has.Spec.KubernetesVersion, wants.Spec.KubernetesVersion, "up does not change the version of a cluster; write the one that it has, or give a bundle of that version")
		refuse("metadata.name", has.Metadata.Name, wants.Metadata.Name, anew)
		refuse("spec.network.podCIDR", has.Spec.Network.PodCIDR, wants.Spec.Network.PodCIDR, anew)
		refuse("spec.network.serviceCIDR", has.Spec.Network.ServiceCIDR, wants.Spec.Network.ServiceCIDR, anew)
		keptNetwork(has.Spec.Network.CNI, wants.Spec.Network.CNI, refuse)
		refuse("spec.network.dnsDomain", has.Spec.Network.DNSDomain, wants.Spec.Network.DNSDomain, anew)
		refuse("spec.controlPlane.endpoint", has.Spec.ControlPlane.Endpoint, wants.Spec.ControlPlane.Endpoint, anew)
		refuse("spec.pki.algorithm", has.Spec.PKI.Algorithm, wants.Spec.PKI.Algorithm, anew)
	}
	for _, m := range u.answering() {
		if u.live == nil {
			u.keptOnHost(m, refuse)
		}
		if name := m.NodeName(); name != "" {
			refuse("the name of the host at "+m.Node.Address, name, m.Node.Name, "a node keeps its name; write that, or take the host out with `kubewright remove` and let it join anew")
		}
	}
	return config.Errors(all)
}

// NodeName is the node that a machine is already, by its kubelet's certificate; empty where it is none.
func (m *Machine) NodeName() string { return m.node }

// Answers tells whether the cluster's API server does.
func (u *Up) Answers(ctx context.Context) bool {
	return u.api != nil && u.leader != nil && u.api.Ready(ctx, "/readyz/ping") == nil
}

// AdminConfig is a kubeconfig of the cluster's administrator that works where kubewright runs: where
// the cluster's own address is a name that only its hosts know, it has a control plane's address instead.
func (u *Up) AdminConfig(ctx context.Context) ([]byte, error) {
	b, err := u.leader.Host.ReadFile(ctx, pki.AdminConf)
	if err != nil {
		return nil, err
	}
	if _, internal := u.Cluster.InternalEndpoint(); !internal {
		return b, nil
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil, err
	}
	for _, c := range conf.Clusters {
		c.Server = pki.LocalURL(u.Cluster, u.leader.Node)
	}
	return clientcmd.Write(*conf)
}

// nameStrangers reports nodes of the cluster that the document does not list. If the API does not
// answer, there are other errors to read.
func (u *Up) nameStrangers(ctx context.Context) {
	if !u.Answers(ctx) {
		return
	}
	nodes, _ := u.api.List(ctx, ref("v1", "Node", "", ""), "")
	for _, n := range nodes {
		if u.Report != nil && !slices.ContainsFunc(u.Machines, func(m *Machine) bool { return strings.EqualFold(m.Node.Name, n.GetName()) }) {
			u.Report(Event{Time: time.Now(), Host: u.leader.Node.Name, Phase: "nodes", State: Notice,
				Message: fmt.Sprintf("%s is a node of the cluster that the document does not list, and was left alone: list it, or take it out with `kubewright remove`", n.GetName())})
		}
	}
}
