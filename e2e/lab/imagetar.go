package lab

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubewright/kubewright/bundle"
)

// ImageTar returns an OCI layout in one tar with all images of the bundle, for `ctr images import`: the same
// manifests, configs and layers, byte for byte, each once.
func (b *Builder) ImageTar(ctx context.Context) (string, error) {
	return b.ImageTarOf(ctx, "all", func(string) bool { return true })
}

// ImageTarOf is ImageTar with some of the images, which what names.
func (b *Builder) ImageTarOf(ctx context.Context, what string, keep func(image string) bool) (string, error) {
	folder, err := b.Bundle(ctx)
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile(filepath.Join(folder, "lock.yaml")) // all digests; it outlives a change of what packs
	if err != nil {
		return "", err
	}
	dir, err := b.make(ctx, "image-tar", "tar of the bundle's images", key(string(lock), what), func(ctx context.Context, dir string) error {
		return writeImageTar(filepath.Join(dir, imageTar), folder, keep)
	})
	return filepath.Join(dir, imageTar), err
}

const imageTar = "images.tar"

func writeImageTar(file, folder string, keep func(string) bool) error {
	opened, err := bundle.Open(folder)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewWriter(f)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	seen := map[string]bool{}
	for _, image := range opened.Images("linux/" + runtime.GOARCH) {
		if !keep(image.Name) {
			continue
		}
		raw, err := os.ReadFile(blobFile(folder, image.Digest))
		if err != nil {
			return err
		}
		var m v1.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		digest, err := v1.NewHash(image.Digest)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: m.MediaType, Digest: digest, Size: int64(len(raw)),
			Platform:    &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Annotations: map[string]string{"io.containerd.image.name": image.Name}})
		blobs := []string{image.Digest, m.Config.Digest.String()}
		for _, l := range m.Layers {
			blobs = append(blobs, l.Digest.String())
		}
		for _, d := range blobs {
			if seen[d] {
				continue
			}
			seen[d] = true
			if err := writeEntry(t, entry{path: strings.ReplaceAll("blobs/"+d, ":", "/"), from: blobFile(folder, d)}); err != nil {
				return err
			}
		}
	}
	list, err := json.Marshal(index)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"index.json": string(list), "oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := io.WriteString(t, content); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return f.Close()
}

// blobFile is where a folder of a bundle holds a blob.
func blobFile(folder, digest string) string {
	return filepath.Join(folder, "blobs", strings.ReplaceAll(digest, ":", "/"))
}
