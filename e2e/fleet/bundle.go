package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// shrunk is how many bytes an artifact of WriteBundle has.
const shrunk = 64 << 10

var binaries = strings.Fields(`kubelet kubectl crictl containerd containerd-shim-runc-v2 ctr runc
	cni/bandwidth cni/bridge cni/host-local cni/loopback cni/portmap cni/ptp cni/tuning`)

// WriteBundle makes a bundle with everything that the hosts of a cluster need, by its name; each
// holds nothing but noise.
func WriteBundle(ctx context.Context, dir string) error {
	w, err := bundle.Create(dir, bundle.Built)
	if err != nil {
		return err
	}
	c := &config.Cluster{}
	c.Default(config.Versions{})
	noise := make([]byte, shrunk)
	temporary := filepath.Join(dir, "noise")
	defer os.Remove(temporary)
	for _, name := range binaries {
		rand.Read(noise)
		if err := os.WriteFile(temporary, noise, 0o644); err != nil {
			return err
		}
		if err := w.AddFile(ctx, bundle.Artifact{Name: name, Version: c.Spec.KubernetesVersion, Platform: platform}, temporary); err != nil {
			return err
		}
	}
	for _, name := range phases.Images(c) {
		img, err := noisyImage()
		if err != nil {
			return err
		}
		if err := w.AddImage(ctx, name, img); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return w.Close()
}

// platform of all simulated hosts.
const platform = "linux/amd64"

func noisyImage() (v1.Image, error) {
	noise := make([]byte, shrunk)
	rand.Read(noise)
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(mutate.MediaType(img, types.OCIManifestSchema1), static.NewLayer(noise, types.OCIUncompressedLayer))
}
