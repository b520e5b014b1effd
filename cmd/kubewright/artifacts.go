package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/pflag"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
)

// artifactOptions say where binaries and images come from.
type artifactOptions struct {
	cacheDir   string
	catalogue  string
	mirror     string
	mirrorCA   string
	registries []string // HOST=URL
	lock       string
	whose      string // lock it is that was found
}

// openFlags are those of whoever opens a bundle.
func (o *artifactOptions) openFlags(f *pflag.FlagSet) {
	f.StringVar(&o.cacheDir, "cache-dir", "", "folder for what is downloaded or unpacked (default /var/cache/kubewright; of other users than root, that of their caches)")
	f.StringVar(&o.mirrorCA, "mirror-ca", "", "file with CA certificates (PEM) to trust for mirrors, beside the system's")
	f.StringVar(&o.lock, "lock", "", "hold everything to this lock: a file, or sha256:HEX of one (default: that of the bundle; without a bundle, of the cluster, else a new one)")
}

// flags are those of whoever makes one, or installs from one.
func (o *artifactOptions) flags(f *pflag.FlagSet) {
	o.openFlags(f)
	f.StringVar(&o.catalogue, "catalogue", "", "file that takes the place of the built-in catalogue of versions, addresses and digests")
	f.StringVar(&o.mirror, "mirror", "", "http(s) address that has upstream's files, at HOST/PATH below it; images have --registry-mirror")
	f.StringSliceVar(&o.registries, "registry-mirror", nil, `HOST=URL of a mirror of a registry's images, registry.k8s.io=https://harbor.example.com/k8s, say; '*=URL' is every other. Nodes pull from there too`)
}

// apply adds what the flags say to a document; where both say something, the flags count.
func (o *artifactOptions) apply(a *config.Artifacts) error {
	set(&a.Mirror, o.mirror)
	named := map[string][]string{}
	for _, r := range o.registries {
		host, url, ok := strings.Cut(r, "=")
		if !ok {
			return fmt.Errorf("--registry-mirror %q: write HOST=URL", r)
		}
		named[host] = append(named[host], url)
	}
	for _, host := range slices.Sorted(maps.Keys(named)) {
		i := slices.IndexFunc(a.Registries, func(r config.Registry) bool { return r.Host == host })
		if i < 0 {
			i = len(a.Registries)
			a.Registries = append(a.Registries, config.Registry{Host: host})
		}
		a.Registries[i].Mirrors = named[host]
	}
	if o.mirrorCA != "" {
		ca, err := os.ReadFile(o.mirrorCA)
		if err != nil {
			return fmt.Errorf("--mirror-ca: %w", err)
		}
		addCA(&a.CA, string(ca))
		for i := range a.Registries {
			addCA(&a.Registries[i].CA, string(ca))
		}
	}
	return a.Complete()
}

func addCA(all *string, ca string) {
	if *all != "" && !strings.HasSuffix(*all, "\n") {
		*all += "\n"
	}
	if !strings.Contains(*all, ca) {
		*all += ca
	}
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

// held refuses a lock that is not the one that --lock names.
func (o *artifactOptions) held(l bundle.Lock) error {
	want := o.lock
	if theirs, err := o.named(); err != nil {
		return err
	} else if theirs != nil {
		want = theirs.Digest()
	}
	if got := l.Digest(); want != "" && got != want {
		return misuse(fmt.Errorf("the lock is %s, and --lock asks for %s: this is another bundle, or somebody has changed it: get it again, or ask whoever made it for its lock", got, want))
	}
	return nil
}

// named is the lock in the file that --lock names; nil where it names none.
func (o *artifactOptions) named() (*bundle.Lock, error) {
	if o.lock == "" || bundle.IsDigest(o.lock) {
		return nil, nil
	}
	if strings.HasPrefix(o.lock, "sha256:") {
		return nil, misuse(fmt.Errorf("--lock %s: write 64 hex digits after sha256:, or a file", o.lock))
	}
	data, err := os.ReadFile(o.lock)
	if err != nil {
		return nil, misuse(fmt.Errorf("--lock: %w: write a file, or sha256:HEX", err))
	}
	l, err := bundle.ParseLock(data)
	if err != nil {
		return nil, misuse(fmt.Errorf("--lock %s: %w", o.lock, err))
	}
	return &l, nil
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
	case filepath.Base(where) == "lock.yaml":
		return nil, misuse(fmt.Errorf("open bundle: %s: name the folder that it is in", where))
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
	url = strings.TrimSuffix(url, "/lock.yaml")
	if strings.HasSuffix(url, ".tar") || strings.HasSuffix(url, ".tar.zst") {
		return nil, misuse(fmt.Errorf("--bundle %s: a file has to be downloaded first; served as it is, a bundle is a folder, which `kubewright bundle push --folder` makes", url))
	}
	a := config.Artifacts{Mirror: url}
	if err := o.apply(&a); err != nil {
		return nil, misuse(err)
	}
	a.Mirror = url
	if err := a.Complete(); err != nil {
		return nil, misuse(fmt.Errorf("--bundle: %w", err))
	}
	r, err := bundle.NewRemote(a, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	l, err := r.Lock(ctx)
	if err != nil {
		return nil, err
	}
	return o.adopt(a, l)
}

// resolve makes the lock of a document, or takes the one that was made before; one in a file that --lock names
// comes before all.
func (o *artifactOptions) resolve(ctx context.Context, c *config.Cluster, images []string, documents []bundle.Document, platforms []string, moved bundle.Moved) (*bundle.Bundle, error) {
	if l, err := o.named(); err != nil {
		return nil, err
	} else if l != nil {
		return o.adopt(c.Spec.Artifacts, *l)
	}
	catalogue, err := o.openCatalogue()
	if err != nil {
		return nil, misuse(err)
	}
	r, err := bundle.NewRemote(c.Spec.Artifacts, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	w := bundle.Wish{Kubernetes: c.Spec.KubernetesVersion, Versions: c.Spec.Artifacts.Versions, Images: images, Documents: documents, Platforms: platforms}
	if err := w.Validate(catalogue); err != nil {
		return nil, misuse(err)
	}
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	l, err := cache.Resolve(ctx, w, catalogue, r, moved)
	if err != nil {
		return nil, err
	}
	return cache.Bundle(l, r), o.held(l)
}

// adopt takes over a lock that was made elsewhere.
func (o *artifactOptions) adopt(a config.Artifacts, l bundle.Lock) (*bundle.Bundle, error) {
	if err := o.held(l); err != nil {
		return nil, err
	}
	r, err := bundle.NewRemote(a, authn.DefaultKeychain)
	if err != nil {
		return nil, misuse(err)
	}
	cache, err := o.openCache()
	if err != nil {
		return nil, err
	}
	return cache.Adopt(l, r)
}
