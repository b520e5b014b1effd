package phases

import (
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// made are the certificates of a first control plane, in the order in which they are written.
func made(t *testing.T, u *Up, m *Machine) (paths []string, contents map[string][]byte) {
	t.Helper()
	s, err := pki.New(u.Cluster, m.Node, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	contents = map[string][]byte{}
	for _, f := range files {
		b, err := bytesOf(f.Content)
		if err != nil {
			t.Fatal(err)
		}
		paths, contents[f.Path] = append(paths, f.Path), b
	}
	return paths, contents
}

func TestNoSecondCAForAClusterThatCannotBeAsked(t *testing.T) {
	u := fleet("cp-1", "cp-2", "cp-3")
	u.Machines[0].Err = errDown // it has the CA
	u.Machines[1].data = etcdData{Member: 1, Cluster: 1}
	err := u.Prepare(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cp-1 cannot be asked") {
		t.Fatalf("%v", err)
	}
	if len(u.shared) > 0 {
		t.Error("something was made all the same")
	}
}

// A kill may come between any two of the files.
func TestAFirstRunThatWasCutShortGoesOnWithWhatItHasMade(t *testing.T) {
	paths, contents := made(t, fleet("cp-1"), fleet("cp-1").Machines[0])
	for n := range paths {
		u := fleet("cp-1", "w-1")
		have := map[string][]byte{}
		for _, p := range paths[:n] {
			have[p] = contents[p]
		}
		u.Machines[0].Existing = have
		if err := u.Prepare(t.Context()); err != nil {
			t.Fatalf("after %d files, the last of which is %v: %v", n, paths[max(n-1, 0)], err)
		}
		for p, b := range have {
			if now, ok := u.shared[p]; ok && string(now) != string(b) {
				t.Errorf("after %d files: %s was made anew", n, p)
			}
		}
	}
}

func TestWhatASilentClusterIsStandsOnItsHosts(t *testing.T) {
	u := fleet("cp-1")
	u.Cluster.Spec.Network.ServiceCIDR = "10.96.0.0/12"
	u.Cluster.Spec.KubernetesVersion = "v1.36.3"
	m := u.Machines[0]
	m.manifests = map[string][]byte{manifests.Path(manifests.APIServer): []byte("    - --service-cluster-ip-range=10.128.0.0/12\n    image: registry.k8s.io/kube-apiserver:v1.36.2\n")}
	err := u.kept()
	for _, part := range []string{`spec.kubernetesVersion: the cluster has "v1.36.2" and the document "v1.36.3"`, `spec.network.serviceCIDR: the cluster has "10.128.0.0/12"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
}

func TestAMemberIsKnownByItsDataFirst(t *testing.T) {
	u := fleet("cp-1", "cp-2")
	all := EtcdMembers{Members: []EtcdMember{
		{ID: 1, Name: "cp-1", PeerURL: "https://192.0.2.2:2380"}, // at the address that the document gives cp-2
		{ID: 2, Name: "cp-2", PeerURL: "https://192.0.2.9:2380"},
		{ID: 3, PeerURL: "https://192.0.2.1:2380"},
	}}
	for _, tt := range []struct {
		machine int
		data    uint64
		want    uint64
	}{{1, 0, 2}, {1, 1, 1}, {0, 0, 1}, {0, 3, 3}} {
		m := u.Machines[tt.machine]
		m.data.Member = tt.data
		if got := u.memberOf(all, m); got == nil || got.ID != tt.want {
			t.Errorf("%s with the data of %d is %v, want %d", m.Node.Name, tt.data, got, tt.want)
		}
	}
	all.Members = all.Members[2:]
	if got := u.memberOf(all, &Machine{Node: config.Node{Name: "cp-1", Address: "192.0.2.1"}}); got == nil || got.ID != 3 {
		t.Errorf("one that was never started is known by its address: %v", got)
	}
}

func TestOneMayRestartOnlyWhileTheOthersAreAMajority(t *testing.T) {
	for _, tt := range []struct {
		voters, down int
		want         bool
	}{{1, 0, true}, {2, 0, true}, {2, 1, false}, {3, 0, true}, {3, 1, false}, {4, 0, true}, {4, 1, false}, {5, 0, true}, {5, 1, true}, {5, 2, false}} {
		if got := keepsMajority(tt.voters, tt.down); got != tt.want {
			t.Errorf("of %d voters %d are down: %v", tt.voters, tt.down, got)
		}
	}
}

func TestDownTakesHostsOfOneClusterOnly(t *testing.T) {
	u := fleet("cp-1", "w-1")
	u.Cluster.Metadata.Name = "test"
	if err := u.oneCluster(); err != nil {
		t.Fatal(err)
	}
	u.Machines[0].manifests = map[string][]byte{manifests.Path(manifests.ControllerManager): []byte("    - --cluster-name=prod\n")}
	u.Machines[0].Existing = map[string][]byte{pki.CA + ".crt": []byte("a")}
	u.Machines[1].Existing = map[string][]byte{pki.CA + ".crt": []byte("b")}
	u.Machines[1].node = "prod-7"
	err := u.Down(t.Context(), false)
	for _, part := range []string{"control plane of the cluster prod", "is the node prod-7, and the document calls it w-1", "cp-1 and w-1 are of two clusters", "--force"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
}
