package lab

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestUpstreamHoldsWhatItsCatalogueSays(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs the artifacts, whose first build takes minutes: not with -short")
	}
	b, err := NewBuilder(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := b.Upstream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "catalogue.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var catalogue struct {
		Files map[string]struct {
			URL      string
			Sum      string
			Members  map[string]string
			Versions map[string]map[string]string
		}
	}
	if err := yaml.Unmarshal(data, &catalogue); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for name, f := range catalogue.Files {
		for version, digests := range f.Versions {
			address := strings.NewReplacer("{version}", version[1:], "{arch}", runtime.GOARCH).Replace(f.URL)
			file := filepath.Join(dir, "files", strings.TrimPrefix(address, "https://"))
			sum, err := sumOf(file)
			if err != nil {
				t.Fatal(err)
			}
			if digests[runtime.GOARCH] != "sha256:"+sum {
				t.Errorf("%s %s has digest %s, the catalogue says %s", name, version, sum, digests[runtime.GOARCH])
			}
			if f.Sum != "" {
				if published, err := os.ReadFile(file + f.Sum); err != nil || string(published) != sum {
					t.Errorf("%s: the sum beside it is %q, %v", name, published, err)
				}
			}
			if f.Members == nil {
				have[name] = true
				continue
			}
			for _, member := range archived(t, file) {
				have[f.Members[member]] = true
			}
		}
	}
	for _, name := range bundledFiles() {
		if !have[name] {
			t.Errorf("nothing holds %s", name)
		}
	}
}

// archived lists the regular files of an archive that anybody may run.
func archived(t *testing.T, file string) (members []string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return members
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && h.Mode&0o111 == 0o111 {
			members = append(members, path.Clean(h.Name))
		}
	}
}
