package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubewright/kubewright/bundle"
)

// cloudModules are what clusters in a cloud run beside: built when asked for, for its client of EC2 alone takes minutes.
func cloudModules() []module {
	const version = "v1.37.0"
	return []module{{
		name: "cloud-provider-aws", of: "k8s.io/cloud-provider-aws", version: version,
		ldflags:  "-X k8s.io/component-base/version.gitVersion=" + version,
		binaries: []binary{{"aws-cloud-controller-manager", "k8s.io/cloud-provider-aws/cmd/aws-cloud-controller-manager"}},
	}}
}

func cloudImages() []image {
	return []image{{name: "registry.k8s.io/provider-aws/cloud-controller-manager:v1.37.0",
		binaries: map[string]string{"bin/aws-cloud-controller-manager": "aws-cloud-controller-manager"}, entrypoint: "/bin/aws-cloud-controller-manager"}}
}

// CloudBundle returns the folder of a bundle that holds the cloud controller as well, else what [Builder.Bundle] does.
func (b *Builder) CloudBundle(ctx context.Context) (string, error) {
	plain, err := b.Bundle(ctx)
	if err != nil {
		return "", err
	}
	parts := []string{filepath.Base(plain), fmt.Sprint(cloudImages())}
	for _, m := range cloudModules() {
		k, err := b.moduleKey(m)
		if err != nil {
			return "", err
		}
		parts = append(parts, k)
	}
	return b.make(ctx, "bundle-cloud", "bundle with the cloud controller", key(parts...), func(ctx context.Context, dir string) error {
		return extend(ctx, plain, dir, func(w *bundle.Writer) error { return b.addImages(ctx, dir, w, cloudImages()) })
	})
}

// addImages packs images into a bundle, by way of layers in a folder that is gone afterwards.
func (b *Builder) addImages(ctx context.Context, dir string, w *bundle.Writer, images []image) error {
	layers, err := os.MkdirTemp(dir, "layers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(layers)
	p, err := b.newPacker(ctx, layers)
	if err != nil {
		return err
	}
	for _, i := range images {
		img, err := p.image(ctx, i)
		if err != nil {
			return err
		}
		if err := w.AddImage(ctx, i.name, img); err != nil {
			return err
		}
	}
	return nil
}
