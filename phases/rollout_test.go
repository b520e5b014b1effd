package phases

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
)

// agent is a DaemonSet "agent" of the pod network on nodes cp-1, w-1 and w-2, as its cluster shows it. Its newest
// revision is "new".
type agent struct {
	unseen             bool // by the controller manager, as applied last
	updated, available int  // as the DaemonSet says
	lost               string
	pods               string // node, revision and state of each
}

func (a agent) api(t *testing.T) *memory {
	t.Helper()
	text := fmt.Sprintf(`
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: net, uid: d, generation: 2}, spec: {selector: {matchLabels: {app: agent}}},
 status: {observedGeneration: %d, desiredNumberScheduled: 3, updatedNumberScheduled: %d, numberReady: %d}}
---
{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: a, namespace: net, labels: {controller-revision-hash: old}, ownerReferences: [{uid: d, controller: true}]}, revision: 1}
---
{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: b, namespace: net, labels: {controller-revision-hash: new}, ownerReferences: [{uid: d, controller: true}]}, revision: 2}
`, map[bool]int{true: 1, false: 2}[a.unseen], a.updated, a.available)
	for _, n := range []string{"cp-1", "w-1", "w-2"} {
		text += fmt.Sprintf("---\n{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {conditions: [{type: Ready, status: \"%s\"}]}}\n", n, map[bool]string{true: "Unknown", false: "True"}[strings.Contains(a.lost, n)])
	}
	for line := range strings.Lines(a.pods) {
		w := strings.Fields(line)
		text += fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: agent-%s, namespace: net, labels: {controller-revision-hash: %s}, ownerReferences: [{uid: d, controller: true}]}, spec: {nodeName: %s},\n status: %s}\n", w[0], w[1], w[0], map[string]string{
			"ready":   `{conditions: [{type: Ready, status: "True"}]}`,
			"crashes": `{containerStatuses: [{name: main, state: {waiting: {reason: CrashLoopBackOff, message: back-off 10s}}, lastState: {terminated: {exitCode: 1, message: no eth9}}}]}`,
			"probed":  `{conditions: [{type: ContainersReady, status: "False", message: "containers with unready status: [main]"}], containerStatuses: [{name: main, state: {running: {}}}]}`,
		}[w[2]])
	}
	api := remembers(t, text)
	inventory := addons.Inventory("cni", []addons.Object{ref("apps/v1", "DaemonSet", "net", "agent")})
	api.objects[describe(inventory)] = inventory
	return api
}

// remembers is an API with the objects of YAML documents, their status as well.
func remembers(t *testing.T, text string) *memory {
	t.Helper()
	api := &memory{objects: map[string]addons.Object{}}
	for document := range strings.SplitSeq(text, "---\n") {
		b, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		api.objects[describe(o)] = o
	}
	return api
}

const onAll = "cp-1 new ready\nw-1 new ready\nw-2 new ready\n"

func TestANetworkThatDoesNotComeUpEndsTheRun(t *testing.T) {
	for name, tt := range map[string]struct {
		is   agent
		want []string // none: it is up
	}{
		"rolled out":                       {agent{updated: 3, available: 3}, nil}, // not even pods are asked for
		"of a lost node nothing is wanted": {agent{updated: 2, available: 2, lost: "w-2", pods: "cp-1 new ready\nw-1 new ready\nw-2 old ready\n"}, nil},
		"a lost node has no pod":           {agent{updated: 2, available: 2, lost: "w-2", pods: "cp-1 new ready\nw-1 new ready\n"}, nil},
		"a lost node keeps it from others": {agent{updated: 1, available: 2, lost: "w-2", pods: "cp-1 new ready\nw-1 old ready\nw-2 old probed\n"}, nil},
		"a lost node is no excuse":         {agent{updated: 2, available: 1, lost: "w-2", pods: "cp-1 new ready\nw-1 new crashes\nw-2 old probed\n"}, []string{"agent-w-1 on w-1, container main"}},
		"no node is ready":                 {agent{unseen: true, lost: "cp-1 w-1 w-2"}, nil},
		"not taken up":                     {agent{unseen: true, updated: 3, available: 3, pods: onAll}, []string{"the controller manager has not taken it up"}},
		"it crashes": {agent{updated: 1, available: 2, pods: "cp-1 old ready\nw-1 new crashes\nw-2 old ready\n"}, []string{
			"DaemonSet net/agent is not rolled out on all nodes that are ready", "Pod net/agent-w-1 on w-1, container main: CrashLoopBackOff: back-off 10s; it ended with code 1: no eth9",
			"Pod net/agent-cp-1 on cp-1 is still the one of before", "kubectl -n net logs agent-w-1 -c main", "the same command again"}},
		"its probe fails":  {agent{updated: 3, available: 2, pods: "cp-1 new ready\nw-1 new probed\nw-2 new ready\n"}, []string{"Pod net/agent-w-1 on w-1 is not ready: containers with unready status: [main]"}},
		"a pod is missing": {agent{updated: 2, available: 2, pods: "cp-1 new ready\nw-1 new ready\n"}, []string{"on one node more there is no pod of it"}},
	} {
		t.Run(name, func(t *testing.T) {
			target := newFakeHost(t).target(cluster(), config.ControlPlaneRole)
			target.API = tt.is.api(t)
			err := waitNetwork(t.Context(), target)
			if tt.want == nil && err != nil {
				t.Error(err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("not %q, but %v", want, err)
				}
			}
		})
	}
}

func TestAClusterWithoutDNSSaysWhichPodsAreNotReady(t *testing.T) {
	target := newFakeHost(t).target(cluster(), config.ControlPlaneRole)
	target.Cluster.Spec.Timeouts.ControlPlaneComponentHealthCheck = config.Duration{Duration: time.Millisecond}
	target.API = agent{pods: "w-1 new crashes\n"}.api(t)
	err := waitDNS(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "CoreDNS did not become available") || !strings.Contains(err.Error(), "\nPod net/agent-w-1 on w-1, container main: CrashLoopBackOff") {
		t.Errorf("got %v", err)
	}
}
