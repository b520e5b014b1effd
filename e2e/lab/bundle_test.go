package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubewright/kubewright/bundle"
)

// A bundle that is extended has all that the other one has, which stays as it was.
func TestABundleIsExtended(t *testing.T) {
	const platform = "linux/amd64"
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
	if err := extend(t.Context(), from, to, func(w *bundle.Writer) error {
		return w.AddFile(t.Context(), bundle.Artifact{Name: "kubectl", Version: "v1.2.3", Platform: platform}, file)
	}); err != nil {
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
