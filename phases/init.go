package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// Init turns a host into the first control plane of a cluster.
//
// The order is made of what needs what, and of one rule: nothing is started before what
// it calls answers, because a process that finds nobody waits, and waits longer each time.
// So etcd listens before there is an API server, and the API server has made the roles of
// controller manager and scheduler before they ask it for their leases. We ask it from its
// first answer on: what it cannot take yet is sent again.
func Init() []Phase {
	return append(prepare(),
		Phase{Name: "mirrors", Short: "tell the container runtime where to pull images from", After: []string{"install"}, Run: mirrors},
		Phase{Name: "certs", Short: "make the certificate authorities, certificates and keys", After: []string{"ledger"}, Run: certs},
		Phase{Name: "kubeconfig", Short: "make the kubeconfigs of admin, controller manager, scheduler and kubelet", After: []string{"certs"}, Run: kubeconfig},
		Phase{Name: "endpoint", Short: "have the host know the cluster's endpoint, where no other resolves it", After: []string{"ledger"}, Run: endpoint},
		Phase{Name: "kubelet-start", Short: "configure and start the kubelet", After: []string{"kernel", "wait-runtime", "mirrors", "kubeconfig", "endpoint"}, Run: kubeletStart},
		Phase{Name: "etcd", Short: "write etcd's manifest", After: []string{"certs", "images", "kubelet-start"}, Run: etcd},
		Phase{Name: "wait-etcd", Short: "wait until etcd listens", After: []string{"etcd"}, Waits: true, Run: waitEtcd},
		Phase{Name: "control-plane/apiserver", Short: "write the API server's manifest", After: []string{"wait-etcd", "kubeconfig"}, Run: staticPods(manifests.APIServer)},
		Phase{Name: "wait-apiserver", Short: "wait until the API server answers", After: []string{"control-plane/apiserver"}, Waits: true, Run: waitAPIServer},
		Phase{Name: "upload-config", Short: "store the configuration in the cluster", After: []string{"wait-apiserver"}, OfCluster: true, Run: uploadConfig},
		Phase{Name: "upload-certs", Short: "store the certificates of control planes in the cluster, encrypted, if asked to", After: []string{"wait-apiserver"}, OfCluster: true, Run: uploadCerts},
		Phase{Name: "addon/kube-proxy", Short: "install kube-proxy", After: []string{"wait-apiserver"}, OfCluster: true, Run: kubeProxy},
		Phase{Name: "addon/coredns", Short: "install CoreDNS", After: []string{"wait-apiserver"}, OfCluster: true, Run: coreDNS},
		Phase{Name: "addon/cni", Short: "install the pod network", After: []string{"wait-apiserver"}, OfCluster: true, Run: cni},
		Phase{Name: "addon/extras", Short: "install the addons that the document asks for", After: []string{"wait-apiserver"}, OfCluster: true, Run: extras},
		Phase{Name: "mark-control-plane", Short: "label and taint the node", After: []string{"wait-apiserver"}, Run: markControlPlane},
		Phase{Name: "wait-rbac", Short: "wait until the API server has made the controllers' roles", After: []string{"wait-apiserver"}, Waits: true, Run: waitRBAC},
		// Not sooner: a host that finds cluster-info reads the configuration and asks for a certificate at once, and the right to do so is one of those roles.
		Phase{Name: "bootstrap-token", Short: "let nodes join with a token", After: []string{"wait-rbac", "upload-config", "upload-certs"}, OfCluster: true, Run: bootstrapToken},
		Phase{Name: "control-plane/controllers", Short: "write the manifests of the controller manager and the scheduler", After: []string{"wait-rbac"}, Run: staticPods(manifests.ControllerManager, manifests.Scheduler)},
		Phase{Name: "wait-control-plane", Short: "wait until API server, controller manager and scheduler are healthy", After: []string{"control-plane/controllers"}, Waits: true, Run: waitControlPlane},
		Phase{Name: networkReady, Short: "wait until kube-proxy and the pod network run on all nodes that are ready", After: []string{"addon/kube-proxy", "addon/cni", "wait-control-plane"}, OfCluster: true, Waits: true, Run: waitNetwork},
	)
}

func certs(ctx context.Context, t *Target) error {
	for _, w := range t.Secrets.Warnings() {
		t.notice("%s", w)
	}
	files, missing := t.Secrets.Certificates()
	if _, err := t.write(ctx, files...); err != nil {
		return err
	}
	return missing // of an external CA: which requests to have signed
}

func kubeconfig(ctx context.Context, t *Target) error { return t.kubeconfigs(ctx, !t.Further) }

func (t *Target) kubeconfigs(ctx context.Context, withSuperAdmin bool) error {
	files, missing := t.Secrets.Kubeconfigs(withSuperAdmin)
	var out []host.File
	for _, f := range files {
		if f.Path == pki.KubeletConf {
			rotating, err := pki.RotatingKubelet(f, time.Now())
			if err != nil {
				return err
			}
			out = append(out, rotating...)
			continue
		}
		out = append(out, f)
	}
	if _, err := t.write(ctx, out...); err != nil {
		return err
	}
	return missing
}

// kubeletStart writes what the kubelet reads and starts it. It finds everything at its
// first look, so it is started once.
func kubeletStart(ctx context.Context, t *Target) error {
	configuration, err := manifests.KubeletConfiguration(t.Cluster)
	if err != nil {
		return err
	}
	return t.startKubelet(ctx, configuration)
}

func (t *Target) startKubelet(ctx context.Context, configuration []byte) error {
	facts := t.Facts
	var err error
	if facts.CgroupDriver, err = t.cgroupDriver(ctx, configuration); err != nil {
		return err
	}
	files, err := manifests.Kubelet(t.Cluster, t.Node, facts, configuration, t.Patches)
	if err != nil {
		return err
	}
	changes, err := t.write(ctx, files...)
	if err != nil {
		return err
	}
	if t.Await != nil {
		if err := t.Await(ctx); err != nil {
			return err
		}
	}
	var paths []string
	for _, f := range append(files, manifests.KubeletUnit(t.kubelet())...) {
		paths = append(paths, f.Path)
	}
	return t.startUnit(ctx, "kubelet", len(changes) > 0, paths...)
}

// staticPods writes manifests, each once and final; the kubelet sees a file the moment it appears.
func staticPods(names ...string) func(context.Context, *Target) error {
	return func(ctx context.Context, t *Target) error {
		live := manifests.Live{ExternalCA: t.Secrets.ExternalCA()}
		var files []host.File
		for _, name := range names {
			f, err := manifests.StaticPod(name, t.Cluster, t.Node, t.Facts, t.Patches, live)
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		_, err := t.write(ctx, files...)
		return err
	}
}

// etcd keeps the initial cluster with which a member was started.
func etcd(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.Etcd.External != nil {
		return nil
	}
	members, err := t.etcdMembers(ctx)
	if err != nil {
		return err
	}
	return t.writeEtcd(ctx, members)
}

func (t *Target) writeEtcd(ctx context.Context, members []string) error {
	f, err := manifests.StaticPod(manifests.Etcd, t.Cluster, t.Node, t.Facts, t.Patches, manifests.Live{EtcdMembers: members})
	if err != nil {
		return err
	}
	dir := t.Cluster.Spec.Etcd.DataDir
	if t.Journal != nil && !slices.ContainsFunc(t.Journal.things(aData), func(s Step) bool { return s.Name == dir }) {
		if err := t.note(ctx, Step{Kind: aData, Name: dir}); err != nil {
			return err
		}
	}
	// The folder first, or the kubelet would make it, readable by all.
	_, err = t.write(ctx, host.File{Path: dir, Dir: true, Mode: 0o700}, f)
	return err
}

func (t *Target) etcdMembers(ctx context.Context) ([]string, error) {
	b, err := t.Host.ReadFile(ctx, manifests.Path(manifests.Etcd))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return manifests.InitialCluster(b)
}

// waitEtcd needs no more than a listener: etcd queues what it cannot answer yet, while a
// refused API server would come back only after a second.
func waitEtcd(ctx context.Context, t *Target) error {
	if t.Cluster.Spec.Etcd.External != nil {
		return nil // preflight has seen it answer
	}
	return t.waitPod(ctx, manifests.Etcd, func(ctx context.Context) error {
		conn, err := t.Host.Dial(ctx, "tcp", loopback(t, 2379))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// waitAPIServer waits for an answer, of whatever kind: from then on, nobody who asks is refused.
func waitAPIServer(ctx context.Context, t *Target) error {
	return t.waitPod(ctx, manifests.APIServer, func(ctx context.Context) error { return t.API.Ready(ctx, "/readyz/ping") })
}

// waitRBAC ends when the controller manager and the scheduler may do their work, almost:
// the API server makes their cluster role bindings first and their right to a lease a few
// hundred milliseconds later, and they need longer than that to start. Started sooner they
// would be refused, and ask again only after seconds.
func waitRBAC(ctx context.Context, t *Target) error {
	ctx, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration)
	defer cancel()
	for _, name := range []string{"system:kube-controller-manager", "system:kube-scheduler"} {
		binding := ref("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", name)
		if _, err := t.API.Until(ctx, binding, func(addons.Object) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// waitControlPlane looks at all three side by side.
func waitControlPlane(ctx context.Context, t *Target) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return t.waitPod(ctx, manifests.APIServer, func(ctx context.Context) error { return t.API.Ready(ctx, "/readyz") })
	})
	g.Go(func() error {
		return t.waitPod(ctx, manifests.ControllerManager, func(ctx context.Context) error { return t.probe(ctx, "127.0.0.1:10257", "/healthz") })
	})
	g.Go(func() error {
		return t.waitPod(ctx, manifests.Scheduler, func(ctx context.Context) error { return t.probe(ctx, "127.0.0.1:10259", "/livez") })
	})
	return g.Wait()
}

// waitPod waits for a static pod; where it does not come, the error holds the last words of its container.
func (t *Target) waitPod(ctx context.Context, name string, look func(context.Context) error) error {
	err := until(ctx, t.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck.Duration, name, func(ctx context.Context) error {
		if err := t.isReplaced(ctx, name); err != nil {
			return err
		}
		return look(ctx)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if log := t.containerLog(context.WithoutCancel(ctx), name); log != "" {
		return fmt.Errorf("%w\nthe last lines of its container:\n%s", err, log)
	}
	return t.withJournal(ctx, "kubelet", err)
}

// containerLog is the end of the log of the newest container of that name, running or dead.
func (t *Target) containerLog(ctx context.Context, name string) string {
	out, err := t.Host.Run(ctx, host.Query("crictl", "ps", "--all", "--latest", "--quiet", "--name", "^"+name+"$"))
	id := strings.TrimSpace(string(out.Stdout))
	if err != nil || id == "" {
		return ""
	}
	out, _ = t.Host.Run(ctx, host.Query("crictl", "logs", "--tail", "10", id))
	return strings.TrimSpace(string(out.Stdout) + string(out.Stderr))
}

func uploadConfig(ctx context.Context, t *Target) error {
	cluster, err := manifests.ClusterConfiguration(t.Cluster)
	if err != nil {
		return err
	}
	kubelet, err := manifests.KubeletConfiguration(t.Cluster)
	if err != nil {
		return err
	}
	var lock []byte
	if t.Bundle != nil {
		lock = t.Bundle.Lock().Bytes()
	} else if live, err := t.API.Get(ctx, ref("v1", "ConfigMap", "kube-system", addons.ConfigName)); err == nil {
		if s, ok, _ := unstructured.NestedString(live.Object, "data", addons.LockKey); ok {
			lock = []byte(s) // that of before holds
		}
	}
	own, err := addons.KubewrightConfig(t.Cluster, lock)
	if err != nil {
		return err
	}
	return t.apply(ctx, append(addons.Config(cluster, kubelet, len(t.Cluster.Spec.Kubelet)+len(t.Cluster.Spec.FeatureGates) > 0), own...)...)
}

// server is the URL at which the cluster's nodes find its API.
func (t *Target) server() string { return pki.ControlPlaneURL(t.Cluster, t.Node) }

func kubeProxy(ctx context.Context, t *Target) error {
	configuration, err := manifests.KubeProxyConfiguration(t.Cluster)
	if err != nil {
		return err
	}
	return t.applyAddon(ctx, addons.KubeProxy(t.Cluster, configuration, manifests.KubeProxyKubeconfig(t.server())))
}

func coreDNS(ctx context.Context, t *Target) error {
	objects, err := addons.CoreDNS(t.Cluster, t.Patches.Apply)
	if err != nil {
		return err
	}
	if objects, err = t.keepCoreDNS(ctx, objects); err != nil {
		return err
	}
	return t.apply(ctx, objects...)
}

// keepCoreDNS leaves to a running CoreDNS what people change in it: its Corefile and the
// number of its replicas.
func (t *Target) keepCoreDNS(ctx context.Context, objects []addons.Object) ([]addons.Object, error) {
	var out []addons.Object
	for _, o := range objects {
		if kind := o.GetKind(); kind == "ConfigMap" || kind == "Deployment" {
			live, err := t.API.Get(ctx, o)
			if err != nil && !notYet(err) {
				return nil, err
			}
			if err == nil && kind == "ConfigMap" {
				continue
			}
			if replicas, ok, _ := unstructured.NestedInt64(objectOf(live), "spec", "replicas"); err == nil && ok {
				if err := unstructured.SetNestedField(o.Object, replicas, "spec", "replicas"); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, o)
	}
	return out, nil
}

func objectOf(o addons.Object) map[string]any {
	if o == nil {
		return nil
	}
	return o.Object
}

func extras(ctx context.Context, t *Target) error {
	objects, err := addons.Extras(t.Cluster)
	if err != nil {
		return err
	}
	return t.applyWhole(ctx, "extras", objects)
}

// applyAddon puts the cluster's CA where pods of an addon look for it, as the controller
// manager would a little later: a pod that comes first waits.
func (t *Target) applyAddon(ctx context.Context, objects []addons.Object) error {
	namespaces := map[string]bool{}
	for _, o := range objects {
		if ns := o.GetNamespace(); ns != "" && !namespaces[ns] {
			namespaces[ns] = true
			objects = append(objects, addons.RootCA(t.Secrets.CACert(), ns)...)
		}
	}
	return t.apply(ctx, objects...)
}

// markControlPlane gives the node, once the kubelet has registered it, the labels that a
// kubelet may not give itself, and the taint.
func markControlPlane(ctx context.Context, t *Target) error {
	bounded, cancel := context.WithTimeout(ctx, t.Cluster.Spec.Timeouts.KubeletHealthCheck.Duration)
	defer cancel()
	node, err := t.API.Until(bounded, ref("v1", "Node", "", t.Node.Name), func(addons.Object) bool { return true })
	if err != nil {
		return t.withJournal(ctx, "kubelet", fmt.Errorf("wait until the kubelet has registered node %s: %w", t.Node.Name, err))
	}
	for {
		if !mark(node, t.Node) {
			return nil
		}
		err := t.API.Update(ctx, node)
		if err == nil {
			t.changed(1)
			return nil
		}
		// The kubelet and the controller manager write to the node as well.
		if !apierrors.IsConflict(err) {
			return fmt.Errorf("label and taint node %s: %w", t.Node.Name, err)
		}
		if node, err = t.API.Get(ctx, node); err != nil {
			return err
		}
	}
}

// probe is one look at a health endpoint on the host itself, which shows a certificate of its own making.
func (t *Target) probe(ctx context.Context, addr, path string) error {
	return probe(ctx, t.Host, addr, path)
}

// loopback is how the host reaches its own static pods.
func loopback(t *Target, port int) string {
	ip := "127.0.0.1"
	if a := t.Node.IP(); a.IsValid() && a.Is6() && !a.Is4In6() {
		ip = "::1"
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}
