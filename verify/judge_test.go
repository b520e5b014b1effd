package verify

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// wantError checks that err holds want; empty: that there is none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestAnswersOfNslookup(t *testing.T) {
	const server = "1 Server:\t\t10.96.0.10\n1 Address:\t10.96.0.10:53\n1 \n"
	for name, c := range map[string]struct {
		out  string
		want []string
		err  string
	}{
		"addresses in any order":    {"1 Name:\tx\n1 Address: 10.0.0.2\n1 Name:\tx\n1 Address: 10.0.0.1\n", []string{"10.0.0.1", "10.0.0.2"}, ""},
		"the server is no answer":   {"", []string{"10.96.0.10:53"}, "no answer"},
		"an alias":                  {"1 a.b\tcanonical name = example.org\n", []string{"example.org"}, ""},
		"a name for an address":     {"1 1.0.96.10.in-addr.arpa\tname = web.x\n", []string{"web.x"}, ""},
		"an address too many":       {"1 Address: 10.0.0.1\n1 Address: 10.0.0.9\n", []string{"10.0.0.1"}, "answer [10.0.0.1 10.0.0.9], want [10.0.0.1]"},
		"what the server said":      {"1 ** server can't find x: NXDOMAIN\n", []string{"10.0.0.1"}, "no answer: server can't find x: NXDOMAIN"},
		"answers of another lookup": {"2 Address: 10.0.0.1\n", []string{"10.0.0.1"}, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, judgeAnswers(server+c.out, []query{{"service", "x", c.want}}), c.err)
		})
	}
}

func TestPaths(t *testing.T) {
	receiver := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod-1"}, Spec: corev1.PodSpec{NodeName: "c2"}, Status: corev1.PodStatus{PodIP: "10.244.1.2"}}
	const seen = "addr 127.0.0.1/8\naddr 10.244.0.0/32\nseen pod-1 0 [::ffff:10.244.0.7] pod-1\n"
	for name, c := range map[string]struct {
		out  string
		host bool
		err  string
	}{
		"a good one":                   {seen + "mtu pod-1 eth0 1450 whole\nping pod-1 0.2\n", false, ""},
		"IPv6, where no size is shown": {seen + "mtu pod-1 - 0 unknown\n", false, ""},
		"a source the node has not":    {seen, true, "the receiver saw source 10.244.0.7, which is not the sender's [127.0.0.1 10.244.0.0]"},
		"a source the node has":        {"addr 10.244.0.0/32\nseen pod-1 0 10.244.0.0 pod-1\n", true, ""},
		"another pod answers":          {"seen pod-1 0 10.244.0.7 pod-9\n", false, "something else answered"},
		"silence":                      {"seen pod-1 143 Terminated\n", false, "no answer within 3s"},
		"refusal":                      {"seen pod-1 1 wget: can't connect: Connection refused\n", false, ": can't connect: Connection refused"},
		"full packets lost":            {seen + "mtu pod-1 eth0 1450 lost\n", false, "packets of 1450 bytes, the MTU of eth0, are lost"},
		"full packets fragmented":      {seen + "mtu pod-1 eth0 1450 fragmented\n", false, "are fragmented"},
		"nothing":                      {"", false, "nothing was seen"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sender{node: node{name: "c1"}, pod: &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: c.host}, Status: corev1.PodStatus{PodIP: "10.244.0.7"}}}
			s.addrs, s.paths = parsePaths(c.out)
			wantError(t, s.judge(receiver), c.err)
		})
	}
}

func TestMembersOfEtcd(t *testing.T) {
	const c1 = "e58, started, c1, https://172.18.0.2:2380, https://172.18.0.2:2379, false\n"
	for name, c := range map[string]struct{ out, err string }{
		"one for each pod": {c1 + "f01, started, c2, https://172.18.0.3:2380, https://172.18.0.3:2379, false\n", ""},
		"one too few":      {c1, "members are [c1], etcd pods are on [c1 c2]"},
		"one not started":  {c1 + "f01, unstarted, , https://172.18.0.3:2380, , false\n", "member f01 at https://172.18.0.3:2380 is unstarted"},
		"a learner":        {c1 + "f01, started, c2, https://172.18.0.3:2380, https://172.18.0.3:2379, true\n", "member c2 is a learner"},
		"no list":          {"Error: context deadline exceeded\n", "etcdctl member list says"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, judgeMembers(c.out, []string{"c1", "c2"}), c.err) })
	}
}

func TestResolver(t *testing.T) {
	r := parseResolver("search x.svc.example.test svc.example.test example.test lan\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n")
	if want := (resolver{"10.96.0.10", "example.test"}); r != want {
		t.Errorf("got %v, want %v", r, want)
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
		{nil, []string{"99"}, "", `no check "99"`},
	} {
		list, err := choose(Checks(), c.only, c.skip)
		wantError(t, err, c.err)
		var got []string
		for _, check := range list {
			got = append(got, check.id())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("only %v, skip %v: got %v, want %s", c.only, c.skip, got, c.want)
		}
	}
}
