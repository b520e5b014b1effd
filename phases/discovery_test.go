package phases

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// fakeAPI is an API server that knows ConfigMaps and Nodes, to whoever may read them.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string]addons.Object // by path
	bearer  string                   // whose token is accepted; anonymous may read kube-public
	before  []int                    // statuses of the first answers
	asked   []string
}

func newFakeAPI(t *testing.T) *fakeAPI {
	a := &fakeAPI{objects: map[string]addons.Object{}, bearer: tokenText}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that hang up as they should
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

func (a *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.URL.Path)
	refuse := func(s *apierrors.StatusError) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(s.ErrStatus.Code))
		s.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		json.NewEncoder(w).Encode(s.ErrStatus)
	}
	if len(a.before) > 0 {
		code := a.before[0]
		a.before = a.before[1:]
		refuse(apierrors.NewGenericServerResponse(code, "get", schema.GroupResource{Resource: "configmaps"}, "cluster-info", "", 0, false))
		return
	}
	if !strings.Contains(r.URL.Path, "/kube-public/") && r.Header.Get("Authorization") != "Bearer "+a.bearer {
		refuse(apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	o := a.objects[r.URL.Path]
	if o == nil {
		refuse(apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, r.URL.Path))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(o.Object)
}

func (a *fakeAPI) put(objects ...addons.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		if o.GetKind() == "ConfigMap" {
			a.objects["/api/v1/namespaces/"+o.GetNamespace()+"/configmaps/"+o.GetName()] = o
		}
	}
}

func (a *fakeAPI) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
}

func (a *fakeAPI) pin(t *testing.T) string {
	t.Helper()
	cert, err := x509.ParseCertificate(a.Certificate().Raw)
	if err != nil {
		t.Fatal(err)
	}
	return pki.Pin(cert)
}

// clusterInfo puts cluster-info, signed with tok, and gives it.
func (a *fakeAPI) clusterInfo(t *testing.T, tok addons.Token) addons.Object {
	t.Helper()
	objects, err := addons.ClusterInfo(a.URL, a.ca(), []addons.Token{tok})
	if err != nil {
		t.Fatal(err)
	}
	a.put(objects...)
	return objects[len(objects)-1]
}

// cluster puts what a cluster of ours, or one of kubeadm's, says of itself.
func (a *fakeAPI) cluster(t *testing.T, c *config.Cluster, ours bool) {
	t.Helper()
	kubelet, err := manifests.KubeletConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	kubeadm, err := manifests.ClusterConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	a.put(addons.Config(kubeadm, kubelet, false)...)
	if ours {
		own, err := addons.KubewrightConfig(c, []byte("kind: ArtifactLock\n"))
		if err != nil {
			t.Fatal(err)
		}
		a.put(own...)
	}
}

// found makes a cluster, lets change spoil it, and looks for it from a host.
func found(t *testing.T, change func(a *fakeAPI, info addons.Object, o *DiscoverOptions)) (*fakeAPI, *Discovery, error) {
	t.Helper()
	a := newFakeAPI(t)
	c := cluster()
	c.Metadata.Name = "ours"
	a.cluster(t, c, true)
	tok := token(t)
	info := a.clusterInfo(t, tok)
	o := DiscoverOptions{Endpoint: a.Listener.Addr().String(), Token: tok, Pins: []string{a.pin(t)}, Timeout: 10 * time.Second}
	change(a, info, &o)
	d, err := Discover(host.Local{}, o)(t.Context())
	if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
		t.Errorf("the token's secret is in the error: %v", err)
	}
	return a, d, err
}

func set(t *testing.T, o addons.Object, key, value string) {
	t.Helper()
	if err := unstructured.SetNestedField(o.Object, value, "data", key); err != nil {
		t.Fatal(err)
	}
}

func data(t *testing.T, o addons.Object, key string) string {
	t.Helper()
	v, ok, err := unstructured.NestedString(o.Object, "data", key)
	if err != nil || !ok {
		t.Fatal(err)
	}
	return v
}

func TestDiscoveryFindsTheCluster(t *testing.T) {
	a, d, err := found(t, func(*fakeAPI, addons.Object, *DiscoverOptions) {})
	if err != nil {
		t.Fatal(err)
	}
	if d.Server != a.URL || string(d.CA) != string(a.ca()) || d.Cluster.Metadata.Name != "ours" || !strings.Contains(string(d.KubeletConfiguration), "KubeletConfiguration") {
		t.Errorf("%+v", d)
	}
	if string(d.Lock) != "kind: ArtifactLock\n" {
		t.Errorf("its lock: %q", d.Lock)
	}
	if _, err := d.API.Get(t.Context(), ref("v1", "ConfigMap", "kube-system", addons.ConfigName)); err != nil {
		t.Errorf("its API: %v", err)
	}
}

func TestDiscoveryRemembers(t *testing.T) {
	a := newFakeAPI(t)
	a.cluster(t, cluster(), true)
	a.clusterInfo(t, token(t))
	find := Discover(host.Local{}, DiscoverOptions{Endpoint: a.Listener.Addr().String(), Token: token(t), Pins: []string{a.pin(t)}, Timeout: 10 * time.Second})
	first, err := find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := len(a.asked)
	if second, err := find(t.Context()); err != nil || second != first || len(a.asked) != n {
		t.Errorf("it asked again: %v, %v", a.asked[n:], err)
	}
}

func TestDiscoveryTakesKubeadmsWord(t *testing.T) {
	for name, hidden := range map[string]int{"not found": http.StatusNotFound, "forbidden": http.StatusForbidden} {
		a := newFakeAPI(t)
		c := cluster()
		c.Metadata.Name, c.Spec.Network.PodCIDR = "theirs", "10.10.0.0/16"
		a.cluster(t, c, false)
		a.clusterInfo(t, token(t))
		handler := a.Config.Handler
		a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, addons.ConfigName) {
				http.Error(w, "{}", hidden)
				return
			}
			handler.ServeHTTP(w, r)
		})
		d, err := Discover(host.Local{}, DiscoverOptions{Endpoint: a.Listener.Addr().String(), Token: token(t), SkipCA: true, Timeout: 10 * time.Second})(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Cluster.Metadata.Name != "theirs" || d.Cluster.Spec.Network.PodCIDR != "10.10.0.0/16" || d.Lock != nil {
			t.Errorf("%s: %+v, %q", name, d.Cluster, d.Lock)
		}
	}
}

func TestDiscoveryRefusesWhomItCannotTrust(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(a *fakeAPI, info addons.Object, o *DiscoverOptions)
		want   []string // parts of the message, the next step among them
	}{
		"a kubeconfig that was tampered with": {
			func(_ *fakeAPI, info addons.Object, _ *DiscoverOptions) {
				set(t, info, "kubeconfig", strings.Replace(data(t, info, "kubeconfig"), "https://", "https://evil.", 1))
			},
			[]string{"the signature of cluster-info does not match token abcdef", "something between here and the API server has changed the answer"},
		},
		"a token that it does not know": {
			func(_ *fakeAPI, _ addons.Object, o *DiscoverOptions) { o.Token = addons.NewToken() },
			[]string{"cluster-info is not signed by token ", "it has expired, was deleted or is mistyped", "`kubewright token create --print-join-command`"},
		},
		"a secret that is mistyped": {
			func(_ *fakeAPI, _ addons.Object, o *DiscoverOptions) {
				o.Token, _ = addons.ParseToken("abcdef.0123456789abcdee")
			},
			[]string{"the signature of cluster-info does not match token abcdef", "the token's secret is mistyped"},
		},
		"another CA than the pinned one": {
			func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
				o.Pins = []string{"sha256:" + strings.Repeat("0", 64)}
			},
			[]string{"the cluster's CA is not the pinned one: pinned sha256:000", "found sha256:", "take the pin from the join command of this very cluster"},
		},
		"a pin that is none": {
			func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) { o.Pins = []string{"sha256:abc"} },
			[]string{`CA pin "sha256:abc": must be sha256: and 64 hexadecimal digits`},
		},
		"no pin": {
			func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) { o.Pins = nil },
			[]string{"no CA pin: give --discovery-token-ca-cert-hash", "--discovery-token-unsafe-skip-ca-verification"},
		},
		"a server that is not set up for it": {
			func(_ *fakeAPI, info addons.Object, _ *DiscoverOptions) { set(t, info, "kubeconfig", "") },
			[]string{"cluster-info holds no kubeconfig: this API server is not set up for joining by token"},
		},
		"a token that was deleted meanwhile": {
			func(a *fakeAPI, _ addons.Object, _ *DiscoverOptions) { a.bearer = "other" },
			[]string{" does not accept the token abcdef.<secret>: it has expired or was deleted", "`kubewright token create --print-join-command`"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, d, err := found(t, tt.change)
			if err == nil {
				t.Fatalf("found %+v", d)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "not within") {
				t.Errorf("it waited for what waiting does not mend: %v", err)
			}
			if len(a.asked) > 2 {
				t.Errorf("it asked for %q", a.asked)
			}
		})
	}
}

func TestDiscoveryBelievesAnyCAWhenToldTo(t *testing.T) {
	if _, _, err := found(t, func(_ *fakeAPI, _ addons.Object, o *DiscoverOptions) { o.Pins, o.SkipCA = nil, true }); err != nil {
		t.Error(err)
	}
	// The signature counts nevertheless.
	if _, _, err := found(t, func(_ *fakeAPI, _ addons.Object, o *DiscoverOptions) {
		o.Pins, o.SkipCA = nil, true
		o.Token, _ = addons.ParseToken("abcdef.aaaaaaaaaaaaaaaa")
	}); err == nil {
		t.Error("a wrong token was accepted")
	}
}

func TestDiscoveryWaitsForAClusterThatIsBeingMade(t *testing.T) {
	var waiting []string
	_, _, err := found(t, func(a *fakeAPI, _ addons.Object, o *DiscoverOptions) {
		a.before = []int{http.StatusForbidden, http.StatusNotFound, http.StatusServiceUnavailable}
		o.Waiting = func(err error) { waiting = append(waiting, err.Error()) }
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(waiting) != 1 || !strings.HasPrefix(waiting[0], "no cluster-info at 127.0.0.1:") || !strings.HasSuffix(waiting[0], " yet: 403 Forbidden: has `kubewright init` (or `kubeadm init`) finished there?") {
		t.Errorf("it said %q", waiting)
	}
}

func TestDiscoveryTellsWhatItSawLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // five minutes of its own clock
		h := newFakeHost(t) // refuses every connection
		_, err := Discover(h, DiscoverOptions{Endpoint: "192.0.2.11:6443", Token: token(t), SkipCA: true, Timeout: 5 * time.Minute})(t.Context())
		got := fmt.Sprint(err)
		if !strings.HasPrefix(got, "cluster at 192.0.2.11:6443: not within 5m0s: ") || !strings.Contains(got, "connection refused") ||
			!strings.HasSuffix(got, ": is the address right, is the API server up, and does a firewall let this host reach it?") {
			t.Error(got)
		}
	})
}

func TestDiscoveryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Discover(newFakeHost(t), DiscoverOptions{Endpoint: "192.0.2.11:6443", Token: token(t), SkipCA: true, Timeout: time.Hour, Waiting: func(error) { cancel() }})(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// nodeAPI is an API with one node.
type nodeAPI struct {
	APIRecorder
	node addons.Object
}

func (a *nodeAPI) Get(ctx context.Context, o addons.Object) (addons.Object, error) {
	if a.node != nil && o.GetKind() == "Node" && o.GetName() == a.node.GetName() {
		return a.node, nil
	}
	return a.APIRecorder.Get(ctx, o)
}

func TestJoinRefusesWhatWouldHurt(t *testing.T) {
	node := func(name, ready string) addons.Object {
		o := ref("v1", "Node", "", name)
		o.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "MemoryPressure", "status": "True"}, map[string]any{"type": "Ready", "status": ready}}}
		return o
	}
	for name, tt := range map[string]struct {
		change func(h *fakeHost, d *Discovery, a *nodeAPI)
		want   string // empty: it goes on
	}{
		"nothing does":               {func(*fakeHost, *Discovery, *nodeAPI) {}, ""},
		"a node of that name, dead":  {func(_ *fakeHost, _ *Discovery, a *nodeAPI) { a.node = node("cp-1", "Unknown") }, ""},
		"a node of another name":     {func(_ *fakeHost, _ *Discovery, a *nodeAPI) { a.node = node("cp-2", "True") }, ""},
		"a node of that name, alive": {func(_ *fakeHost, _ *Discovery, a *nodeAPI) { a.node = node("cp-1", "True") }, "the cluster has a node cp-1 that is Ready: give this host another name with --node-name, or remove that node first with `kubectl delete node cp-1`"},
		"it is that node": {func(h *fakeHost, _ *Discovery, a *nodeAPI) {
			a.node = node("cp-1", "True")
			h.files[pki.KubeletConf] = text("x")
		}, ""},
		"it has the CA of the cluster": {func(h *fakeHost, d *Discovery, _ *nodeAPI) { h.files[pki.CA+".crt"] = text(string(d.CA) + "\n") }, ""},
		"it has the CA of another":     {func(h *fakeHost, _ *Discovery, _ *nodeAPI) { h.files[pki.CA+".crt"] = text("other") }, "[FileAvailable--etc-kubernetes-pki-ca.crt] this host belongs to another cluster, as its CA shows: take it out with `kubewright reset`"},
		"swap, which the cluster allows": {func(h *fakeHost, d *Discovery, _ *nodeAPI) {
			h.files["/proc/swaps"] = text("a\nb\n")
			d.KubeletConfiguration = []byte("failSwapOn: false")
		}, ""},
		"swap, which it does not": {func(h *fakeHost, _ *Discovery, _ *nodeAPI) { h.files["/proc/swaps"] = text("a\nb\n") }, "the host cp-1 is not ready: [Swap] swap is on"},
		"a range of the cluster":  {func(h *fakeHost, d *Discovery, _ *nodeAPI) { d.Cluster.Spec.Network.PodCIDR = "192.0.0.0/16" }, "the host cp-1 is not ready: [NetworkOverlap] the pod range 192.0.0.0/16 overlaps the host's address 192.0.2.11/24"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newFakeHost(t), cluster()
			d, err := discovered(t, c)(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			api := &nodeAPI{}
			d.API = api
			tt.change(h, d, api)
			target := joinTarget(h, c, nil)
			target.Discover = func(context.Context) (*Discovery, error) { return d, nil }
			before := len(h.files)
			err = tlsBootstrap(t.Context(), target)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if len(h.files) != before || len(h.done) > 0 {
				t.Errorf("it did %q", h.done)
			}
		})
	}
}

func TestAPodThatDoesNotComeSaysWhy(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	c.Spec.Timeouts.ControlPlaneComponentHealthCheck = config.Duration{}
	delete(h.dial, "tcp 127.0.0.1:2379")
	target := initTarget(h, c, nil)
	h.answers["journalctl --no-pager -o cat -n 5 -u kubelet"] = "Failed to pull image\n"
	err := waitEtcd(t.Context(), target)
	if got := fmt.Sprint(err); !strings.HasPrefix(got, "etcd: not within 0s: dial tcp: 127.0.0.1:2379: connection refused") || !strings.HasSuffix(got, "\nthe last lines of `journalctl -u kubelet`:\nFailed to pull image") {
		t.Error(got)
	}
	h.answers["crictl ps --all --latest --quiet --name ^etcd$"] = "f00\n"
	h.answers["crictl logs --tail 10 f00"] = "panic: no space left on device\n"
	err = waitEtcd(t.Context(), target)
	if got := fmt.Sprint(err); !strings.HasSuffix(got, "\nthe last lines of its container:\npanic: no space left on device") {
		t.Error(got)
	}
}

func TestProbeBelievesOnlyHealth(t *testing.T) {
	h := newFakeHost(t)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			http.Error(w, "[-]etcd failed", http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	h.dial["tcp 127.0.0.1:10259"] = to(s.Listener.Addr())
	if err := probe(t.Context(), h, "127.0.0.1:10259", "/livez"); err != nil {
		t.Error(err)
	}
	err := probe(t.Context(), h, "127.0.0.1:10259", "/healthz")
	if got := fmt.Sprint(err); got != "127.0.0.1:10259/healthz says 500 Internal Server Error: [-]etcd failed" {
		t.Error(got)
	}
	if err := probe(t.Context(), h, "127.0.0.1:10257", "/healthz"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}

// keeps is an API that has an object already.
type keeps struct {
	*APIRecorder
	object addons.Object
}

func (k keeps) Get(ctx context.Context, o addons.Object) (addons.Object, error) {
	if k.object != nil && o.GetName() == k.object.GetName() {
		return k.object, nil
	}
	return k.APIRecorder.Get(ctx, o)
}

func TestTheClusterKeepsTheLock(t *testing.T) {
	c := cluster()
	b := testBundle(t, c)
	var stored addons.Object
	for _, given := range []bool{true, false} { // an init that goes on without a bundle forgets nothing
		api := keeps{&APIRecorder{}, stored}
		target := &Target{Cluster: c, API: api}
		if given {
			target.Bundle = b
		}
		if err := uploadConfig(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		for _, s := range api.Steps() {
			if s.Object.GetKind() == "ConfigMap" && s.Object.GetName() == addons.ConfigName {
				stored = s.Object
			}
		}
		if lock := b.Lock(); data(t, stored, addons.LockKey) != string(lock.Bytes()) || data(t, stored, addons.DigestKey) != lock.Digest() {
			t.Errorf("with a bundle: %t: stored is %v", given, stored)
		}
	}
}
