package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// leaving bounds each of the two steps in which a host leaves its cluster: a cluster that is
// gone must not hold up a reset.
const leaving = 10 * time.Second

// NodeOf is what a host itself says of the node that it is: the name in the certificate of its
// kubelet, and the socket of its runtime, unix:///...; empty where it says nothing.
func NodeOf(ctx context.Context, h host.Host) (name, socket string, err error) {
	paths := []string{pki.KubeletClientCurrent, pki.KubeletConf, manifests.KubeletInstance, manifests.KubeletConfig, manifests.KubeletFlags}
	contents, err := readAll(ctx, h, paths...)
	read := func(path string) []byte { return contents[path] }
	cert := read(pki.KubeletClientCurrent)
	if conf, e := clientcmd.Load(read(pki.KubeletConf)); e == nil && len(cert) == 0 {
		for _, user := range conf.AuthInfos {
			cert = user.ClientCertificateData
		}
	}
	if certs, e := certutil.ParseCertsPEM(cert); e == nil {
		name = strings.TrimPrefix(certs[0].Subject.CommonName, "system:node:")
	}
	for _, path := range []string{manifests.KubeletInstance, manifests.KubeletConfig} {
		var says struct {
			ContainerRuntimeEndpoint string `json:"containerRuntimeEndpoint"`
		}
		if yaml.Unmarshal(read(path), &says) == nil && socket == "" {
			socket = says.ContainerRuntimeEndpoint
		}
	}
	if _, flag, ok := strings.Cut(string(read(manifests.KubeletFlags)), "--container-runtime-endpoint="); ok && socket == "" { // of an older kubeadm
		socket = strings.Trim(strings.Fields(flag)[0], `"`)
	}
	return name, socket, err
}

// OtherCluster refuses to init a host that is a node of another cluster already, or a worker of one.
func OtherCluster(ctx context.Context, t *Target) error {
	worker := !t.Facts.Present[pki.AdminConf] && !t.Facts.Present[manifests.Path(manifests.APIServer)]
	path := pki.AdminConf
	if worker {
		path = pki.KubeletConf
	}
	b, err := t.Host.ReadFile(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil // said with all that is wrong with certificates
	}
	for _, c := range conf.Clusters {
		at := strings.TrimPrefix(c.Server, "https://")
		switch {
		case c.Server == pki.ControlPlaneURL(t.Cluster, t.Node), c.Server == pki.LocalURL(t.Cluster, t.Node):
		case worker:
			return &NotReadyError{fmt.Errorf("this host is a node of the cluster at %s already: take it out with `kubewright reset` before it gets one of its own", at)}
		case t.Facts.Present[manifests.Path(manifests.APIServer)]:
			return &NotReadyError{fmt.Errorf("this host is a control plane of the cluster at %s already, and this init would make one at %s: give it --control-plane-endpoint %s, or the document that it was made with; or take it out with `kubewright reset`", at, strings.TrimPrefix(pki.ControlPlaneURL(t.Cluster, t.Node), "https://"), at)}
		}
	}
	return nil
}

// OpenDoors gives a target that is to be reset what this host can reach its cluster with.
func OpenDoors(ctx context.Context, t *Target) {
	api, path, err := t.apiOfHost(ctx)
	switch {
	case err != nil:
		t.API = NoAPI{err}
	case path == pki.KubeletConf:
		t.API = NoAPI{errors.New("a worker may not delete its own")}
	case path != "":
		t.API = api
	}
	if etcd, err := t.etcdOfHost(ctx); err == nil {
		t.Etcd = etcd
	}
}

// leaveEtcd takes this host's member out of etcd, so that the others do not count on it any
// more. It never fails: what it could not do, it says, and how to do it by hand. It wants the
// pods of this host to run still, and comes after deleteNode: the API server at the cluster's
// address may be the one on this host, which ends with its etcd.
func leaveEtcd(ctx context.Context, t *Target) error {
	data, err := t.ownEtcdData(ctx)
	infos, e := t.Host.Stat(ctx, manifests.Path(manifests.Etcd))
	if errors.Join(err, e) == nil && data == (etcdData{}) && len(infos) == 0 {
		return nil // it is no member
	}
	byHand := func(err error) error {
		t.notice("this host's member of etcd was not removed: %v; if other control planes go on, remove it on one of them: `etcdctl member list`, then `etcdctl member remove ID`", err)
		return ctx.Err()
	}
	if err != nil {
		return byHand(err)
	}
	etcd, err := t.etcdOfHost(ctx)
	if err != nil {
		return byHand(err)
	}
	last := false
	err = until(ctx, leaving, "etcd", func(ctx context.Context) error {
		all, err := etcd.Members(ctx)
		if err != nil {
			return err
		}
		own, others := ownMember(all, data, manifests.PeerURL(t.Node.IP()))
		if last = own != nil && others == 0; own == nil || last {
			return nil
		}
		if err := etcd.Remove(ctx, own.ID); err != nil {
			return fmt.Errorf("remove member %s: %w", *own, err)
		}
		t.changed(1)
		return nil
	})
	if err != nil {
		return byHand(err)
	}
	if last {
		t.notice("this host has the last member of etcd: the cluster ends with it")
	}
	return nil
}

// ownMember is the member whose data this host has, or that is announced at its address; and
// how many others vote.
func ownMember(all EtcdMembers, data etcdData, peerURL string) (own *EtcdMember, others int) {
	for _, m := range all.Members {
		mine := m.ID == data.Member
		if data.Member == 0 {
			mine = m.PeerURL == peerURL
		}
		switch {
		case mine:
			own = &m
		case !m.Learner:
			others++
		}
	}
	return own, others
}

// etcdOfHost is etcd as this control plane knows it: by itself, and by what the API tells of
// the others, which will be there when this host's own member has gone.
func (t *Target) etcdOfHost(ctx context.Context) (Etcd, error) {
	if t.Etcd != nil {
		return t.Etcd, nil
	}
	n := t.Node
	n.Roles = []config.Role{config.ControlPlaneRole}
	existing, err := Existing(ctx, t.Host, n)
	if err != nil {
		return nil, err
	}
	tls, err := pki.EtcdClientOf(existing)
	if err != nil {
		return nil, err
	}
	local := "https://" + loopback(t, 2379)
	return NewEtcdClient(t.Host, tls, func(ctx context.Context) ([]string, error) {
		endpoints := []string{local}
		api, _, err := t.apiOfHost(ctx)
		if err != nil {
			return endpoints, nil
		}
		bounded, cancel := context.WithTimeout(ctx, etcdCall/2)
		defer cancel()
		others, err := etcdEndpoints(api)(bounded)
		if err != nil {
			return endpoints, nil // its own has to do
		}
		return append(endpoints, others...), nil
	}), nil
}

// deleteNode removes this host's Node object. It never fails, as leaveEtcd.
func deleteNode(ctx context.Context, t *Target) error {
	byHand := func(err error) error {
		t.notice("the Node object of this host was not deleted: %v; delete it from elsewhere with `kubectl delete node %s`", err, t.Node.Name)
		return ctx.Err()
	}
	api := t.API
	if api == nil {
		return nil // it is no node
	}
	if none, ok := api.(NoAPI); ok {
		return byHand(none.Err)
	}
	node := ref("v1", "Node", "", t.Node.Name)
	err := until(ctx, leaving, "the API server", func(ctx context.Context) error {
		bounded, cancel := context.WithTimeout(ctx, etcdCall)
		defer cancel()
		if _, err := api.Get(bounded, node); isNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
		if err := api.Delete(bounded, node); err != nil {
			return err
		}
		t.changed(1)
		return nil
	})
	if err != nil {
		return byHand(err)
	}
	return nil
}

// apiOfHost is the cluster's API with the first kubeconfig that this host has, and which one
// that is; nil where it has none.
func (t *Target) apiOfHost(ctx context.Context) (API, string, error) {
	if t.API != nil {
		return t.API, pki.AdminConf, nil
	}
	for _, path := range []string{pki.AdminConf, pki.SuperAdminConf, pki.KubeletConf} {
		conf, err := t.Host.ReadFile(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, path, err
		}
		if path == pki.KubeletConf {
			return NoAPI{}, path, nil // it points to a certificate in another file, and has no right that would help
		}
		api, err := NewClient(t.Host, conf)
		return api, path, err
	}
	return nil, "", nil
}
