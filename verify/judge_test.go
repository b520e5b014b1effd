package verify

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubewright/kubewright/verify/probe"
)

// wantError checks that err holds want; empty: that there is none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestAnswersOfDNS(t *testing.T) {
	q := probe.Query{Kind: "service", Type: "A", Name: "web.x", Want: []string{"10.0.0.1"}}
	good := probe.Answer{Query: q, Values: q.Want}
	silent := probe.Answer{Query: q, Error: "10.96.0.10:53 did not answer within 4s"}
	for name, c := range map[string]struct {
		answers []probe.Answer
		err     string
	}{
		"as wanted":           {[]probe.Answer{good, good}, ""},
		"an address too many": {[]probe.Answer{good, {Query: q, Values: []string{"10.0.0.1", "10.0.0.9"}}}, "service, A web.x: answer 10.0.0.1 10.0.0.9, want 10.0.0.1"},
		"none":                {[]probe.Answer{good, {Query: q}}, "service, A web.x: no such record"},
		"what went wrong":     {[]probe.Answer{good, silent}, "service, A web.x: 10.96.0.10:53 did not answer within 4s"},
		"all, in one line":    {[]probe.Answer{silent, silent}, "none of 2 look-ups went well, the first: service, A web.x"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, judgeAnswers(c.answers), c.err) })
	}
}

func TestPaths(t *testing.T) {
	receiver := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod-1"}, Spec: corev1.PodSpec{NodeName: "c2"}, Status: corev1.PodStatus{PodIP: "10.244.1.2"}}
	seen := func(source string, state probe.State) probe.Path {
		return probe.Path{Source: source, Device: "eth0", Bytes: 1450, State: state}
	}
	for name, c := range map[string]struct {
		path probe.Path
		host bool
		err  string
	}{
		"a good one":              {seen("10.244.0.7", probe.Whole), false, ""},
		"a source the node has":   {seen("10.244.0.0", probe.Whole), true, ""},
		"the pod's other family":  {seen("fd00::7", probe.Whole), false, ""},
		"a source nobody has":     {seen("10.244.0.7", probe.Whole), true, "node c1 -> pod on c2 (10.244.1.2): the receiver saw source 10.244.0.7, which is not the sender's 127.0.0.1 10.244.0.0"},
		"silence":                 {probe.Path{Error: "no answer within 3s"}, false, "pod on c1 -> pod on c2 (10.244.1.2): no answer within 3s"},
		"full packets lost":       {seen("10.244.0.7", probe.Lost), false, "packets of 1450 bytes, the MTU of eth0, are lost"},
		"full packets fragmented": {seen("10.244.0.7", probe.Fragmented), false, "are fragmented"},
		"no datagrams at all":     {seen("10.244.0.7", probe.Silent), false, "UDP is not answered"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sender{node: node{name: "c1"}, ways: probe.Ways{Addresses: []string{"127.0.0.1", "10.244.0.0"}}, pod: &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: c.host},
				Status: corev1.PodStatus{PodIP: "10.244.0.7", PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}, {IP: "fd00::7"}}}}}
			var found []finding
			if f := s.judge(c.path, receiver); f.what != "" {
				found = append(found, f)
			}
			wantError(t, told(found, 3), c.err)
		})
	}
}

func TestOneCauseIsOneLine(t *testing.T) {
	nodes := []string{"c1", "w1", "w2"}
	ways := func(what string, silent bool, keep func(from, to string) bool) (all []finding) {
		for _, from := range nodes {
			for _, kind := range []string{"pod on ", "node "} {
				for _, to := range nodes {
					if keep(from, to) {
						all = append(all, finding{kind + from, "pod on " + to, from, to, silent, what})
					}
				}
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		found []finding
		want  []string
	}{
		"a node that is cut off": {ways("no answer", true, func(from, to string) bool { return from != to && (from == "w1" || to == "w1") }),
			[]string{"nothing gets through between node w1 and the others, either way (8 paths; pod on c1 -> pod on w1: no answer)"}},
		"all nodes": {ways("no answer", true, func(from, to string) bool { return from != to }),
			[]string{"between node c1 and the others", "pod on w1 -> pod on w2: no answer", "node w1 -> pod on w2", "pod on w2 -> pod on w1", "node w2 -> pod on w1"}},
		"one way": {ways("no answer", true, func(from, to string) bool { return from == "w1" && to == "w2" }),
			[]string{"pod on w1 -> pod on w2: no answer", "node w1 -> pod on w2: no answer"}},
		"one sender": {ways("100% lost", false, func(from, to string) bool { return from == "w1" && to != "w1" }),
			[]string{"pod on w1 -> pod on c1, pod on w2: 100% lost", "node w1 -> pod on c1, pod on w2: 100% lost"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Split(told(c.found, len(nodes)).Error(), "\n")
			for i, want := range c.want {
				if len(got) != len(c.want) || !strings.Contains(got[i], want) {
					t.Fatalf("got\n%s\nwant %q", strings.Join(got, "\n"), c.want)
				}
			}
		})
	}
	if err := told(nil, 3); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestMembersOfEtcd(t *testing.T) {
	const c1 = "e58, started, c1, https://172.18.0.2:2380, https://172.18.0.2:2379, false\n"
	for name, c := range map[string]struct{ out, err string }{
		"one for each pod": {c1 + "f01, started, c2, https://172.18.0.3:2380, https://172.18.0.3:2379, false\n", ""},
		"one too few":      {c1, "members are c1, etcd pods are on c1 c2"},
		"one not started":  {c1 + "f01, unstarted, , https://172.18.0.3:2380, , false\n", "member f01 at https://172.18.0.3:2380 is unstarted"},
		"a learner":        {c1 + "f01, started, c2, https://172.18.0.3:2380, https://172.18.0.3:2379, true\n", "member c2 is a learner"},
		"no list":          {"Error: context deadline exceeded\n", "etcdctl member list says"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, judgeMembers(c.out, []string{"c1", "c2"}), c.err) })
	}
}

func TestStateOfEtcd(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*probe.EtcdState)
		err    string
	}{
		"a leader and a follower": {func(*probe.EtcdState) {}, ""},
		"no leader":               {func(s *probe.EtcdState) { s.Members[0].Leader, s.Members[1].Leader = "c", "c" }, "no member is the leader"},
		"two leaders":             {func(s *probe.EtcdState) { s.Members[1].Leader = "b" }, "member c2 follows b, member c1 follows a"},
		"a learner":               {func(s *probe.EtcdState) { s.Members[1].Learner = true }, "member c2 is still a learner"},
		"one that is down":        {func(s *probe.EtcdState) { s.Members[1].Error = "connection refused" }, "member c2 (b): connection refused"},
		"nothing written":         {func(s *probe.EtcdState) { s.Members[0].Revision = 0 }, "member c1 is at revision 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := probe.EtcdState{Snapshot: probe.Snapshot{Digest: "sha256:" + strings.Repeat("0", 64)}, Members: []probe.EtcdMember{
				{Name: "c1", ID: "a", Leader: "a", Revision: 7}, {Name: "c2", ID: "b", Leader: "a", Revision: 7}}}
			c.change(&s)
			_, err := judgeEtcd(s)
			wantError(t, err, c.err)
		})
	}
}

func TestTheWayToEtcdIsInTheFlagsOfTheAPIServer(t *testing.T) {
	pod := func(args ...string) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Command: append([]string{"kube-apiserver"}, args...)}}}}
	}
	e := etcdOf(pod("--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=/ca", "--etcd-certfile=/crt", "--etcd-keyfile=/key"))
	if e == nil || e.Endpoints[0] != "https://127.0.0.1:2379" || e.CA != "/ca" || e.Cert != "/crt" || e.Key != "/key" {
		t.Errorf("got %+v", e)
	}
	if e := etcdOf(pod("--etcd-servers=http://127.0.0.1:2379")); e != nil {
		t.Errorf("without certificates: got %+v", e)
	}
	if got := addresses([]string{"https://127.0.0.1:2379", "https://192.0.2.1:2379", "https://[::1]:2379"}); len(got) != 1 || got[0] != "192.0.2.1:2379" {
		t.Errorf("others reach %v", got)
	}
}

func TestBeginnings(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	pod := func(restarts int32, started metav1.Time) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{RestartCount: restarts, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: at}}}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}}}}}
	}
	two := []probe.Beginning{{At: at.Time}, {At: at.Add(time.Second)}}
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		began []probe.Beginning
		err   string
	}{
		"twice":          {pod(1, at), two, ""},
		"once":           {pod(0, at), two[:1], "ran 1 times"},
		"not said":       {pod(0, at), two, "does not say that its init container was run again"},
		"did not wait":   {pod(1, metav1.NewTime(at.Add(-time.Second))), two, "container main did not wait"},
		"without notice": {pod(1, at), nil, "ran 0 times"},
		"it runs on": {&corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{RestartCount: 1,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}}, two, "the init container has not ended"},
	} {
		t.Run(name, func(t *testing.T) { _, err := judgeBeginnings(c.pod, c.began); wantError(t, err, c.err) })
	}
}

func all(texts ...string) []netip.Prefix { return prefixes(texts) }

func nodeWith(name, address string, podCIDRs ...string) node {
	return node{name: name, is: corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: podCIDRs},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}}}}
}

func TestRangesOfTheCluster(t *testing.T) {
	for name, c := range map[string]struct {
		pods, services string
		node           node
		err            string
	}{
		"apart":                     {"10.244.0.0/16", "10.96.0.0/12", nodeWith("c1", "192.0.2.1", "10.244.1.0/24"), ""},
		"pods and services":         {"10.100.0.0/16", "10.96.0.0/12", nodeWith("c1", "192.0.2.1"), "the pod range 10.100.0.0/16 overlaps the service range 10.96.0.0/12"},
		"a node among the pods":     {"10.244.0.0/16", "10.96.0.0/12", nodeWith("c1", "10.244.9.9"), "node c1 has address 10.244.9.9, which is in the range 10.244.0.0/16"},
		"a node among the services": {"10.244.0.0/16", "10.96.0.0/12", nodeWith("c1", "10.97.0.1"), "which is in the range 10.96.0.0/12"},
		"a part of another range":   {"10.244.0.0/16", "10.96.0.0/12", nodeWith("c1", "192.0.2.1", "10.1.1.0/24"), "node c1 gives its pods addresses of 10.1.1.0/24, which is outside of 10.244.0.0/16"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, judgeRanges(all(c.pods), all(c.services), []node{c.node}), c.err) })
	}
}

func TestRangesAndAHost(t *testing.T) {
	way := func(to, via, device string) probe.Route {
		r := probe.Route{To: netip.MustParsePrefix(to), Device: device}
		r.Via, _ = netip.ParseAddr(via)
		return r
	}
	for name, c := range map[string]struct {
		route    probe.Route
		resolver string
		err      string
	}{
		"its own network":               {way("192.0.2.0/24", "", "eth0"), "192.0.2.53", ""},
		"the default route":             {way("0.0.0.0/0", "192.0.2.254", "eth0"), "", ""},
		"a gateway among the pods":      {way("0.0.0.0/0", "10.244.0.1", "eth0"), "", "its gateway 10.244.0.1 is in the range 10.244.0.0/16"},
		"a lease over flannel.1":        {way("10.244.2.0/24", "10.244.2.0", "flannel.1"), "", ""},
		"a lease over host-gw":          {way("10.244.2.0/24", "192.0.2.2", "eth0"), "", ""},
		"Calico's, without an overlay":  {way("10.244.151.128/26", "192.0.2.2", "eth0"), "", ""},
		"a company's network":           {way("10.244.0.0/17", "192.0.2.9", "tun0"), "", "node c1: its route 10.244.0.0/17 dev tun0 overlaps the range 10.244.0.0/16"},
		"one that is in all services":   {way("10.0.0.0/8", "192.0.2.9", "tun0"), "", "overlaps the range 10.96.0.0/12"},
		"a resolver among the services": {way("192.0.2.0/24", "", "eth0"), "10.96.0.10", "its resolver 10.96.0.10 is in the range 10.96.0.0/12"},
		"ipvs' own addresses":           {way("10.96.0.10/32", "", "kube-ipvs0"), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, judgeHost("c1", all("10.244.0.0/16"), all("10.96.0.0/12"), all("10.244.1.0/24", "10.244.2.0/24"), []netip.Addr{netip.MustParseAddr("192.0.2.2")}, []probe.Route{c.route}, "search lan\nnameserver "+c.resolver+"\n"), c.err)
		})
	}
}

func TestLeasesOfFlannel(t *testing.T) {
	got, err := parseLease("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd00:1::1/64\nFLANNEL_MTU=1450\n")
	if err != nil || join(got) != "10.244.1.0/24 fd00:1::/64" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = parseLease("FLANNEL_MTU=1450\n")
	wantError(t, err, "names no subnet")
	nodes := []node{nodeWith("c1", "", "10.244.0.0/24"), nodeWith("w1", "", "10.244.1.0/24")}
	for name, c := range map[string]struct{ c1, w1, err string }{
		"each its own":     {"10.244.0.0/24", "10.244.1.0/24", ""},
		"another":          {"10.244.0.0/24", "10.244.9.0/24", "node w1: flannel's lease is 10.244.9.0/24, the node's podCIDR 10.244.1.0/24"},
		"that of another":  {"10.244.0.0/24", "10.244.0.0/24", "the lease 10.244.0.0/24 of node w1 overlaps 10.244.0.0/24 of node c1"},
		"none on one node": {"10.244.0.0/24", "", ""},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, judgeLeases(nodes, [][]netip.Prefix{all(c.c1), all(c.w1)}), c.err) })
	}
}

func TestRoutesToPods(t *testing.T) {
	to := netip.MustParseAddr("10.244.2.7")
	for text, want := range map[string]bool{"0.0.0.0/0": false, "10.244.2.0/26": true, "10.244.3.0/26": false} {
		if got := knows([]probe.Route{{To: netip.MustParsePrefix(text)}}, to); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestConnectionsOfWeave(t *testing.T) {
	text := "-> 192.0.2.1:6783   established fastdp a(c1) mtu=1376\n<- 192.0.2.2:4711   pending     fastdp b(w1)\n-> 192.0.2.3:6783   cannot connect to ourself\n"
	if n := established(text); n != 1 {
		t.Errorf("got %d", n)
	}
}

func TestWhichNodeMayBeCordoned(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"any":                 {func(*corev1.Node) {}, true},
		"a control plane":     {func(n *corev1.Node) { n.Spec.Taints[0].Key = controlPlane }, true},
		"one that is kept":    {func(n *corev1.Node) { n.Spec.Taints[0].Effect = corev1.TaintEffectNoSchedule }, false},
		"cordoned by another": {func(n *corev1.Node) { n.Spec.Unschedulable = true }, false},
		"not ready":           {func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, false},
	} {
		n := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectPreferNoSchedule}}},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
		c.change(n)
		if got := forAll(n); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestEndpointsAreCounted(t *testing.T) {
	yes, no := true, false
	e := func(ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	for name, c := range map[string]struct {
		have  []discoveryv1.Endpoint
		n     int
		ready bool
		want  bool
	}{
		"ready":            {[]discoveryv1.Endpoint{e(&yes)}, 1, true, true},
		"not said is yes":  {[]discoveryv1.Endpoint{e(nil)}, 1, true, true},
		"not ready":        {[]discoveryv1.Endpoint{e(&no)}, 1, false, true},
		"ready, too early": {[]discoveryv1.Endpoint{e(&yes)}, 1, false, false},
		"gone":             {nil, 0, false, true},
		"one too many":     {[]discoveryv1.Endpoint{e(&yes), e(&yes)}, 1, true, false},
	} {
		if got := endpointReady(c.n, c.ready)(c.have); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestWhoAnsweredIsSaidInWords(t *testing.T) {
	if got := counts(map[string]int{"backend-1": 32, "backend-0": 28}); got != "backend-0 (28), backend-1 (32)" {
		t.Error(got)
	}
	if got := counts(nil); got != "nobody" {
		t.Error(got)
	}
}

func TestWhatIsExported(t *testing.T) {
	o := &unstructured.Unstructured{Object: map[string]any{"kind": "ConfigMap", "data": map[string]any{"a": "b"}, "status": map[string]any{},
		"metadata": map[string]any{"name": "x", "namespace": "y", "uid": "1", "resourceVersion": "2", "creationTimestamp": "3", "managedFields": []any{}, "labels": map[string]any{"l": "m"}}}}
	want := map[string]any{"kind": "ConfigMap", "data": map[string]any{"a": "b"}, "metadata": map[string]any{"name": "x", "namespace": "y", "labels": map[string]any{"l": "m"}}}
	if got := exported(o).Object; !sameJSON(got, want) {
		t.Errorf("got %v", got)
	}
	if o.Object["status"] == nil {
		t.Error("the original was changed")
	}
}

func TestURLsThatFail(t *testing.T) {
	wantError(t, judgeGot([]probe.Got{{URL: "http://a"}}), "")
	wantError(t, judgeGot([]probe.Got{{URL: "http://a", Error: "connection refused"}, {URL: "http://b"}}), "http://a: connection refused")
	wantError(t, judgeGot([]probe.Got{{URL: "http://a", Error: "connection refused"}, {URL: "http://b", Error: "no answer"}}), "2 of 2 URLs fail, the first is http://a: connection refused")
}

// The rows are those of the statements, each once and in their order.
func TestEachStatementHasARow(t *testing.T) {
	row := 0
	names := map[string]bool{}
	for _, c := range Checks() {
		if c.Row > 0 {
			if row++; c.Row != row {
				t.Errorf("row %d comes where %d belongs", c.Row, row)
			}
		}
		if names[c.Name] {
			t.Errorf("two checks are named %s", c.Name)
		}
		names[c.Name] = true
	}
	if row != 29 {
		t.Errorf("there are %d rows", row)
	}
}

func TestChecksAreChosenByRowOrName(t *testing.T) {
	for _, c := range []struct {
		only, skip []string
		want, err  string
	}{
		{[]string{"4", "exec"}, nil, "4 exec", ""},
		{[]string{"dns"}, nil, "4", ""},
		{[]string{"4", "8"}, []string{"dns"}, "8", ""},
		{nil, []string{"99"}, "", `no check "99": write the row of one, as --help has them, or its name, one of etcd-alone, `},
		{[]string{"20"}, []string{"pod-network"}, "", "no check is left to run"},
	} {
		list, err := choose(Checks(), c.only, c.skip)
		wantError(t, err, c.err)
		var got []string
		for _, check := range list {
			got = append(got, check.ID())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("only %v, skip %v: got %v, want %s", c.only, c.skip, got, c.want)
		}
	}
}
