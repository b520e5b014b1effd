package phases

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnpackWritesNothingBeyondItsFolder(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []tar.Header{
		{Name: "./kube-system_etcd/etcd/0.log", Size: 2}, {Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "out/evil", Size: 2},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("ok"))
		}
	}
	w.Close()
	dir := t.TempDir()
	if err := unpack(&archive, filepath.Join(dir, "pods")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kube-system_etcd/etcd/0.log", "out/evil"} {
		if b, err := os.ReadFile(filepath.Join(dir, "pods", name)); err != nil || string(b) != "ok" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
		t.Error("a link of the archive was followed")
	}
	archive.Reset()
	w = tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "../evil"}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := unpack(&archive, filepath.Join(dir, "more")); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a name above the folder: %v", err)
	}
}
