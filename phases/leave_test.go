package phases

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

func TestLeaveEtcd(t *testing.T) {
	first := firstMember().Members[0]
	own := EtcdMember{ID: 0xdb7e56acd2e2150, Name: "cp-2", PeerURL: "https://192.0.2.11:2380"}
	announced := EtcdMember{ID: 5, PeerURL: "https://192.0.2.11:2380", Learner: true}
	moved := EtcdMember{ID: 0xdb7e56acd2e2150, Name: "cp-2", PeerURL: "https://192.0.2.77:2380"}
	for name, tt := range map[string]struct {
		members []EtcdMember
		data    bool
		removed string
		said    string
	}{
		"a member":                          {[]EtcdMember{first, own}, true, own.PeerURL, ""},
		"a member at its address of before": {[]EtcdMember{first, moved}, true, moved.PeerURL, ""},
		"one that was never started":        {[]EtcdMember{first, announced}, false, announced.PeerURL, ""},
		"one that was removed":              {[]EtcdMember{first}, true, "", ""},
		"the last":                          {[]EtcdMember{own}, true, "", "the last member"},
		"the last that votes":               {[]EtcdMember{own, {ID: 5, PeerURL: "https://192.0.2.13:2380", Learner: true}}, true, "", "the last member"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, _ := newControlPlane(t)
			h.files[manifests.Path(manifests.Etcd)] = text("kind: Pod\n")
			if tt.data {
				ownLog(h)
			}
			etcd := &EtcdRecorder{Live: EtcdMembers{0x9100a088ccd66453, tt.members}}
			target := h.target(c, config.WorkerRole)
			target.Etcd = etcd
			var said events
			target.Report = said.report
			if err := leaveEtcd(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			want := ""
			if tt.removed != "" {
				want = "remove etcd member " + tt.removed
			}
			if got := strings.Join(etcd.Steps(), "; "); got != want {
				t.Errorf("it did %q, want %q", got, want)
			}
			if got := strings.Join(said.messages(), "; "); (got == "") != (tt.said == "") || !strings.Contains(got, tt.said) {
				t.Errorf("it said %q, want %q", got, tt.said)
			}
		})
	}
	t.Run("without certificates it says how to do it", func(t *testing.T) {
		h, c, _ := newControlPlane(t)
		ownLog(h)
		target := h.target(c, config.WorkerRole)
		var said events
		target.Report = said.report
		if err := leaveEtcd(t.Context(), target); err != nil || len(said.messages()) != 1 || !strings.Contains(said.messages()[0], "etcdctl member remove") {
			t.Errorf("%v, said %q", err, said.messages())
		}
	})
	t.Run("a worker has nothing to leave", func(t *testing.T) {
		h, c, _ := newControlPlane(t)
		target := h.target(c, config.WorkerRole)
		var said events
		target.Report = said.report
		if err := leaveEtcd(t.Context(), target); err != nil || len(said.messages()) > 0 {
			t.Errorf("%v, said %q", err, said.messages())
		}
	})
}

func TestDeleteNode(t *testing.T) {
	h, c, _ := newControlPlane(t)
	node := ref("v1", "Node", "", "cp-2")
	api := &objectsAPI{objects: map[string]addons.Object{"Node cp-2": node}}
	target := h.target(c, config.WorkerRole)
	target.API = api
	if err := deleteNode(t.Context(), target); err != nil || fmt.Sprint(api.Steps()) != "[delete Node cp-2]" {
		t.Errorf("%v, it did %q", err, api.Steps())
	}
	target.API = nil
	var said events
	target.Report = said.report
	if err := deleteNode(t.Context(), target); err != nil || len(said.messages()) > 0 {
		t.Errorf("on a host that is no node: %v, said %q", err, said.messages())
	}
	h.files[pki.KubeletConf] = text("")
	OpenDoors(t.Context(), target)
	if err := deleteNode(t.Context(), target); err != nil || len(said.messages()) != 1 || !strings.Contains(said.messages()[0], "kubectl delete node cp-2") {
		t.Errorf("on a worker: %v, said %q", err, said.messages())
	}
}
