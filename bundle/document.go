package bundle

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/blang/semver/v4"

	"github.com/kubewright/kubewright/host"
)

// Document is a manifest that a cluster is made of beside what we write ourselves: objects for its API. Of one
// that the catalogue holds, name and version say it all.
type Document struct {
	Name    string
	Version string `json:",omitempty"` // v3.32.1
	Source  string `json:",omitempty"` // of one that somebody brings along: the path of a file, or an address
	Digest  string `json:",omitempty"` // of that: sha256:<hex>
}

// Local tells a file where kubewright runs from what is published.
func (d Document) Local() bool { return d.Source != "" && !isURL(d.Source) }

// String is how errors name it.
func (d Document) String() string {
	if d.Source != "" {
		return d.Source
	}
	return "the manifest of " + d.Name + " " + d.Version
}

// CatalogueManifest is a manifest in all its versions. It is the same for all architectures.
type CatalogueManifest struct {
	URL      string            `json:"url"`
	Versions map[string]string `json:"versions"` // v3.32.1: sha256:<hex>
}

// maxDocument is more than any manifest has; it is held in memory.
const maxDocument = 64 << 20

func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

// Document is the download of a manifest. One that the catalogue does not hold is an error that says what it holds.
func (c *Catalogue) Document(d Document, platform string) (Download, error) {
	out := Download{Type: Manifest, Name: d.Name, Version: d.Version, Platform: platform, URL: d.Source, Digest: d.Digest, ByDocument: true}
	if d.Source != "" {
		return out, nil
	}
	m, ok := c.Manifests[d.Name]
	switch out.Digest = m.Versions[d.Version]; {
	case !ok:
		return out, fmt.Errorf("the catalogue holds no manifest of %s: add it under manifests", d.Name)
	case out.Digest == "":
		return out, fmt.Errorf("the catalogue does not hold the manifest of %s %s, only %s", d.Name, d.Version, sorted(m.Versions))
	}
	out.URL, out.ByDocument = CatalogueFile{URL: m.URL}.address(d.Version, ""), false
	return out, nil
}

func (m CatalogueManifest) validate(at, name string, problem func(path, format string, args ...any)) {
	if !nameForm.MatchString(name) {
		problem(at, "%q is no name of a manifest; write one such as calico", name)
	}
	filled := CatalogueFile{URL: m.URL}.address("v1.2.3", "{arch}")
	if u, err := url.Parse(filled); err != nil || !isURL(filled) || u.Host == "" || strings.ContainsAny(filled, "{}") || filled == m.URL {
		problem(at+".url", "is %q; write an http or https address with {version}", m.URL)
	}
	if len(m.Versions) == 0 {
		problem(at+".versions", "holds none")
	}
	for version, digest := range m.Versions {
		if _, err := semver.Parse(strings.TrimPrefix(version, "v")); err != nil || !strings.HasPrefix(version, "v") {
			problem(at+".versions", "%q is not a version; write one such as v1.36.3", version)
		}
		if !digestForm.MatchString(digest) {
			problem(at+".versions."+version, `has digest %q; write "sha256:" and 64 hex digits in lower case`, digest)
		}
	}
}

// Document finds the artifact that a document is for a platform.
func (l Lock) Document(d Document, platform string) (Artifact, bool) {
	i := slices.IndexFunc(l.Artifacts, func(a Artifact) bool {
		return a.Type == Manifest && a.Name == d.Name && a.Platform == platform && a.Version == d.Version && (d.Digest == "" || a.Digest == d.Digest)
	})
	if i < 0 {
		return Artifact{}, false
	}
	return l.Artifacts[i], true
}

// Read returns a manifest of the bundle, its bytes checked against the lock; one that is not here is fetched.
func (b *Bundle) Read(ctx context.Context, a Artifact, moved Moved) ([]byte, error) {
	if a.Size > maxDocument {
		return nil, fmt.Errorf("artifact %s: %d bytes are too many for a manifest", a, a.Size)
	}
	if _, err := b.Fetch(ctx, []Artifact{a}, moved); err != nil {
		return nil, err
	}
	data, err := readBlob(b.dir, blob{a.Digest, a.Size})
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", a, err)
	}
	return data, nil
}

// Document reads a manifest where there is no bundle: from the cache, else from where it is published, else
// from its file. Other bytes than the digest names are an error.
func (c *Cache) Document(ctx context.Context, d Download, r *Remote, moved Moved) ([]byte, error) {
	unlock, err := c.exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if moved == nil {
		moved = func(string, int64, int64) {}
	}
	x := &resolver{remote: r, dir: c.dir, moved: moved}
	size, err := x.whole(ctx, d, d.Digest)
	if err != nil {
		return nil, r.hint(fmt.Errorf("%s %s: %w", d.Name, d.Version, err), "")
	}
	if size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, which are too many for a manifest", d.URL, size)
	}
	return readBlob(c.dir, blob{d.Digest, size})
}

// Keep has the bytes of a manifest at hand for a later run, to which nobody gives the bundle.
func (c *Cache) Keep(ctx context.Context, data []byte) error {
	want := blob{host.Digest(data), int64(len(data))}
	if has(c.dir, want) {
		return nil
	}
	unlock, err := c.exclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = writeBlob(ctx, c.dir, bytes.NewReader(data), want)
	return err
}

// ReadLocal reads a manifest that is a file here. Other bytes than the digest names are an error.
func (d Document) ReadLocal() ([]byte, error) {
	info, err := os.Stat(d.Source)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxDocument) {
		err = fmt.Errorf("%s is no manifest: it is no file, or one of %d bytes", d.Source, info.Size())
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(d.Source)
	if err != nil {
		return nil, err
	}
	if got := host.Digest(data); got != d.Digest {
		return nil, fmt.Errorf("%s has digest %s, and the document names %s: it is another file, or somebody has changed it: get the right one, or write its digest", d.Source, got, d.Digest)
	}
	return data, nil
}

// local brings a manifest that is a file where kubewright runs.
func (x *resolver) local(ctx context.Context, d Download, digest string) (int64, error) {
	data, err := Document{Source: d.URL, Digest: digest}.ReadLocal()
	if err != nil {
		return 0, err
	}
	b, err := writeBlob(ctx, x.dir, bytes.NewReader(data), blob{digest, int64(len(data))})
	return b.size, err
}
