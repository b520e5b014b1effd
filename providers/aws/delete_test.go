package aws

import (
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// What ends takes its time, and meanwhile nobody asks for what does not.
func TestDownAsksForWhatItWaitsFor(t *testing.T) {
	s := start(t, cloud.Options{Delay: 200 * time.Millisecond})
	a := connect(t, parse(t, small))
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(s.Calls())
	if _, err := a.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	looks := map[string]int{}
	n := 0
	for _, c := range s.Calls()[before:] {
		if strings.HasPrefix(c.Action, "Describe") || strings.HasPrefix(c.Action, "Get") {
			looks[c.Action]++
			n++
		}
	}
	if left := s.Resources(); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	t.Logf("%d looks", n)
	for _, action := range []string{"DescribeVpcs", "DescribeSubnets", "DescribeSecurityGroups", "GetRole"} {
		if looks[action] > 12 { // before, between, and twice for those that show late; of groups by two tags
			t.Errorf("%d looks by %s: %v", looks[action], action, looks)
		}
	}
}
