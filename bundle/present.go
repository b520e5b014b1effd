package bundle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// contents is what containerd has of an image that is there, whole and unpacked.
type contents struct {
	blobs    []digest.Digest
	snapshot string // of all its layers
}

// contents reads those of an image in the bundle, once for all hosts.
func (b *Bundle) contents(a Artifact) (contents, error) {
	if c, ok := b.images.Load(a.Digest); ok {
		return c.(contents), nil
	}
	_, m, err := b.manifest(a)
	if err != nil {
		return contents{}, err
	}
	raw, err := readBlob(b.dir, blob{m.Config.Digest.String(), m.Config.Size})
	if err != nil {
		return contents{}, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return contents{}, fmt.Errorf("config %s: %w", m.Config.Digest, err)
	}
	c := contents{blobs: []digest.Digest{digest.Digest(a.Digest)}, snapshot: identity.ChainID(config.RootFS.DiffIDs).String()}
	for _, x := range imageBlobs(m) {
		c.blobs = append(c.blobs, digest.Digest(x.digest))
	}
	b.images.Store(a.Digest, c)
	return c, nil
}

// present asks containerd for all of an image at once.
func (x contents) present(ctx context.Context, c *client.Client, a Artifact) (bool, error) {
	g, ctx := errgroup.WithContext(ctx)
	missing := errdefs.ErrNotFound
	g.Go(func() error {
		record, err := c.ImageService().Get(ctx, a.Name)
		if err == nil && record.Target.Digest.String() != a.Digest {
			return missing
		}
		return err
	})
	for _, d := range x.blobs {
		g.Go(func() error {
			_, err := c.ContentStore().Info(ctx, d)
			return err
		})
	}
	g.Go(func() error {
		_, err := c.SnapshotService(snapshotter).Stat(ctx, x.snapshot)
		return err
	})
	err := g.Wait()
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
