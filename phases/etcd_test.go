package phases

import (
	"context"
	"net"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// etcdServer is an etcd that knows its members, and nothing else.
type etcdServer struct {
	etcdserverpb.UnimplementedClusterServer
	members []*etcdserverpb.Member
}

func (s *etcdServer) MemberList(context.Context, *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	return &etcdserverpb.MemberListResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 1}, Members: s.members}, nil
}

func (s *etcdServer) MemberUpdate(_ context.Context, r *etcdserverpb.MemberUpdateRequest) (*etcdserverpb.MemberUpdateResponse, error) {
	for _, m := range s.members {
		if m.ID == r.ID {
			m.PeerURLs = r.PeerURLs
		}
	}
	return &etcdserverpb.MemberUpdateResponse{Header: &etcdserverpb.ResponseHeader{}, Members: s.members}, nil
}

func TestAMemberIsAskedWhereItServesAndMovedToWhereItListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	s := grpc.NewServer()
	etcdserverpb.RegisterClusterServer(s, &etcdServer{members: []*etcdserverpb.Member{{ID: 7, Name: "cp-1", PeerURLs: []string{"https://192.0.2.9:2380"}, ClientURLs: []string{url}}, {ID: 8, PeerURLs: []string{"https://192.0.2.8:2380"}}}})
	go s.Serve(l)
	defer s.Stop()
	u := fleet("cp-1")
	u.leader, u.members[u.Machines[0]] = u.Machines[0], true
	c := NewEtcdClient(host.Local{}, nil, func(context.Context) ([]string, error) { return []string{url}, nil })
	u.etcds = map[*Machine]*EtcdClient{u.leader: c}
	_, serving, err := u.etcdNow(t.Context())
	if err != nil || !serving[7] || serving[8] {
		t.Errorf("%v serve, %v", serving, err)
	}
	u.alone = EtcdMember{ID: 7}
	if err := u.moveAlone(t.Context(), "https://192.0.2.1:2380"); err != nil || u.Changes() != 1 {
		t.Errorf("%d changes, %v", u.Changes(), err)
	}
	if all, err := c.Members(t.Context()); err != nil || all.Members[0].PeerURL != "https://192.0.2.1:2380" || all.Members[1].clientURL() != "https://192.0.2.8:2379" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTheOnlyMemberOfEtcdIsMovedToTheAddressOfItsManifest(t *testing.T) {
	const was, is = "https://192.0.2.9:2380", "https://192.0.2.1:2380"
	for name, tt := range map[string]struct {
		alone    EtcdMember
		manifest string
		change   func(*Up)
		want     bool
	}{
		"it has another address":         {EtcdMember{ID: 7, PeerURL: was}, is, nil, true},
		"it has the same":                {EtcdMember{ID: 7, PeerURL: is}, is, nil, false},
		"its manifest has another":       {EtcdMember{ID: 7, PeerURL: was}, was, nil, false},
		"it is not this host's":          {EtcdMember{ID: 8, PeerURL: was}, is, nil, false},
		"etcd does not answer":           {EtcdMember{}, is, func(u *Up) { u.leader.data = etcdData{} }, false},
		"its host is not to be changed":  {EtcdMember{ID: 7, PeerURL: was}, is, func(u *Up) { u.Only = []string{"worker"} }, false},
		"etcd is not to be touched":      {EtcdMember{ID: 7, PeerURL: was}, is, func(u *Up) { u.Skip = []string{"etcd"} }, false},
		"nothing of the cluster is made": {EtcdMember{ID: 7, PeerURL: was}, is, func(u *Up) { u.PrepareOnly = true }, false},
	} {
		u, h := fleet("cp-1"), newFakeHost(t)
		u.leader = u.Machines[0]
		u.leader.Host, u.leader.data, u.alone = h, etcdData{Member: 7}, tt.alone
		h.files[manifests.Path(manifests.Etcd)] = host.File{Content: host.Bytes([]byte("    - --initial-advertise-peer-urls=" + tt.manifest + "\n    - --name=cp-1\n"))}
		if tt.change != nil {
			tt.change(u)
		}
		if url, moved := u.hasMoved(t.Context()); moved != tt.want || moved && url != is {
			t.Errorf("%s: %q, %v", name, url, moved)
		}
	}
}
