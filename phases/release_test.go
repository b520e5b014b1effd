package phases

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

// upOn is a cluster whose API has these objects, and whose etcd is elsewhere.
func upOn(t *testing.T, objects ...addons.Object) (*Up, *dynamicfake.FakeDynamicClient) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	var all []runtime.Object
	for _, o := range objects {
		all = append(all, o)
	}
	lists := map[schema.GroupVersionResource]string{{Version: "v1", Resource: "nodes"}: "NodeList", {Version: "v1", Resource: "services"}: "ServiceList"}
	d := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, all...)
	c := cluster()
	c.Spec.Etcd.External = &config.ExternalEtcd{}
	u := &Up{Cluster: c, Machines: []*Machine{{Node: config.Node{Name: "cp-1"}}, {Node: config.Node{Name: "cp-2"}}}}
	u.leader, u.api = u.Machines[0], &Client{dynamic: d, http: s.Client(), server: s.URL, limit: time.Minute, kinds: &sync.Map{}}
	return u, d
}

func node(name, ready string) addons.Object {
	o := ref("v1", "Node", "", name)
	o.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": ready}}}
	return o
}

func service(name, kind string) addons.Object {
	o := ref("v1", "Service", "default", name)
	o.Object["spec"] = map[string]any{"type": kind}
	return o
}

func TestWhoMayBeRemoved(t *testing.T) {
	down := errors.New("no route to host")
	for name, tt := range map[string]struct {
		machine string
		err     error
		removal Removal
		want    string
	}{
		"one whose node is there":             {"cp-2", nil, Removal{}, ""},
		"one that is down, and ready":         {"cp-2", down, Removal{}, "it may be at work"},
		"one that is said to be dead":         {"cp-2", down, Removal{Dead: true}, ""},
		"one that is down, and not ready":     {"w-lost", down, Removal{}, ""},
		"one of the document, without a node": {"w-gone", nil, Removal{}, ""},
		"one of whom nobody knows":            {"stranger", down, Removal{Dead: true}, "neither the document nor the cluster has a host of this name"},
		"the one that leads":                  {"cp-1", nil, Removal{}, "the only control plane that answers"},
	} {
		t.Run(name, func(t *testing.T) {
			u, _ := upOn(t, node("cp-1", "True"), node("cp-2", "True"), node("w-lost", "Unknown"))
			u.Machines = append(u.Machines, &Machine{Node: config.Node{Name: "w-gone"}})
			m := &Machine{Node: config.Node{Name: tt.machine}}
			for _, known := range u.Machines {
				if known.Node.Name == tt.machine {
					m = known
				}
			}
			m.Err = tt.err
			if err := u.mayRemove(t.Context(), m, tt.removal); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestServicesWithALoadBalancerAreReleased(t *testing.T) {
	u, d := upOn(t, service("web", "LoadBalancer"), service("db", "ClusterIP"), service("mail", "LoadBalancer"))
	if n, err := u.Release(t.Context(), time.Minute); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	left, err := u.api.List(t.Context(), ref("v1", "Service", "", ""), "")
	if err != nil || len(left) != 1 || left[0].GetName() != "db" {
		t.Errorf("%v, %v", left, err)
	}
	u, d = upOn(t, service("web", "LoadBalancer"))
	d.PrependReactor("delete", "services", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil }) // its controller is slow
	if _, err := u.Release(t.Context(), time.Nanosecond); err == nil || !strings.Contains(err.Error(), "default/web") {
		t.Errorf("one that stays: %v", err)
	}
}

func TestWhoIsLostIsOneOfOurMachines(t *testing.T) {
	of := func(name, pool, id string) addons.Object {
		o := node(name, "Unknown")
		o.SetLabels(map[string]string{"pool": pool})
		o.Object["spec"] = map[string]any{"providerID": id}
		return o
	}
	u, _ := upOn(t, of("cp-1", "cp", "aws:///z/i-1"), of("CP-2", "cp", "aws:///z/i-2"), of("w-1", "w", "aws:///z/i-3"), node("by-hand", "Unknown"))
	lost, err := u.Lost(t.Context(), "pool")
	if err != nil || len(lost) != 1 || lost[0].Name != "w-1" || lost[0].ProviderID != "aws:///z/i-3" {
		t.Errorf("lost are %v, %v", lost, err)
	}
	hosts := []config.Node{{Name: "cp-1", Labels: map[string]string{"pool": "cp"}, ProviderID: "aws:///z/i-1"}, {Name: "w-1", Labels: map[string]string{"pool": "w"}}, {Name: "kin"}}
	members := EtcdMembers{Members: []EtcdMember{{Name: "cp-1"}, {Name: "by-hand"}, {Name: "kin"}, {}}}
	if all := labelled(hosts, "pool", members); !slices.EqualFunc(all, hosts[:1], func(x, y config.Node) bool { return x.Name == y.Name && x.ProviderID == y.ProviderID }) {
		t.Errorf("members of ours are %v", all)
	}
}
