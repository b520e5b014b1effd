package bundle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
)

// Every file and archive of upstream is changed in turn: the first run, which makes the lock, refuses it, and so does
// every later one.
func TestAChangedFileIsRefused(t *testing.T) {
	ctx := context.Background()
	s, catalogue := tinyUpstream(t)
	r := remoteOf(t, config.Artifacts{Mirror: s.URL})
	w := Wish{Kubernetes: "v1.36.3", Platforms: []string{amd64}}
	l, err := newCache(t).Resolve(ctx, w, catalogue, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	downloads, err := w.downloads(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range downloads {
		t.Run(d.Name, func(t *testing.T) {
			path := strings.TrimPrefix(d.URL, "https:/")
			s.Break(path, faulty.Fault{Flip: 3})
			defer s.Break(path)

			c := newCache(t)
			_, err := c.Resolve(ctx, w, catalogue, r, nil)
			refused(t, err, d.Name+" "+d.Version+": ", s.URL+path, errWrong.Error())
			nothingOf(t, c, d.Digest)
			if len(files(t, filepath.Join(c.dir, locksDir))) > 0 {
				t.Error("a lock was made")
			}

			for _, a := range l.Artifacts {
				if a.Source.URL != d.URL {
					continue
				}
				c := newCache(t)
				_, err := c.Bundle(l, r).Fetch(ctx, []Artifact{a}, nil)
				refused(t, err, a.String(), s.URL+path, errWrong.Error())
				nothingOf(t, c, a.Digest)
				nothingOf(t, c, d.Digest)
			}
		})
	}
}

// Of a bundle that is served, each blob is changed in turn, and the lock.
func TestAChangedBlobOfAServedBundleIsRefused(t *testing.T) {
	ctx := context.Background()
	dir, _, _ := newBundle(t)
	s, err := faulty.Serve(dir, faulty.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := remoteOf(t, config.Artifacts{Mirror: s.URL})
	for _, x := range files(t, filepath.Join(dir, blobsDir)) {
		s.Break("/"+blobsDir+"/"+x, faulty.Fault{Flip: 3})
		c := newCache(t)
		l, err := r.Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b := c.Bundle(l, r)
		_, err = b.Fetch(ctx, b.Lock().Artifacts, nil)
		refused(t, err, s.URL+"/"+blobsDir+"/"+x, errWrong.Error())
		nothingOf(t, c, "sha256:"+x)
		named := false
		for _, a := range b.Lock().Artifacts {
			named = named || strings.Contains(err.Error(), a.String()+": ")
		}
		if !named {
			t.Errorf("no artifact is named: %v", err)
		}
		s.Break("/" + blobsDir + "/" + x)
	}
	s.Break("/"+lockName, faulty.Fault{Flip: 3})
	_, err = r.Lock(ctx)
	refused(t, err, s.URL+"/"+lockName)
}

// A registry changes each blob of an image in turn: manifest, config and layers.
func TestAChangedImageIsRefused(t *testing.T) {
	ctx := context.Background()
	const image = "registry.example.test/a:1"
	reg := newTinyRegistry(t)
	reg.put(t, "a:1", randomImage(t, nil, 2))
	r, err := NewRemote(config.Artifacts{Registries: reg.mirrors(true)}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.resolve(ctx, image, amd64)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseManifest(found.raw)
	if err != nil {
		t.Fatal(err)
	}
	r.pause = time.Millisecond
	a := Artifact{Name: image, Type: Image, Platform: amd64, Digest: found.digest, Size: found.size}
	l := Lock{APIVersion: APIVersion, Kind: Kind, Origin: Upstream, Artifacts: []Artifact{a}}
	for _, x := range append(imageBlobs(m), blob{found.digest, unknown}) {
		reg.flip.Store(x.digest)
		c := newCache(t)
		_, err := c.Bundle(l, r).Fetch(ctx, l.Artifacts, nil)
		refused(t, err, "image "+image, reg.URL, x.digest, errWrong.Error())
		nothingOf(t, c, x.digest)
	}

	// Whoever asks for a tag takes what the registry says; but what that names is held to it.
	reg.flip.Store(m.Config.Digest.String())
	_, err = r.resolve(ctx, image, amd64)
	refused(t, err, "image "+image+" for linux/amd64: ", reg.host(), errWrong.Error())
}

// The manifest of a platform is held to the index.
func TestAChangedManifestOfAnIndexIsRefused(t *testing.T) {
	reg := newTinyRegistry(t)
	img := randomImage(t, nil, 1)
	as, err := name.ParseReference(reg.host() + "/k8s/a:1")
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	if err := remote.WriteIndex(as, index, remote.WithTransport(reg.Client().Transport), remote.WithAuthFromKeychain(reg.keychain())); err != nil {
		t.Fatal(err)
	}
	r, err := NewRemote(config.Artifacts{Registries: reg.mirrors(true)}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	reg.flip.Store(digest.String())
	_, err = r.resolve(context.Background(), "registry.example.test/a:1", amd64)
	refused(t, err, "image registry.example.test/a:1 for linux/amd64: ", reg.host(), digest.String(), errWrong.Error())
}

// A lock may be wrong of what is in an archive, whose own digest is right.
func TestALockThatMistakesAnArchiveIsRefused(t *testing.T) {
	ctx := context.Background()
	s, catalogue := tinyUpstream(t)
	r := remoteOf(t, config.Artifacts{Mirror: s.URL})
	l, err := newCache(t).Resolve(ctx, Wish{Kubernetes: "v1.36.3", Platforms: []string{amd64}}, catalogue, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctr, _ := l.Find("ctr", amd64)
	source := *ctr.Source
	source.Member = "bin/nothing"
	ctr.Source = &source
	c := newCache(t)
	_, err = c.Bundle(l, r).Fetch(ctx, []Artifact{ctr}, nil)
	refused(t, err, "ctr v2.3.4: ", "has no bin/nothing")
	if errors.Is(err, errWrong) {
		t.Errorf("blames the server: %v", err)
	}
	if _, err := os.Stat(blobPath(c.dir, ctr.Digest)); err == nil {
		t.Error("kept it")
	}
}
