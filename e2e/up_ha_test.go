package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// A cluster by up, from one control plane to three; then what may happen to control planes:
// each time the others go on as if nothing were, and up brings back what is missing. Each step
// begins with what the one before left.
func TestUpHA(t *testing.T) {
	ctx, l := needLab(t, 15*time.Minute)
	bare := hosts(ctx, t, lab.HostOptions{}, "plane-1", "work-1", "work-2")
	more := preparedHosts(ctx, t, "plane-2", "plane-3")
	f := newFleet(ctx, t, l, "ha", append(bare, more...)...)
	plane1, work1, work2, plane2, plane3 := bare[0], bare[1], bare[2], more[0], more[1]

	f.step("one control plane and two workers, from bare hosts", func(t *testing.T) {
		f.write(t, "", []*lab.Host{plane1}, work1, work2)
		f.up(t)
	})
	f.step("two more control planes", func(t *testing.T) {
		f.write(t, "", []*lab.Host{plane1, plane2, plane3}, work1, work2)
		f.up(t)
		f.voters(t)
	})
	f.step("verify", func(t *testing.T) {
		verified(ctx, t, &cluster.Cluster{ControlPlane: plane1})
	})
	w := f.witness()
	f.step("the first control plane is cut off", func(t *testing.T) {
		f.lose(t, plane1, plane1.CutOff)
		f.upWithout(t, plane1)
		f.bringBack(t, plane1, plane1.Reconnect)
	})
	f.step("the second one is killed", func(t *testing.T) {
		f.lose(t, plane2, plane2.Kill)
		f.bringBack(t, plane2, plane2.Start)
	})
	w.end()
}

// upWithout runs up while a host is down: it does for the others what is to be done, and says which one was left.
func (f *fleet) upWithout(t *testing.T, down *lab.Host) {
	t.Helper()
	_, stderr, err := f.Up(f.ctx)
	if code := exitCode(err); code != 1 || !strings.Contains(stderr, down.Name+" was left as it is") {
		t.Errorf("up without %s ended with %d: %s", down.Name, code, stderr)
	}
}

// lose takes a control plane from the others: within ten seconds the API answers on each of
// them, and the kubelets of the workers tell it that they live.
func (f *fleet) lose(t *testing.T, h *lab.Host, lose func(context.Context) error) {
	t.Helper()
	begin := time.Now()
	if err := lose(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.lost[h] = true
	f.answers(t, 10*time.Second)
	f.renewed(t, begin)
}

// bringBack has up mend what is to be mended once the host is there again: then all vote, and its own API server answers.
func (f *fleet) bringBack(t *testing.T, h *lab.Host, mend func(context.Context) error) {
	t.Helper()
	if err := mend(f.ctx); err != nil {
		t.Fatal(err)
	}
	delete(f.lost, h)
	f.up(t)
	f.voters(t)
	f.answers(t, 10*time.Second)
}
