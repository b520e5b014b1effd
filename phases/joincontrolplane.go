package phases

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// JoinControlPlane makes a host a further control plane of a cluster. It is Join's
// beginning and Init's end; between them the host becomes a member of etcd. Its API server
// starts once etcd on this host votes, as a learner answers nothing that it would ask.
func JoinControlPlane() []Phase {
	return append(prepare(),
		Phase{Name: "discovery", Short: "find the cluster and verify that it is the right one", After: []string{"preflight"}, Run: discovery},
		Phase{Name: "check-etcd", Short: "see whether etcd answers and can take this host", After: []string{"discovery"}, Run: inCluster(checkEtcd)},
		Phase{Name: "mirrors", Short: "tell the container runtime where to pull images from", After: []string{"install", "check-etcd"}, Run: joinMirrors},
		Phase{Name: "certs", Short: "take over the cluster's certificate authorities, make this host's certificates", After: []string{"ledger", "check-etcd"}, Run: joinCerts},
		Phase{Name: "kubeconfig", Short: "make the kubeconfigs of admin, controller manager, scheduler and kubelet", After: []string{"certs"}, Run: inCluster(joinKubeconfig)},
		Phase{Name: "endpoint", Short: "have the host know the cluster's endpoint, where no other resolves it", After: []string{"ledger", "check-etcd"}, Run: joinEndpoint},
		Phase{Name: "kubelet-start", Short: "configure and start the kubelet", After: []string{"kernel", "wait-runtime", "mirrors", "kubeconfig", "endpoint", "images"}, Run: joinKubelet},
		Phase{Name: "etcd/join", Short: "become a member of etcd that does not vote yet, and write its manifest", After: []string{"images", "kubelet-start"}, Run: inCluster(etcdJoin)},
		Phase{Name: "etcd/promote", Short: "wait until etcd on this host has caught up, and let it vote", After: []string{"etcd/join"}, Run: inCluster(etcdPromote)},
		Phase{Name: "control-plane/apiserver", Short: "write the API server's manifest", After: []string{"etcd/promote"}, Run: inCluster(staticPods(manifests.APIServer))},
		Phase{Name: "wait-apiserver", Short: "wait until the API server on this host answers", After: []string{"control-plane/apiserver"}, Waits: true, Run: onHost(waitAPIServer)},
		Phase{Name: "control-plane/controllers", Short: "write the manifests of the controller manager and the scheduler", After: []string{"wait-apiserver"}, Run: inCluster(staticPods(manifests.ControllerManager, manifests.Scheduler))},
		Phase{Name: "mark-control-plane", Short: "label and taint the node", After: []string{"wait-apiserver"}, Run: inCluster(markControlPlane)},
		Phase{Name: "wait-control-plane", Short: "wait until API server, controller manager and scheduler are healthy", After: []string{"control-plane/controllers"}, Waits: true, Run: onHost(waitControlPlane)},
	)
}

// Admission is what a host that joins as a control plane has been given.
type Admission struct {
	Secrets *pki.Secrets
	API     API  // the cluster's, with the rights of an administrator
	Local   API  // the same at the host's own API server
	Etcd    Etcd // nil where it is external
	// Files are those of an external etcd's client that the host lacks.
	Files []host.File
}

// Admit gives a function that turns a certificate key into an Admission at its first call,
// and remembers it. The zero key is for a host to which a person has copied the files.
func Admit(key addons.CertificateKey) func(context.Context, *Target) (*Admission, error) {
	var mu sync.Mutex
	var found *Admission
	return func(ctx context.Context, t *Target) (*Admission, error) {
		mu.Lock()
		defer mu.Unlock()
		if found != nil {
			return found, nil
		}
		a, err := admit(ctx, t, key)
		if err == nil {
			found = a
		}
		return a, err
	}
}

// admit looks, with the rights of the token, whether the host can become a control plane,
// before anything of it is changed.
func admit(ctx context.Context, t *Target, key addons.CertificateKey) (*Admission, error) {
	t, d, err := t.joined(ctx)
	if err != nil {
		return nil, err
	}
	if t.Cluster.Spec.ControlPlane.Endpoint == "" {
		return nil, errors.New("the cluster has no stable address for several API servers: its nodes know only the first one's, and would be lost with it; make the cluster with `kubewright init --control-plane-endpoint NAME:PORT`, or join this host as a worker, without --control-plane")
	}
	if err := t.sameCA(ctx, d.CA); err != nil {
		return nil, err
	}
	if err := t.checkJoin(ctx, d); err != nil {
		return nil, err
	}
	if err := t.judge(t.missingImages(manifests.Images(t.Cluster))); err != nil {
		return nil, err
	}
	if !t.Facts.Present[pki.KubeletConf] {
		if err := t.nameIsFree(ctx); err != nil {
			return nil, err
		}
	}
	shared, err := t.sharedCertificates(ctx, key, d.CA)
	if err != nil {
		return nil, err
	}
	existing, err := Existing(ctx, t.Host, t.Node)
	if err != nil {
		return nil, err
	}
	a := &Admission{}
	if a.Secrets, err = pki.Join(t.Cluster, t.Node, existing, shared, time.Now()); err != nil {
		return nil, err
	}
	if err := a.Secrets.Problems(); err != nil {
		if err := t.judge([]Finding{{Name: "Certificates", Message: err.Error()}}); err != nil {
			return nil, err
		}
	}
	a.Files = externalEtcdFiles(t.Cluster, shared)
	return a, a.connect(t.Host, t.Cluster, d)
}

// connect gives an Admission the doors that its secrets open. With an external CA there may
// be nothing yet to open them with: then certs ends with the requests to have signed.
func (a *Admission) connect(h host.Host, c *config.Cluster, d *Discovery) error {
	conf, err := a.Secrets.ClientConfigAt(d.Server)
	local, localErr := a.Secrets.ClientConfig()
	if err := errors.Join(err, localErr); err != nil {
		if !a.Secrets.ExternalCA() {
			return err
		}
		a.API, a.Local = NoAPI{err}, NoAPI{err}
	} else {
		limit := c.Spec.Timeouts.KubernetesAPICall.Duration
		api, err := NewClient(d.door(h), conf)
		if err != nil {
			return err
		}
		own, err := NewClient(h, local)
		if err != nil {
			return err
		}
		a.API, a.Local = api.Within(limit), own.Within(limit)
	}
	if c.Spec.Etcd.External != nil {
		return nil
	}
	tls, err := a.Secrets.EtcdClient()
	endpoints := etcdEndpoints(a.API)
	if err != nil { // the same, of etcd's CA
		endpoints = func(context.Context) ([]string, error) { return nil, err }
	}
	a.Etcd = NewEtcdClient(h, tls, endpoints)
	return nil
}

// Existing reads, by path, the certificates, keys and kubeconfigs that a host has.
func Existing(ctx context.Context, h host.Host, n config.Node) (map[string][]byte, error) {
	return existing(ctx, h, &config.Cluster{}, n)
}

// admitted is t in the cluster that it joins as a control plane.
func (t *Target) admitted(ctx context.Context) (*Target, *Admission, error) {
	own, _, err := t.joined(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := t.Admit(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	own.Secrets, own.API, own.Etcd = a.Secrets, a.API, a.Etcd
	return own, a, nil
}

// inCluster runs a phase with the rights of an administrator in the cluster that was joined.
func inCluster(run func(context.Context, *Target) error) func(context.Context, *Target) error {
	return func(ctx context.Context, t *Target) error {
		t, _, err := t.admitted(ctx)
		if err != nil {
			return err
		}
		return run(ctx, t)
	}
}

// onHost is inCluster, with the host's own API server.
func onHost(run func(context.Context, *Target) error) func(context.Context, *Target) error {
	return func(ctx context.Context, t *Target) error {
		t, a, err := t.admitted(ctx)
		if err != nil {
			return err
		}
		t.API = a.Local
		return run(ctx, t)
	}
}

func joinCerts(ctx context.Context, t *Target) error {
	t, a, err := t.admitted(ctx)
	if err != nil {
		return err
	}
	if _, err := t.write(ctx, a.Files...); err != nil {
		return err
	}
	return certs(ctx, t)
}

// joinKubeconfig leaves out super-admin.conf, which the first control plane alone has.
func joinKubeconfig(ctx context.Context, t *Target) error {
	return t.kubeconfigs(ctx, false)
}

// ControlPlaneJoinCommand makes a worker's join command that of a further control plane.
func ControlPlaneJoinCommand(join string, key addons.CertificateKey) string {
	return join + " --control-plane --certificate-key " + key.Reveal()
}
