package aws

import (
	"errors"
	"os"
	"testing"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/host"
)

func TestOneRunAtATimeChangesMachines(t *testing.T) {
	start(t, cloud.Options{})
	a, b := connect(t, parse(t, small)), connect(t, parse(t, small))
	other := parse(t, small)
	other.Metadata.Name = "other"
	release, err := a.Lock("up")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Lock("down")
	var locked *host.LockedError
	if !errors.As(err, &locked) || locked.Lease.Command != "up" || locked.Lease.PID != os.Getpid() {
		t.Errorf("beside another run: %v", err)
	}
	wants(t, err, "the machines of prod in eu-west-1", "another run is at work", "kubewright up")
	if freed, err := connect(t, other).Lock("up"); err != nil {
		t.Errorf("of another cluster: %v", err)
	} else {
		freed()
	}
	release()
	if _, err := os.Stat(a.dir); err == nil {
		t.Error("an empty folder is left")
	}
	if release, err = b.Lock("down"); err != nil {
		t.Fatalf("after it: %v", err)
	}
	release()
}
