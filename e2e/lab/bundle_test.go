package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubewright/kubewright/bundle"
)

// A bundle with kubewright's own image has all that the one without has.
func TestOwnImageIsAddedToABundle(t *testing.T) {
	own, platform, ok := bundle.Running()
	if !ok {
		t.Skip("this test is not a static Linux binary")
	}
	from, to := t.TempDir(), t.TempDir()
	file := filepath.Join(t.TempDir(), "kubelet")
	if err := os.WriteFile(file, []byte("kubelet"), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := bundle.Create(from, bundle.Built)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddFile(t.Context(), bundle.Artifact{Name: "kubelet", Version: "v1.2.3", Platform: platform}, file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := extend(t.Context(), from, to, func(w *bundle.Writer) error { return w.AddOwn(t.Context(), "v1.2.3", own) }); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	if all := b.Lock().Artifacts; len(all) != 2 {
		t.Fatalf("the lock has %v", all)
	}
	if err := b.Verify(t.Context(), b.Lock().Artifacts, nil); err != nil {
		t.Error(err)
	}
	if before, err := bundle.Open(from); err != nil || len(before.Lock().Artifacts) != 1 {
		t.Errorf("the one without has changed: %v", err)
	}
}
