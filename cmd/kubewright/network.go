package main

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// material is what the pod network of a document is made of beside it, before anything is touched: a manifest
// that does not fit ends the run here. Given tells that --bundle names b.
func (o *artifactOptions) material(ctx context.Context, c *config.Cluster, b *bundle.Bundle, given bool, platform string) (m addons.Material, err error) {
	if path := c.Spec.Network.CNI.Weave.PasswordFile; path != "" {
		if m.Password, err = readPassword(path); err != nil {
			return m, misuse(fmt.Errorf("spec.network.cni.weave.passwordFile: %w", err))
		}
	}
	for _, d := range phases.Documents(c) {
		data, err := o.read(ctx, c, d, b, given, platform)
		if err != nil {
			return m, fmt.Errorf("the pod network: %w", err)
		}
		if m.Manifest, err = addons.Decode(data); err != nil {
			return m, misuse(fmt.Errorf("the pod network: %s: %w", d, err))
		}
	}
	if _, err := addons.CNI(c, "https://localhost", m); err != nil {
		return m, misuse(err)
	}
	return m, nil
}

// readPassword reads a file that nobody else may.
func readPassword(path string) (addons.Password, error) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		err = fmt.Errorf("%s is open to every user of this machine: `chmod 600 %[1]s`, and take that password for known to others", path)
	}
	if err != nil {
		return addons.Password{}, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return addons.Password{}, err
	}
	p, err := addons.ParsePassword(b)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// read brings a manifest: from the bundle; where that does not have it, from a file here; and without --bundle
// from the cache, or from where it is published.
func (o *artifactOptions) read(ctx context.Context, c *config.Cluster, d bundle.Document, b *bundle.Bundle, given bool, platform string) ([]byte, error) {
	if b != nil {
		if a, ok := b.Lock().Document(d, platform); ok && (!d.Local() || b.Has([]bundle.Artifact{a})) {
			data, err := b.Read(ctx, a, nil)
			if err == nil && given {
				err = o.keep(ctx, data)
			}
			return data, err
		}
	}
	if d.Local() {
		return d.ReadLocal()
	}
	if given {
		return nil, misuse(fmt.Errorf("the bundle does not hold %s for %s: make it anew with `kubewright bundle create --config`, and the cluster's document", d, platform))
	}
	catalogue, err := o.openCatalogue()
	if err != nil {
		return nil, misuse(err)
	}
	download, err := catalogue.Document(d, platform)
	if err != nil {
		return nil, misuse(err)
	}
	r, err := bundle.NewRemote(c.Spec.Artifacts, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	return cache.Document(ctx, download, r, nil)
}

// keep has a manifest of --bundle at hand for status, and for later runs without it.
func (o *artifactOptions) keep(ctx context.Context, data []byte) error {
	cache, err := o.openCache()
	if err != nil {
		return err
	}
	return cache.Keep(ctx, data)
}
