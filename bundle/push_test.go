package bundle

import (
	"context"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kubewright/kubewright/config"
)

// An image that a bundle has for two platforms is one name in a registry, and each platform finds its own.
func TestPushOfTwoPlatforms(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "bundle")
	w, err := Create(dir, Built)
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]v1.Image{}
	for _, arch := range []string{"amd64", "arm64"} {
		img := randomImage(t, nil, 2)
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c = c.DeepCopy()
		c.Architecture = arch
		if img, err = mutate.ConfigFile(img, c); err != nil {
			t.Fatal(err)
		}
		if err := w.AddImage(ctx, "example.test/a:1", img); err != nil {
			t.Fatal(err)
		}
		images[arch] = img
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, reg := open(t, dir), newTinyRegistry(t)
	if err := b.Push(ctx, b.Lock().Artifacts, reg.host()+"/k8s", PushOptions{CA: reg.ca(), Keychain: reg.keychain()}); err != nil {
		t.Fatal(err)
	}
	r, err := NewRemote(config.Artifacts{Registries: []config.Registry{{Host: "example.test", Mirrors: []string{reg.URL + "/k8s"}, CA: reg.ca(), Exclusive: true}}}, reg.keychain())
	if err != nil {
		t.Fatal(err)
	}
	for arch, img := range images {
		want, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.resolve(ctx, "example.test/a:1", "linux/"+arch)
		if err != nil || found.digest != want.String() {
			t.Errorf("%s: %v, %v", arch, found, err)
		}
	}
	if _, err := r.resolve(ctx, "example.test/a:1", "linux/s390x"); err == nil {
		t.Error("a platform that nobody has")
	}
}
