package e2e

import (
	"testing"
	"time"
)

// One control plane and one worker over SSH, then all that drifts, grows and goes.
func TestUp(t *testing.T) {
	ctx, l := needLab(t, 6*time.Minute)
	hosts := preparedHosts(ctx, t, "up-1", "up-2", "up-3")
	explainFailure(t, hosts...)
	s := newSite(ctx, t, l, "prod", "", hosts[:2]...)
	before := s.now()
	planned, _ := s.plan()
	s.up(0)
	s.asPlanned(planned, s.since(before))
	s.nothing()
}
