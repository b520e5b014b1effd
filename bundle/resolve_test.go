package bundle

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/host"
)

func TestResolveOnceAndFetchWhatItSays(t *testing.T) {
	ctx := context.Background()
	files, catalogue := tinyUpstream(t)
	reg := newTinyRegistry(t)
	a := randomImage(t, nil, 2)
	reg.put(t, "a:1", a)
	r, err := NewRemote(config.Artifacts{Mirror: files.URL, Registries: reg.mirrors(true)}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(t)
	w := Wish{Kubernetes: "v1.36.3", Images: []string{"registry.example.test/a:1"}, Platforms: []string{amd64}}
	var mu sync.Mutex
	l, err := c.Resolve(ctx, w, catalogue, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := a.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Artifact{
		"kubelet":                   {Version: "v1.36.3", Digest: host.Digest([]byte("this is kubelet")), Verified: ByCatalogue},
		"ctr":                       {Version: "v2.3.4", Digest: host.Digest([]byte("this is bin/ctr")), Verified: ByCatalogue},
		"cni/bridge":                {Version: "v1.9.1", Digest: host.Digest([]byte("this is bridge")), Verified: ByCatalogue},
		"registry.example.test/a:1": {Digest: digest.String(), Verified: ByTLS},
	} {
		got, ok := l.Find(name, amd64)
		if !ok || got.Digest != want.Digest || got.Version != want.Version || got.Verified != want.Verified {
			t.Errorf("%s is %+v, %v", name, got, ok)
		}
	}
	if _, ok := l.Find("LICENSE", amd64); ok || len(l.Artifacts) != 9 {
		t.Errorf("%d artifacts", len(l.Artifacts))
	}
	if got := l.Artifacts; got[0].Source == nil || got[0].Source.Archive == "" {
		t.Errorf("%s does not say where it is from: %+v", got[0], got[0].Source)
	}

	b := c.Bundle(l, r)
	var done, total int64
	moved := func(item string, d, all int64) {
		mu.Lock()
		defer mu.Unlock()
		if item == "registry.example.test/a:1" {
			done, total = max(done, d), all
		}
	}
	if n, err := b.Fetch(ctx, l.Artifacts, moved); err != nil || n != 1 {
		t.Errorf("fetched %d, should be the image alone: %v", n, err)
	}
	if done != total || total == 0 {
		t.Errorf("the image stands at %d of %d bytes", done, total)
	}
	if err := b.Verify(ctx, l.Artifacts, nil); err != nil {
		t.Error(err)
	}

	// Once: nobody is asked again, for this or a later run.
	reg.Close()
	files.Close()
	again, err := c.Resolve(ctx, w, catalogue, r, nil)
	if err != nil || again.Digest() != l.Digest() {
		t.Errorf("another lock, %v", err)
	}
	if n, err := c.Bundle(again, r).Fetch(ctx, again.Artifacts, nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	// Another wish is another lock.
	w.Versions = map[string]string{"runc": "v1.4.2"}
	if _, err := c.Resolve(ctx, w, catalogue, r, nil); err == nil {
		t.Error("a version that nobody has")
	}
}

// What the lock of a cluster names comes by digest: members of archives with their archive, or from a folder.
func TestFetchByLockAlone(t *testing.T) {
	ctx := context.Background()
	files1, catalogue := tinyUpstream(t)
	reg := newTinyRegistry(t)
	reg.put(t, "a:1", randomImage(t, nil, 2))
	registries := reg.mirrors(true)
	r, err := NewRemote(config.Artifacts{Mirror: files1.URL, Registries: registries}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	w := Wish{Kubernetes: "v1.36.3", Images: []string{"registry.example.test/a:1"}, Platforms: []string{amd64}}
	first := newCache(t)
	l, err := first.Resolve(ctx, w, catalogue, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Bundle(l, r).Fetch(ctx, l.Artifacts, nil); err != nil {
		t.Fatal(err)
	}

	t.Run("from upstream", func(t *testing.T) {
		b, err := newCache(t).Adopt(l, r)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := b.Fetch(ctx, l.Artifacts, nil); n != len(l.Artifacts) || err != nil {
			t.Fatal(n, err)
		}
		if err := b.Verify(ctx, l.Artifacts, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("an archive whose member is another", func(t *testing.T) {
		bad := Lock{APIVersion: l.APIVersion, Kind: l.Kind, Origin: l.Origin, Artifacts: slices.Clone(l.Artifacts)}
		ctr, _ := l.Find("ctr", amd64)
		ctr.Digest = host.Digest([]byte("other"))
		b := newCache(t).Bundle(bad, r)
		if _, err := b.Fetch(ctx, []Artifact{ctr}, nil); err == nil || !strings.Contains(err.Error(), "ctr v2.3.4") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("from a folder that is served", func(t *testing.T) {
		folder := t.TempDir()
		if err := first.Bundle(l, r).Pack(ctx, l.Artifacts, folder, nil); err != nil {
			t.Fatal(err)
		}
		s, err := faulty.Serve(folder, faulty.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		asked := reg.asked.Load()
		served := remoteOf(t, config.Artifacts{Mirror: s.URL + "/"})
		theirs, err := served.Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b := newCache(t).Bundle(theirs, served)
		if n, err := b.Fetch(ctx, b.Lock().Artifacts, nil); n != len(l.Artifacts) || err != nil {
			t.Fatal(n, err)
		}
		if err := b.Verify(ctx, l.Artifacts, nil); err != nil {
			t.Error(err)
		}
		if reg.asked.Load() != asked {
			t.Error("the registry was asked")
		}
	})
	t.Run("from nowhere", func(t *testing.T) {
		a, _ := l.Find("ctr", amd64)
		a.Source = nil
		_, err := newCache(t).Bundle(l, remoteOf(t, config.Artifacts{})).Fetch(ctx, []Artifact{a}, nil)
		if err == nil || !strings.Contains(err.Error(), "pass --bundle") {
			t.Errorf("got %v", err)
		}
	})
}

func TestMirrorsAreAskedFirstAndAloneWhereTheyAreExclusive(t *testing.T) {
	ctx := context.Background()
	mirror, own := newTinyRegistry(t), newTinyRegistry(t)
	img := randomImage(t, nil, 1)
	as, err := name.ParseReference(own.host() + "/only-here:1")
	if err != nil {
		t.Fatal(err)
	}
	both := keychain{}
	maps.Copy(both, mirror.keychain().(keychain))
	maps.Copy(both, own.keychain().(keychain))
	if err := remote.Write(as, img, remote.WithTransport(own.Client().Transport), remote.WithAuthFromKeychain(both)); err != nil {
		t.Fatal(err)
	}
	image := own.host() + "/only-here:1"
	for _, exclusive := range []bool{false, true} {
		before := own.asked.Load()
		r, err := NewRemote(config.Artifacts{CA: own.ca(), Registries: []config.Registry{
			{Host: "*", Mirrors: []string{mirror.URL}, CA: mirror.ca(), Exclusive: exclusive}}}, both)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.resolve(ctx, image, amd64)
		switch {
		case !exclusive && (err != nil || !found.secure):
			t.Errorf("not found in its own registry: %v", err)
		case exclusive && (err == nil || !strings.Contains(err.Error(), mirror.host())):
			t.Errorf("got %v", err)
		case exclusive && own.asked.Load() != before:
			t.Error("the registry was asked although its mirror is exclusive")
		}
	}
	t.Run("another platform is refused", func(t *testing.T) {
		r, err := NewRemote(config.Artifacts{CA: own.ca()}, both)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.resolve(ctx, image, "linux/arm64"); err == nil || !strings.Contains(err.Error(), "linux/amd64") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without the password it says how to log in", func(t *testing.T) {
		r, err := NewRemote(config.Artifacts{CA: own.ca()}, keychain{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.resolve(ctx, image, amd64); err == nil || !strings.Contains(err.Error(), "docker login "+own.host()) || strings.Contains(err.Error(), password) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without the CA it is refused", func(t *testing.T) {
		r, err := NewRemote(config.Artifacts{}, both)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.resolve(ctx, image, amd64); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
}

func TestPushMakesAMirror(t *testing.T) {
	ctx := context.Background()
	dir, a, _ := newBundle(t)
	b := open(t, dir)
	reg := newTinyRegistry(t)
	var pushed []string
	images := b.Images(amd64)
	o := PushOptions{CA: reg.ca(), Keychain: reg.keychain(), Pushed: func(image, as string) { pushed = append(pushed, image+" "+as) }}
	if err := b.Push(ctx, images, reg.host()+"/k8s", o); err != nil {
		t.Fatal(err)
	}
	if len(pushed) != 2 || pushed[0] != fmt.Sprintf("example.test/a:1 %s/k8s/a:1", reg.host()) {
		t.Errorf("pushed %q", pushed)
	}
	r, err := NewRemote(config.Artifacts{Registries: []config.Registry{{Host: "example.test", Mirrors: []string{reg.URL + "/k8s"}, CA: reg.ca(), Exclusive: true}}}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.resolve(ctx, "example.test/a:1", amd64)
	if digest, _ := a.Digest(); err != nil || found.digest != digest.String() {
		t.Errorf("the mirror has %v, %v", found, err)
	}
	t.Run("damage is not pushed", func(t *testing.T) {
		edit(t, blobOf(t, dir, a, "layer"), flip)
		other := newTinyRegistry(t)
		o.CA, o.Keychain = other.ca(), other.keychain()
		if err := b.Push(ctx, images, other.host()+"/k8s", o); err == nil || !strings.Contains(err.Error(), "example.test/a:1") {
			t.Errorf("got %v", err)
		}
	})
}

func TestPruneKeepsWhatWasUsedLast(t *testing.T) {
	ctx := context.Background()
	c := newCache(t)
	shared := []byte("in all of them")
	old := time.Now().Add(-48 * time.Hour)
	for i := range 20 {
		own := fmt.Appendf(nil, "kubelet %d", i)
		l := Lock{APIVersion: APIVersion, Kind: Kind, Origin: Built}
		for name, content := range map[string][]byte{"kubelet": own, "runc": shared} {
			if _, err := writeBlob(ctx, c.dir, bytes.NewReader(content), blob{}); err != nil {
				t.Fatal(err)
			}
			l.Artifacts = append(l.Artifacts, Artifact{Name: name, Type: File, Version: fmt.Sprintf("v1.36.%d", i), Platform: amd64, Digest: host.Digest(content), Size: int64(len(content))})
		}
		if _, err := c.Adopt(l, nil); err != nil {
			t.Fatal(err)
		}
		used := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(c.lockFile(digestName(l)), used, used); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files(t, filepath.Join(c.dir, blobsDir)) {
		if err := os.Chtimes(filepath.Join(c.dir, blobsDir, f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	dry, err := c.Prune(ctx, 2, true)
	if err != nil || len(dry.Locks) != 18 || dry.Blobs != 18 {
		t.Fatalf("would remove %d locks, %d blobs, %v", len(dry.Locks), dry.Blobs, err)
	}
	got, err := c.Prune(ctx, 2, false)
	if err != nil || len(got.Locks) != 18 || got.Blobs != 18 || got.Bytes != dry.Bytes {
		t.Fatalf("removed %d locks, %d blobs, %v", len(got.Locks), got.Blobs, err)
	}
	rest, err := c.List()
	if err != nil || len(rest) != 2 {
		t.Fatalf("%d are left, %v", len(rest), err)
	}
	for i, l := range rest {
		if k, _ := l.Lock.Find("kubelet", amd64); k.Version != fmt.Sprintf("v1.36.%d", 19-i) {
			t.Errorf("kept %s", k.Version)
		}
		if err := c.Bundle(l.Lock, nil).Verify(ctx, l.Lock.Artifacts, nil); err != nil {
			t.Error(err)
		}
	}
	if all, err := c.Prune(ctx, 0, false); err != nil || len(all.Locks) != 2 || len(files(t, filepath.Join(c.dir, blobsDir))) != 0 {
		t.Errorf("%d locks, %v", len(all.Locks), err)
	}
}
