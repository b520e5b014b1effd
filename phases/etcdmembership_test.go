package phases

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func TestNextEtcdStep(t *testing.T) {
	const cluster, me = 9, "https://192.0.2.12:2380"
	first := EtcdMember{ID: 1, Name: "cp-1", PeerURL: "https://192.0.2.11:2380"}
	unstarted := EtcdMember{ID: 2, PeerURL: me, Learner: true}
	learner := EtcdMember{ID: 2, Name: "cp-2", PeerURL: me, Learner: true}
	voter := EtcdMember{ID: 2, Name: "cp-2", PeerURL: me}
	other := EtcdMember{ID: 3, PeerURL: "https://192.0.2.13:2380", Learner: true}
	otherStarted := EtcdMember{ID: 3, Name: "cp-3", PeerURL: "https://192.0.2.13:2380", Learner: true}
	own := etcdData{Member: 2, Cluster: cluster}
	gone := etcdData{Member: 7, Cluster: cluster}
	none := etcdData{}
	for name, tt := range map[string]struct {
		members []EtcdMember
		data    etcdData
		listens bool
		gone    bool // the other learner is
		want    etcdStep
		subject uint64
		err     string
	}{
		"a new host":                                         {members: []EtcdMember{first}, want: etcdAdd},
		"killed after it was added":                          {members: []EtcdMember{first, unstarted}, want: etcdStart, subject: 2},
		"killed while it started":                            {members: []EtcdMember{first, unstarted}, data: own, want: etcdStart, subject: 2},
		"killed before it was promoted":                      {members: []EtcdMember{first, learner}, data: own, want: etcdStart, subject: 2},
		"a voter":                                            {members: []EtcdMember{first, voter}, data: own, want: etcdVotes, subject: 2},
		"a voter that listens":                               {members: []EtcdMember{first, voter}, data: own, listens: true, want: etcdVotes, subject: 2},
		"another host joins":                                 {members: []EtcdMember{first, other}, want: etcdWait, subject: 3},
		"another host is about to be promoted":               {members: []EtcdMember{first, otherStarted}, want: etcdWait, subject: 3},
		"another host never came":                            {members: []EtcdMember{first, other}, gone: true, want: etcdRemove, subject: 3},
		"another host came and went":                         {members: []EtcdMember{first, otherStarted}, gone: true, want: etcdWait, subject: 3},
		"another host joins, and we have our place":          {members: []EtcdMember{first, voter, other}, data: own, want: etcdVotes, subject: 2},
		"it was removed":                                     {members: []EtcdMember{first}, data: gone, want: etcdMoveAside},
		"it was removed, and another host joins":             {members: []EtcdMember{first, other}, data: gone, want: etcdMoveAside},
		"it was removed and announced again":                 {members: []EtcdMember{first, unstarted}, data: gone, want: etcdMoveAside, subject: 2},
		"its data are gone":                                  {members: []EtcdMember{first, voter}, want: etcdRemove, subject: 2},
		"its data are gone before it was promoted":           {members: []EtcdMember{first, learner}, want: etcdRemove, subject: 2},
		"its data are those of one before":                   {members: []EtcdMember{first, voter}, data: gone, want: etcdRemove, subject: 2},
		"its data are elsewhere":                             {members: []EtcdMember{first, voter}, listens: true, err: "data-dir"},
		"data of another cluster":                            {members: []EtcdMember{first}, data: etcdData{Member: 2, Cluster: 8}, err: "kubewright reset"},
		"data of another cluster whose member has our id":    {members: []EtcdMember{first, voter}, data: etcdData{Member: 2, Cluster: 8}, err: "another cluster"},
		"a host that has changed its address":                {members: []EtcdMember{first, otherStarted}, data: etcdData{Member: 3, Cluster: cluster}, err: "--apiserver-advertise-address"},
		"a voter that was added without having been started": {members: []EtcdMember{first, {ID: 2, PeerURL: me}}, data: none, want: etcdStart, subject: 2},
	} {
		t.Run(name, func(t *testing.T) {
			step, subject, err := nextEtcdStep(etcdView{EtcdMembers: EtcdMembers{cluster, tt.members}, PeerURL: me, Data: tt.data, Listens: tt.listens, Abandoned: tt.gone})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%q, %v, want an error with %q", step, err, tt.err)
				}
				return
			}
			if err != nil || step != tt.want || subject.ID != tt.subject {
				t.Errorf("%q of member %d, %v, want %q of %d", step, subject.ID, err, tt.want, tt.subject)
			}
		})
	}
}

// The head of the log of a real etcd 3.6.8, and what `etcdctl member list` said of it.
const realWAL = "040000000000008408041000000000001f00000000000081080110b7efd5b6091a1508d0c2b8e9acadf9db0d10d3c8d9e68c91a880910100" +
	"0d00000000000083080510e58191221a04080010000000007100000000000087080210f589d5dd0b1a67080110011801225f0800100018d0c2b8e9acadf9db0d22"

func TestWhoseLogItIs(t *testing.T) {
	head, err := hex.DecodeString(realWAL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseWAL(head)
	if want := (etcdData{Member: 0xdb7e56acd2e2150, Cluster: 0x9100a088ccd66453}); got != want || err != nil {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
	for n := range 52 { // up to the end of the record
		if d, err := parseWAL(head[:n]); err == nil {
			t.Errorf("%d bytes: %x without an error", n, d)
		}
	}
	if _, err := parseWAL(make([]byte, walHead)); err == nil {
		t.Error("zeros: no error")
	}
}

func TestInitialClusterOfAJoiningMember(t *testing.T) {
	all := EtcdMembers{Members: []EtcdMember{
		{ID: 2, PeerURL: "https://192.0.2.12:2380", Learner: true},
		{ID: 1, Name: "cp-1", PeerURL: "https://192.0.2.11:2380"},
		{ID: 0xabc, PeerURL: "https://192.0.2.13:2380"},
	}}
	got := all.initialCluster("cp-2", "https://192.0.2.12:2380")
	want := []string{"abc=https://192.0.2.13:2380", "cp-1=https://192.0.2.11:2380", "cp-2=https://192.0.2.12:2380"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
