package phases

import (
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
)

func TestANodeOfWhichTheCloudSaysNothingEndsTheRun(t *testing.T) {
	const (
		taint   = `{key: node.cloudprovider.kubernetes.io/uninitialized, value: "true", effect: NoSchedule}`
		said    = `spec: {taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]}, status: {conditions: [{type: Ready, status: "True"}]}`
		unsaid  = `spec: {taints: [` + taint + `]}, status: {conditions: [{type: Ready, status: "True"}]}`
		lost    = `spec: {taints: [` + taint + `]}, status: {conditions: [{type: Ready, status: Unknown}]}`
		crashes = `{containerStatuses: [{name: ccm, state: {waiting: {reason: CrashLoopBackOff, message: back-off 10s}}, lastState: {terminated: {exitCode: 255, message: no instance-id}}}]}`
		runs    = `{conditions: [{type: Ready, status: "True"}], containerStatuses: [{name: ccm, state: {running: {}}}]}`
	)
	for name, tt := range map[string]struct {
		worker, pod string
		want        []string // none: all is said
	}{
		"all is said":            {said, runs, nil},
		"nobody waits for those": {lost, crashes, nil},
		"it crashes":             {unsaid, crashes, []string{"has not said within 4m0s what these nodes are to the cloud: w-1", "Pod kube-system/ccm on cp-1, container ccm: CrashLoopBackOff: back-off 10s; it ended with code 255: no instance-id", "k8s-app=aws-cloud-controller-manager"}},
		"it goes on asking":      {unsaid, runs, []string{"its last lines on cp-1:\nno instances found"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.answers["crictl ps --all --latest --quiet --name ^ccm$"] = "f00\n"
			h.answers["crictl logs --tail 10 f00"] = "no instances found\n"
			target := h.target(cluster(), config.ControlPlaneRole)
			target.API = remembers(t, "{apiVersion: v1, kind: Node, metadata: {name: cp-1}, "+said+"}\n---\n"+
				"{apiVersion: v1, kind: Node, metadata: {name: w-1}, "+tt.worker+"}\n---\n"+
				"{apiVersion: v1, kind: Pod, metadata: {name: ccm, namespace: kube-system}, spec: {nodeName: cp-1, containers: [{name: ccm}]}, status: "+tt.pod+"}\n")
			err := waitCloud(t.Context(), target)
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
