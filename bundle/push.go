package bundle

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PushOptions say how to reach a registry.
type PushOptions struct {
	CA       string // trusted beside the system's, PEM
	Insecure bool   // without TLS
	Keychain authn.Keychain
	// Pushed hears of every image, once it is there; Moved of its bytes, if it is not nil.
	Pushed func(image, as string)
	Moved  Moved
}

// Push brings images to a registry, so that it can be a mirror: registry.k8s.io/pause:3.10.2 is
// TO/pause:3.10.2 there, where TO is HOST[:PORT][/PREFIX]. Digests stay. An image that the bundle
// has for several platforms is one index.
func (b *Bundle) Push(ctx context.Context, images []Artifact, to string, o PushOptions) error {
	stall := time.Minute
	t, err := newTransport(o.CA, &stall)
	if err != nil {
		return fmt.Errorf("CA of the registry: %w", err)
	}
	var safe http.RoundTripper = tlsOnly{t}
	if o.Insecure {
		safe = t
	}
	byName := map[string][]Artifact{}
	for _, a := range images {
		byName[a.Name] = append(byName[a.Name], a)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(safe), remote.WithAuthFromKeychain(o.Keychain), remote.WithJobs(parallel)}
	for _, image := range slices.Sorted(maps.Keys(byName)) {
		as, err := pushedName(image, to, o.Insecure)
		if err != nil {
			return err
		}
		if err := b.push(byName[image], as, append(options, o.progress(image)...)); err != nil {
			return fmt.Errorf("push %s to %s: %w", image, as, err)
		}
		if o.Pushed != nil {
			o.Pushed(image, as.String())
		}
	}
	return nil
}

// progress of one image; what the registry has already is not moved.
func (o PushOptions) progress(image string) []remote.Option {
	if o.Moved == nil {
		return nil
	}
	updates := make(chan v1.Update, 16)
	go func() {
		for u := range updates { // until the library closes it
			if u.Complete > 0 {
				o.Moved(image, u.Complete, u.Total)
			}
		}
	}()
	return []remote.Option{remote.WithProgress(updates)}
}

// pushedName is what an image is called in a registry that mirrors its own.
func pushedName(image, to string, insecure bool) (name.Reference, error) {
	ref, err := name.ParseReference(image, name.StrictValidation)
	if err != nil {
		return nil, err
	}
	var o []name.Option
	if insecure {
		o = append(o, name.Insecure)
	}
	repo, err := name.NewRepository(strings.TrimSuffix(to, "/")+"/"+ref.Context().RepositoryStr(), o...)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w: write HOST[:PORT][/PREFIX]", to, err)
	}
	if d, ok := ref.(name.Digest); ok {
		return repo.Digest(d.DigestStr()), nil
	}
	return repo.Tag(ref.Identifier()), nil
}

func (b *Bundle) push(platforms []Artifact, as name.Reference, o []remote.Option) error {
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, a := range platforms {
		img, err := b.image(a)
		if err != nil {
			return err
		}
		if len(platforms) == 1 {
			return remote.Write(as, img, o...)
		}
		os, arch, _ := strings.Cut(a.Platform, "/")
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}})
	}
	return remote.WriteIndex(as, index, o...)
}

// image is an image of the bundle as the registry's library knows it.
func (b *Bundle) image(a Artifact) (v1.Image, error) {
	raw, m, err := b.manifest(a)
	if err != nil {
		return nil, err
	}
	config, err := readBlob(b.dir, blob{m.Config.Digest.String(), m.Config.Size})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(bundled{b.dir, raw, config, m})
}

// bundled is the least that an image has to know.
type bundled struct {
	dir         string
	raw, config []byte
	manifest    *v1.Manifest
}

func (i bundled) RawManifest() ([]byte, error)   { return i.raw, nil }
func (i bundled) RawConfigFile() ([]byte, error) { return i.config, nil }
func (i bundled) MediaType() (types.MediaType, error) {
	return cmp.Or(i.manifest.MediaType, types.OCIManifestSchema1), nil // OCI manifests may leave it out
}

func (i bundled) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, x := range append([]v1.Descriptor{i.manifest.Config}, i.manifest.Layers...) {
		if x.Digest == h {
			return bundledLayer{i.dir, x}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

type bundledLayer struct {
	dir string
	of  v1.Descriptor
}

func (l bundledLayer) Digest() (v1.Hash, error)            { return l.of.Digest, nil }
func (l bundledLayer) Size() (int64, error)                { return l.of.Size, nil }
func (l bundledLayer) MediaType() (types.MediaType, error) { return l.of.MediaType, nil }
func (l bundledLayer) Compressed() (io.ReadCloser, error) {
	return openBlob(l.dir, blob{l.of.Digest.String(), l.of.Size})
}
