package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/e2e/upstream"
	"github.com/kubewright/kubewright/host"
)

func TestTheBuiltInCatalogueHasTheManifestOfCalico(t *testing.T) {
	d, err := BuiltIn().Document(Document{Name: "calico", Version: "v3.32.1"}, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if d.URL != "https://raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/calico.yaml" || d.Type != Manifest {
		t.Errorf("%+v", d)
	}
	if got := host.Digest(upstream.File(t, upstream.Calico)); got != d.Digest {
		t.Errorf("upstream's is %s, the catalogue's %s", got, d.Digest)
	}
	for want, wrong := range map[string]Document{
		"does not hold the manifest of calico v3.31.0, only v3.32.1": {Name: "calico", Version: "v3.31.0"},
		"holds no manifest of canal":                                 {Name: "canal", Version: "v1.0.0"},
	} {
		if _, err := BuiltIn().Document(wrong, amd64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestParseCatalogueReportsProblemsOfManifests(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	good := strings.ReplaceAll(own, "DIGEST", digest) + "manifests:\n  net: {url: 'http://files.example.org/{version}/net.yaml', versions: {v1.0.0: " + digest + "}}\n"
	if _, err := ParseCatalogue([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for old, tt := range map[string]struct{ new, want string }{
		"{version}/net.yaml":                     {"net.yaml", "manifests.net.url: is"},
		"http://files.example.org/{version}/net": {"ftp://files.example.org/{version}/net", "manifests.net.url: is"},
		"{v1.0.0: " + digest:                     {"{1.0.0: " + digest, `manifests.net.versions: "1.0.0" is not a version`},
		"v1.0.0: " + digest:                      {"v1.0.0: abc", `manifests.net.versions.v1.0.0: has digest "abc"`},
		"  net: ":                                {"  runc: ", `manifests.runc: gives "runc", and so does files.runc`},
		"  net: {":                               {"  Net: {", `manifests.Net: "Net" is no name`},
	} {
		if _, err := ParseCatalogue([]byte(strings.Replace(good, old, tt.new, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q for %q: got %v, want %s", tt.new, old, err, tt.want)
		}
	}
}

// A manifest is downloaded, mirrored, locked, packed, served and verified as any file is.
func TestManifestsComeLikeFiles(t *testing.T) {
	ctx := t.Context()
	files, catalogue, dir := tinyUpstreamAt(t, faulty.Options{})
	calico, mine := []byte("kind: Calico\n"), []byte("kind: Mine\n")
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "calico.yaml"), calico)
	source := filepath.Join(t.TempDir(), "mine.yaml")
	write(source, mine)
	catalogue.Manifests = map[string]CatalogueManifest{"calico": {URL: "https://dl.example.test/calico.yaml?{version}", Versions: map[string]string{"v3.32.1": host.Digest(calico)}}}
	of := Document{Name: "calico", Version: "v3.32.1"}
	own := Document{Name: "pod-network", Source: source, Digest: host.Digest(mine)}
	r := remoteOf(t, config.Artifacts{Mirror: files.URL})
	c := newCache(t)
	l, err := c.Resolve(ctx, Wish{Kubernetes: "v1.36.3", Documents: []Document{of, own}, Platforms: []string{amd64}}, catalogue, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "bundle")
	if err := c.Bundle(l, r).Pack(ctx, l.Artifacts, folder, nil); err != nil {
		t.Fatal(err)
	}
	packed := open(t, folder)
	if err := packed.Verify(ctx, packed.Lock().Artifacts, nil); err != nil {
		t.Error(err)
	}
	for document, want := range map[Document]struct{ verified, content string }{of: {ByCatalogue, string(calico)}, own: {ByDocument, string(mine)}} {
		a, ok := packed.Lock().Document(document, amd64)
		if !ok || a.Type != Manifest || a.Verified != want.verified || (a.Source == nil) != document.Local() {
			t.Errorf("%s is %+v, %v", document, a, ok)
			continue
		}
		if got, err := packed.Read(ctx, a, nil); err != nil || string(got) != want.content {
			t.Errorf("%s: %q, %v", document, got, err)
		}
	}
	if _, ok := l.Document(Document{Name: "pod-network", Source: source, Digest: host.Digest(calico)}, amd64); ok {
		t.Error("another digest is taken for ours")
	}
	if _, ok := l.Document(Document{Name: "calico", Version: "v3.32.2"}, amd64); ok {
		t.Error("another version is taken for ours")
	}

	t.Run("by the lock alone", func(t *testing.T) {
		b, err := newCache(t).Adopt(l, r)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := l.Document(of, amd64)
		if got, err := b.Read(ctx, a, nil); err != nil || string(got) != string(calico) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("by the lock alone, when it was kept", func(t *testing.T) {
		c := newCache(t)
		for range 2 {
			if err := c.Keep(ctx, mine); err != nil {
				t.Fatal(err)
			}
		}
		a, _ := l.Document(own, amd64)
		if got, err := c.Bundle(l, remoteOf(t, config.Artifacts{Mirror: "http://127.0.0.1:1"})).Read(ctx, a, nil); err != nil || string(got) != string(mine) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("without a bundle", func(t *testing.T) {
		d, err := catalogue.Document(of, amd64)
		if err != nil {
			t.Fatal(err)
		}
		c := newCache(t)
		for range 2 { // the second time from the cache
			if got, err := c.Document(ctx, d, r, nil); err != nil || string(got) != string(calico) {
				t.Errorf("%q, %v", got, err)
			}
			os.Remove(filepath.Join(dir, "calico.yaml"))
		}
		if got, err := own.ReadLocal(); err != nil || string(got) != string(mine) {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("changed by somebody", func(t *testing.T) {
		write(filepath.Join(dir, "calico.yaml"), []byte("kind: Evil!\n"))
		write(source, []byte("kind: Evil\n"))
		w := Wish{Kubernetes: "v1.36.3", Documents: []Document{of}, Platforms: []string{amd64}}
		if _, err := newCache(t).Resolve(ctx, w, catalogue, r, nil); err == nil || !strings.Contains(err.Error(), "calico v3.32.1") {
			t.Errorf("got %v", err)
		}
		w.Documents = []Document{own}
		if _, err := newCache(t).Resolve(ctx, w, catalogue, r, nil); err == nil || !strings.Contains(err.Error(), source+" has digest sha256:") {
			t.Errorf("got %v", err)
		}
		if _, err := own.ReadLocal(); err == nil || !strings.Contains(err.Error(), source+" has digest sha256:") {
			t.Errorf("got %v", err)
		}
		a, _ := l.Document(of, amd64)
		edit(t, filepath.Join(folder, blobsDir, strings.TrimPrefix(a.Digest, "sha256:")), flip)
		if _, err := open(t, folder).Read(ctx, a, nil); err == nil || !strings.Contains(err.Error(), "calico v3.32.1") {
			t.Errorf("got %v", err)
		}
	})
}
