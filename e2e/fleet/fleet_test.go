package fleet

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// unchanged is how many round trips a host may cost where there is nothing to do.
const unchanged = 8

func TestAHostThatIsPreparedCostsFewRoundTrips(t *testing.T) {
	dir := t.TempDir()
	build := func(name, of string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, of).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	kubewright := build("kubewright", "../../cmd/kubewright")
	p, err := Spawn(t.Context(), build("fleet", "../cmd/fleet"), t.TempDir(), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, run := range []string{"first", "second", "third"} {
		r, err := p.Prepare(t.Context(), kubewright)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s run: %d changes, %d round trips after %d of SSH's own", run, r.Changes, r.Trips(), r.Visits[0].Login)
		if first := run == "first"; first != (r.Changes > 0) || !first && r.Trips() > unchanged {
			t.Errorf("%s run: %d changes, %d round trips to a host, and %d would do", run, r.Changes, r.Trips(), unchanged)
		}
	}
}
