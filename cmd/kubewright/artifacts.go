package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/pflag"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

// artifactOptions say where binaries and images come from.
type artifactOptions struct {
	cacheDir   string
	catalogue  string
	mirror     string
	mirrorCA   string
	registries []string // HOST=URL
	lock       string
}

// openFlags are those of whoever opens a bundle.
func (o *artifactOptions) openFlags(f *pflag.FlagSet) {
	f.StringVar(&o.cacheDir, "cache-dir", "", "folder for what is downloaded or unpacked (default /var/cache/kubewright; of other users than root, that of their caches)")
	f.StringVar(&o.mirrorCA, "mirror-ca", "", "file with CA certificates (PEM) to trust for mirrors, beside the system's")
	f.StringVar(&o.lock, "lock", "", "hold the bundle to this lock: a file, or sha256:HEX of one (default: to the bundle's own)")
}

// flags are those of whoever makes one, or installs from one.
func (o *artifactOptions) flags(f *pflag.FlagSet) {
	o.openFlags(f)
	f.StringVar(&o.catalogue, "catalogue", "", "file that takes the place of the built-in catalogue of versions, addresses and digests")
	f.StringVar(&o.mirror, "mirror", "", "http(s) address that has upstream's files, at HOST/PATH below it")
	f.StringSliceVar(&o.registries, "registry-mirror", nil, `HOST=URL of a mirror of a registry's images, registry.k8s.io=https://harbor.example.com/k8s, say; HOST * is every other. Nodes pull from there too`)
}

// apply puts what the flags say into a document, where it may be said only once.
func (o *artifactOptions) apply(a *config.Artifacts) error {
	if o.mirror != "" {
		if a.Mirror != "" && a.Mirror != o.mirror {
			return errors.New("--mirror: the document names another under spec.artifacts.mirror: write it in one place")
		}
		a.Mirror = o.mirror
	}
	ca := ""
	if o.mirrorCA != "" {
		data, err := os.ReadFile(o.mirrorCA)
		if err != nil {
			return fmt.Errorf("--mirror-ca: %w", err)
		}
		ca = string(data)
		a.CA = ca
	}
	for _, r := range o.registries {
		host, url, ok := strings.Cut(r, "=")
		if !ok {
			return fmt.Errorf("--registry-mirror %q: write HOST=URL", r)
		}
		known := false
		for i := range a.Registries {
			if a.Registries[i].Host == host {
				a.Registries[i].Mirrors, known = append(a.Registries[i].Mirrors, url), true
			}
		}
		if !known {
			a.Registries = append(a.Registries, config.Registry{Host: host, Mirrors: []string{url}, CA: ca})
		}
	}
	return nil
}

func (o *artifactOptions) openCache() (*bundle.Cache, error) {
	dir, err := o.dir()
	if err != nil {
		return nil, err
	}
	return bundle.OpenCache(dir)
}

func (o *artifactOptions) dir() (string, error) {
	if o.cacheDir != "" {
		return o.cacheDir, nil
	}
	return bundle.CacheDir()
}

// cached tells that there is a cache.
func (o *artifactOptions) cached() bool {
	dir, err := o.dir()
	if err != nil {
		return false
	}
	_, err = os.Stat(dir)
	return err == nil
}

func (o *artifactOptions) openCatalogue() (*bundle.Catalogue, error) {
	if o.catalogue == "" {
		return bundle.BuiltIn(), nil
	}
	data, err := os.ReadFile(o.catalogue)
	if err != nil {
		return nil, fmt.Errorf("--catalogue: %w", err)
	}
	c, err := bundle.ParseCatalogue(data)
	if err != nil {
		return nil, fmt.Errorf("--catalogue %s: %w", o.catalogue, err)
	}
	return c, nil
}

var lockDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// held refuses a lock that is not the one that --lock names.
func (o *artifactOptions) held(l bundle.Lock) error {
	want := o.lock
	if want == "" {
		return nil
	}
	if !lockDigest.MatchString(want) {
		data, err := os.ReadFile(want)
		if err != nil {
			return misuse(fmt.Errorf("--lock: %w: write a file, or sha256:HEX", err))
		}
		theirs, err := bundle.ParseLock(data)
		if err != nil {
			return misuse(fmt.Errorf("--lock %s: %w", want, err))
		}
		want = theirs.Digest()
	}
	if got := l.Digest(); got != want {
		return misuse(fmt.Errorf("the lock is %s, and --lock asks for %s: this is another bundle, or somebody has changed it: get it again, or ask whoever made it for its lock", got, want))
	}
	return nil
}

// isURL tells an address from a path.
func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// open opens a bundle: a folder, a file, or the address of a folder that is served.
func (o *artifactOptions) open(ctx context.Context, where string, moved bundle.Moved) (*bundle.Bundle, error) {
	var b *bundle.Bundle
	info, err := os.Stat(where)
	switch {
	case isURL(where):
		b, err = o.openServed(ctx, where)
	case err != nil:
		return nil, misuse(fmt.Errorf("open bundle: %w: name a folder, a .tar or .tar.zst, or an http(s) address", err))
	case info.IsDir():
		if b, err = bundle.Open(where); err != nil {
			return nil, misuse(err)
		}
	default:
		b, err = o.openFile(ctx, where, moved)
	}
	if err != nil {
		return nil, err
	}
	return b, o.held(b.Lock())
}

func (o *artifactOptions) openFile(ctx context.Context, file string, moved bundle.Moved) (*bundle.Bundle, error) {
	p, err := bundle.OpenPacked(file, moved)
	if err != nil {
		return nil, misuse(err)
	}
	defer p.Close()
	if err := o.held(p.Lock()); err != nil { // before anything of it is unpacked
		return nil, err
	}
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	return cache.Unpack(ctx, p)
}

// openServed reads the lock of a folder that `bundle push --folder` filled and a web server serves.
func (o *artifactOptions) openServed(ctx context.Context, url string) (*bundle.Bundle, error) {
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	a := config.Artifacts{}
	if err := o.apply(&a); err != nil {
		return nil, misuse(err)
	}
	a.Mirror = url
	r, err := bundle.NewRemote(a, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	return cache.Served(ctx, r)
}

// resolve makes the lock of a document, or finds the one that was made before; that one alone with known.
func (o *artifactOptions) resolve(ctx context.Context, c *config.Cluster, images, platforms []string, known bool, moved bundle.Moved) (*bundle.Bundle, error) {
	catalogue, err := o.openCatalogue()
	if err != nil {
		return nil, misuse(err)
	}
	r, err := bundle.NewRemote(c.Spec.Artifacts, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	w := bundle.Wish{Kubernetes: c.Spec.KubernetesVersion, Versions: c.Spec.Artifacts.Versions, Images: images, Platforms: platforms}
	if err := w.Validate(catalogue); err != nil {
		return nil, misuse(err)
	}
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	if known {
		l, err := cache.Known(w, catalogue)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return cache.Bundle(l, r), err
	}
	l, err := cache.Resolve(ctx, w, catalogue, r, moved)
	if err != nil {
		return nil, err
	}
	return cache.Bundle(l, r), o.held(l)
}

// acquire finds what this host is made of where no bundle was given: from the lock of the
// cluster that it joins, else from the catalogue. A host that has a kubelet and a runtime of its
// own needs nothing, unless an earlier run has brought it something.
func (o *hostOptions) acquire(ctx context.Context, t *phases.Target, list []phases.Phase, c *config.Cluster, ofCluster []byte) error {
	if t.Bundle != nil || !phases.Installs(list) {
		return nil
	}
	lacks := t.Lacks()
	return phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		if ofCluster != nil {
			l, err := bundle.ParseLock(ofCluster)
			if err != nil {
				return nil, fmt.Errorf("the lock of the cluster: %w", err)
			}
			if _, ok := l.Find("kubelet", t.Platform()); ok {
				return o.adopt(c, l, !lacks)
			}
		}
		return o.resolve(ctx, c, phases.Images(c), []string{t.Platform()}, !lacks, moved)
	})
}

// adopt holds this host to the lock of its cluster; with known only where it was before.
func (o *artifactOptions) adopt(c *config.Cluster, l bundle.Lock, known bool) (*bundle.Bundle, error) {
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	if known && !cache.Adopted(l) {
		return nil, nil
	}
	if err := o.held(l); err != nil {
		return nil, err
	}
	r, err := bundle.NewRemote(c.Spec.Artifacts, authn.DefaultKeychain)
	if err != nil {
		return nil, err
	}
	return cache.Adopt(l, r)
}
