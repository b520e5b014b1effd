package phases

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// newControlPlane is the fake host as one that is to become the second control plane, and
// the secrets of the first.
func newControlPlane(t *testing.T) (*fakeHost, *config.Cluster, *pki.Secrets) {
	t.Helper()
	h, c := newFakeHost(t), cluster()
	healthy(h)
	h.files["/proc/sys/kernel/hostname"] = text("cp-2\n")
	c.Spec.ControlPlane.Endpoint = "api.example.org"
	secrets, err := pki.New(c, config.Node{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}, Address: "192.0.2.10"}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return h, c, secrets
}

// firstMember is what etcd consists of before.
func firstMember() EtcdMembers {
	return EtcdMembers{Cluster: 0x9100a088ccd66453, Members: []EtcdMember{{ID: 1, Name: "cp-1", PeerURL: "https://192.0.2.10:2380"}}}
}

// joiningTarget is what `join --control-plane` makes of a fake host, as often as it is run there.
func joiningTarget(h *fakeHost, c *config.Cluster, first *pki.Secrets, etcd EtcdMembers) *Target {
	h.t.Helper()
	target := h.target(cluster(), config.ControlPlaneRole)
	target.Etcd = &EtcdRecorder{Live: etcd}
	kubelet, err := manifests.KubeletConfiguration(c)
	if err != nil {
		h.t.Fatal(err)
	}
	d := &Discovery{Server: "https://api.example.org:6443", CA: first.CACert(), Cluster: c, KubeletConfiguration: kubelet, API: &APIRecorder{}}
	target.Discover = func(context.Context) (*Discovery, error) { return d, nil }
	target.Admit = func(ctx context.Context, t *Target) (*Admission, error) {
		existing, err := Existing(ctx, t.Host, t.Node)
		if err != nil {
			return nil, err
		}
		own, _, err := t.joined(ctx)
		if err != nil {
			return nil, err
		}
		secrets, err := pki.Join(own.Cluster, own.Node, existing, first.Shared(), time.Now())
		return &Admission{Secrets: secrets, API: &APIRecorder{}, Local: &APIRecorder{}, Etcd: target.Etcd}, err
	}
	return target
}

func TestTranscriptOfJoinControlPlane(t *testing.T) {
	h, c, first := newControlPlane(t)
	b := testBundle(t, c)
	target := func(etcd EtcdMembers) *Target {
		target := joiningTarget(h, c, first, etcd)
		target.Bundle = b
		return target
	}
	golden(t, "joincontrolplane", "kubewright join --control-plane --bundle, on a new Debian host: what each phase does.\n"+transcript(h, JoinControlPlane(), target(firstMember())))

	// Etcd has run since, and this is its log.
	ownLog(h)
	etcd := firstMember()
	etcd.Members = append(etcd.Members, EtcdMember{ID: 0xdb7e56acd2e2150, Name: "cp-2", PeerURL: "https://192.0.2.11:2380"})
	again := transcript(h, JoinControlPlane(), target(etcd))
	nothingOnHost(t, again)
	if strings.Contains(again, "etcd learner") || strings.Contains(again, "etcd member") {
		t.Errorf("a second run changes etcd:\n%s", again)
	}
	if _, ok := h.files[pki.SuperAdminConf]; ok {
		t.Error("super-admin.conf is for the first control plane alone")
	}
}

// ownLog gives a host the data of the member in realWAL.
func ownLog(h *fakeHost) {
	const path = "/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal"
	head, err := hex.DecodeString(realWAL)
	if err != nil {
		h.t.Fatal(err)
	}
	h.files[path] = text("")
	h.answers["head -c 512 "+path] = string(head)
}

func TestEtcdJoinMovesDataOfARemovedMemberAside(t *testing.T) {
	h, c, first := newControlPlane(t)
	ownLog(h)
	h.files[manifests.Path(manifests.Etcd)] = text("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: etcd, command: [etcd, --initial-cluster=old=https://192.0.2.99:2380, --initial-cluster-state=existing]}]}\n")
	h.answers["crictl ps --quiet --name ^etcd$"] = ""
	target := joiningTarget(h, c, first, firstMember())
	etcd := target.Etcd.(*EtcdRecorder)
	var said events
	target.Report = said.report
	if err := Run(t.Context(), Select(JoinControlPlane(), "etcd/join"), target, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(etcd.Steps(), "; "); got != "add etcd learner https://192.0.2.11:2380" {
		t.Errorf("etcd was told: %s", got)
	}
	if got := mustRead(h, manifests.Path(manifests.Etcd)); !strings.Contains(got, "--initial-cluster=cp-1=https://192.0.2.10:2380,cp-2=https://192.0.2.11:2380") {
		t.Errorf("the manifest has not the members of now:\n%s", got)
	}
	if m := said.messages(); len(m) != 1 || !strings.Contains(m[0], "/var/lib/etcd/member-") {
		t.Errorf("it said %q", m)
	}
	if _, ok := h.files["/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal"]; ok {
		t.Error("the data are still in the way")
	}
}

// What stands in the way of a further control plane is said before anything is changed.
func TestAdmissionIsRefused(t *testing.T) {
	ready := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}}}
	frontProxy, b := testCA(t), testBundle(t, cluster())
	key, other := addons.NewCertificateKey(), addons.NewCertificateKey()
	for name, tt := range map[string]struct {
		key    addons.CertificateKey
		change func(h *fakeHost, c *config.Cluster, api *objectsAPI)
		want   []string
	}{
		"no stable address": {key, func(_ *fakeHost, c *config.Cluster, _ *objectsAPI) { c.Spec.ControlPlane.Endpoint = "" }, []string{"--control-plane-endpoint", "as a worker"}},
		"a bundle of another version": {key, func(_ *fakeHost, c *config.Cluster, _ *objectsAPI) { c.Spec.KubernetesVersion = "v1.36.1" },
			[]string{"[Bundle] the bundle has no image registry.k8s.io/kube-apiserver:v1.36.1"}},
		"another cluster's CA": {key, func(h *fakeHost, _ *config.Cluster, _ *objectsAPI) { h.files[pki.CA+".crt"] = text("of somebody else") },
			[]string{"belongs to another cluster", "kubewright reset"}},
		"a node of that name": {key, func(_ *fakeHost, _ *config.Cluster, api *objectsAPI) { api.objects["Node cp-2"] = ready }, []string{"has a node cp-2 that is Ready", "--node-name"}},
		"no key":              {addons.CertificateKey{}, func(*fakeHost, *config.Cluster, *objectsAPI) {}, []string{"--certificate-key-file", uploadCommand, pki.EtcdCA + ".key"}},
		"another key":         {other, func(*fakeHost, *config.Cluster, *objectsAPI) {}, []string{"the certificate key is not the one", uploadCommand}},
		"no certificates any more": {key, func(_ *fakeHost, _ *config.Cluster, api *objectsAPI) {
			delete(api.objects, "Secret kube-system/kubeadm-certs")
		},
			[]string{"holds no certificates", uploadCommand}},
		"some files without a key": {addons.CertificateKey{}, func(h *fakeHost, _ *config.Cluster, api *objectsAPI) {
			h.files[pki.FrontProxyCA+".crt"] = text(string(frontProxy))
		}, []string{pki.CA + ".crt is missing: it must come from a control plane", pki.EtcdCA + ".crt is missing", pki.ServiceAccount + ".key is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, first := newControlPlane(t)
			owner := ref("v1", "Secret", "kube-system", "owner")
			api := &objectsAPI{objects: map[string]addons.Object{"Secret kube-system/kubeadm-certs": addons.CertificatesSecret(key, owner, sharedBy(t, first))}}
			target := joiningTarget(h, c, first, firstMember())
			d, err := target.Discover(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			d.API = api
			target.Admit, target.Bundle = Admit(tt.key), b
			tt.change(h, c, api)
			err = Run(t.Context(), Select(JoinControlPlane(), "certs"), target, nil)
			if err == nil {
				t.Fatal("it was admitted")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the message lacks %q: %v", w, err)
				}
			}
			if len(h.done) > 0 {
				t.Errorf("it did %q", h.done)
			}
		})
	}
	t.Run("not with all files copied by hand", func(t *testing.T) {
		h, c, first := newControlPlane(t)
		for path, content := range first.Shared() {
			h.files[path] = text(string(content))
		}
		target := joiningTarget(h, c, first, firstMember())
		target.Admit = Admit(addons.CertificateKey{})
		if err := Run(t.Context(), Select(JoinControlPlane(), "certs"), target, nil); err != nil {
			t.Fatal(err)
		}
		mustRead(h, pki.EtcdPeer+".crt")
	})
	t.Run("not with all that it takes", func(t *testing.T) {
		h, c, first := newControlPlane(t)
		api := &objectsAPI{objects: map[string]addons.Object{"Secret kube-system/kubeadm-certs": addons.CertificatesSecret(key, ref("v1", "Secret", "kube-system", "owner"), sharedBy(t, first))}}
		target := joiningTarget(h, c, first, firstMember())
		d, _ := target.Discover(t.Context())
		d.API = api
		target.Admit = Admit(key)
		if err := Run(t.Context(), Select(JoinControlPlane(), "certs"), target, nil); err != nil {
			t.Fatal(err)
		}
		for path, want := range first.Shared() {
			if got := mustRead(h, path); got != string(want) {
				t.Errorf("%s is not the first control plane's", path)
			}
		}
	})
}

// The CA's key is nobody's to upload: what it has to sign is named.
func TestJoinWithAnExternalCA(t *testing.T) {
	h, c, first := newControlPlane(t)
	key := addons.NewCertificateKey()
	shared := sharedBy(t, first)
	shared["ca.key"] = nil
	api := &objectsAPI{objects: map[string]addons.Object{"Secret kube-system/kubeadm-certs": addons.CertificatesSecret(key, ref("v1", "Secret", "kube-system", "owner"), shared)}}
	target := joiningTarget(h, c, first, firstMember())
	d, err := target.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.API, target.Admit = api, Admit(key)
	err = Run(t.Context(), Select(JoinControlPlane(), "certs"), target, nil)
	var unsigned *pki.UnsignedError
	if !errors.As(err, &unsigned) || len(unsigned.Missing) != 2 {
		t.Fatalf("it said %v", err)
	}
	for _, path := range []string{pki.APIServer + ".csr", pki.APIServerKubeletClient + ".csr", pki.EtcdPeer + ".crt", pki.FrontProxyClient + ".crt"} {
		mustRead(h, path)
	}
	if _, ok := h.files[pki.CA+".key"]; ok {
		t.Error("it wrote a key")
	}
}

// objectsAPI is an API that holds some objects.
type objectsAPI struct {
	APIRecorder
	objects map[string]addons.Object
}

func (a *objectsAPI) Get(ctx context.Context, o addons.Object) (addons.Object, error) {
	if live, ok := a.objects[describe(o)]; ok {
		return live, nil
	}
	return a.APIRecorder.Get(ctx, o)
}

func (a *objectsAPI) List(_ context.Context, o addons.Object, _ string) (out []addons.Object, err error) {
	for _, live := range a.objects {
		if live.GetKind() == o.GetKind() {
			out = append(out, live)
		}
	}
	return out, nil
}

func TestEtcdIsFoundByItsPodsAndBesideAPIServers(t *testing.T) {
	pod := ref("v1", "Pod", "kube-system", "etcd-cp-1")
	pod.SetAnnotations(map[string]string{"kubeadm.kubernetes.io/etcd.advertise-client-urls": "https://192.0.2.10:2379"})
	slice := ref("discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes")
	slice.Object["endpoints"] = []any{map[string]any{"addresses": []any{"192.0.2.10", "192.0.2.12"}}, map[string]any{"addresses": []any{"2001:db8::1"}}}
	api := &objectsAPI{objects: map[string]addons.Object{describe(pod): pod, describe(slice): slice}}
	got, err := etcdEndpoints(api)(t.Context())
	if want := "https://192.0.2.10:2379 https://192.0.2.12:2379 https://[2001:db8::1]:2379"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := etcdEndpoints(&objectsAPI{})(t.Context()); err == nil {
		t.Error("no etcd, and no error")
	}
}

// A host that does not answer must not hold an etcd client for ever.
func TestEtcdClientSaysWhomItAsked(t *testing.T) {
	h := newFakeHost(t)
	h.dial["tcp 192.0.2.10:2379"] = func(context.Context) (net.Conn, error) { return nil, errors.New("no route to host") }
	c := NewEtcdClient(h, nil, func(context.Context) ([]string, error) { return []string{"http://192.0.2.10:2379"}, nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Members(ctx); err == nil || !strings.Contains(err.Error(), "etcd at http://192.0.2.10:2379") {
		t.Errorf("it said %v", err)
	}
}

// sharedBy is what a control plane would upload.
func sharedBy(t *testing.T, first *pki.Secrets) map[string][]byte {
	t.Helper()
	files, err := (&Target{Cluster: cluster(), Secrets: first}).certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return files
}
