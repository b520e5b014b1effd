package reach

import (
	"net/netip"
	"testing"

	"github.com/kubewright/kubewright/reach/probe"
)

func TestAPortAtWhichNobodyCanListenIsNoWayThatIsFree(t *testing.T) {
	vxlan := Port{Network: "udp", Number: 8472}
	l := &look{
		hosts: []Host{{Name: "cp-1", Address: netip.MustParseAddr("192.0.2.11")}, {Name: "w-1", Address: netip.MustParseAddr("192.0.2.12")}},
		asks:  []Ask{{From: 0, To: 1, Ports: []Port{vxlan}}},
		ends:  []*end{{}, {listens: probe.Answer{Refused: map[string]string{"udp/8472": "permission denied"}}}},
		errs:  make([]error, 2),
	}
	r := l.result()
	if len(r.Ways) != 0 || len(r.Unseen) != 1 || r.Unseen["w-1"] != "it cannot listen at udp/8472: permission denied" {
		t.Errorf("got %+v", r)
	}
}
