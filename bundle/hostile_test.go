package bundle

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/host"
)

// A lock comes from somebody else: what it says must not lead anywhere but into the cache.
func TestLockLeadsNowhere(t *testing.T) {
	good := func() Artifact {
		return Artifact{Name: "kubelet", Type: File, Version: "v1.36.3", Platform: amd64, Digest: host.Digest([]byte("x")), Size: 1,
			Source: &Source{URL: "https://dl.example.test/kubelet"}}
	}
	archive := host.Digest([]byte("archive"))
	for name, x := range map[string]struct {
		change func(*Artifact)
		says   string
	}{
		"as it should be":          {func(*Artifact) {}, ""},
		"in an archive":            {func(a *Artifact) { a.Source.Archive, a.Source.Member = archive, "bin/kubelet" }, ""},
		"a name that is a path":    {func(a *Artifact) { a.Name = "cni/../../../etc/cron.d/x" }, "is not a file's name"},
		"an archive that is one":   {func(a *Artifact) { a.Source.Archive, a.Source.Member = "sha256:/../../../../etc/cron.d/x", "x" }, "archive"},
		"a member that is one":     {func(a *Artifact) { a.Source.Archive, a.Source.Member = archive, "../x" }, "member"},
		"an archive of nothing":    {func(a *Artifact) { a.Source.Archive = archive }, "both, or neither"},
		"an address of a file":     {func(a *Artifact) { a.Source.URL = "file:///etc/shadow" }, "http(s) address"},
		"an address with a secret": {func(a *Artifact) { a.Source.URL = "https://me:hunter2@dl.example.test/x" }, "without a password"},
	} {
		a := good()
		x.change(&a)
		err := Lock{APIVersion: APIVersion, Kind: Kind, Origin: Upstream, Artifacts: []Artifact{a}}.Validate()
		if x.says == "" && err != nil || x.says != "" && (err == nil || !strings.Contains(err.Error(), x.says)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error says the secret: %v", name, err)
		}
	}
}

// Two names for the same bytes, in files and in images.
func TestFetchBringsWhatHasTwoNamesOnce(t *testing.T) {
	s, r, content := published(t)
	c := newCache(t)
	b, a := fileBundle(c, r, content)
	other := a
	other.Name = "other"
	b.lock.Artifacts = append(b.lock.Artifacts, other)
	if _, err := b.Fetch(context.Background(), b.lock.Artifacts, nil); err != nil {
		t.Fatal(err)
	}
	if n := s.Sent(published1); n != fileSize {
		t.Errorf("%d bytes for a file of %d", n, fileSize)
	}

	reg := newTinyRegistry(t)
	img := randomImage(t, nil, 2)
	reg.put(t, "a:1", img)
	reg.put(t, "b:1", img)
	r, err := NewRemote(config.Artifacts{Registries: reg.mirrors(true)}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	var two []Artifact
	for _, name := range []string{"registry.example.test/a:1", "registry.example.test/b:1"} {
		found, err := r.resolve(context.Background(), name, amd64)
		if err != nil {
			t.Fatal(err)
		}
		two = append(two, Artifact{Name: name, Type: Image, Platform: amd64, Digest: found.digest, Size: found.size})
	}
	for range 10 {
		b := newCache(t).Bundle(Lock{Artifacts: two}, r)
		if _, err := b.Fetch(context.Background(), two, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(context.Background(), two, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// What one place sent does not spoil what the next one has.
func TestNextLocationIsNotBlamedForTheLast(t *testing.T) {
	good, r, content := published(t)
	dir := t.TempDir()
	wrong := bytes.Repeat([]byte("wrong"), fileSize/5)
	if err := os.WriteFile(filepath.Join(dir, "file"), wrong, 0o644); err != nil {
		t.Fatal(err)
	}
	bad, err := faulty.Serve(dir, faulty.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	bad.Break("/file", faulty.Fault{Cut: 1000, Times: 1}, faulty.Fault{Status: 500})
	c := newCache(t)
	want := blob{host.Digest(content), fileSize}
	from := []location{{url: bad.URL + "/file", client: r.direct}, {url: good.URL + published1, client: r.direct}}
	if err := r.bring(context.Background(), c.dir, want, from, nil); err != nil {
		t.Fatal(err)
	}

	// Nobody knows the size, the server knows no ranges, and the bytes are wrong: it is said, and nothing stays.
	bad.Break("/file", faulty.Fault{NoRange: true})
	c = newCache(t)
	err = r.bring(context.Background(), c.dir, blob{want.digest, unknown}, from[:1], nil)
	if err == nil || !strings.Contains(err.Error(), "has changed it") || len(files(t, filepath.Join(c.dir, blobsDir))) != 0 {
		t.Errorf("got %v, left %v", err, files(t, filepath.Join(c.dir, blobsDir)))
	}
	if n := len(bad.Requests("/file")); n > 8 {
		t.Errorf("asked %d times", n)
	}
}
