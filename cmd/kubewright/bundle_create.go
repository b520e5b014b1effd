package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
)

// createOptions are those of bundle create.
type createOptions struct {
	artifactOptions
	config     string
	kubernetes string
	platforms  []string
	role       string
	images     []string
	binaries   []string
}

func newBundleCreate(out func() output) *cobra.Command {
	o := &createOptions{}
	cmd := &cobra.Command{
		Use:   "create FILE|FOLDER",
		Short: "Download everything that a cluster is made of, and pack it",
		Long: `Download everything that a cluster is made of, and pack it.

The names of images are resolved to digests once, and the files' digests are those of the
catalogue; both are written to the lock, and every byte is held to it. What was downloaded
before is taken from the cache; what was cut short goes on where it stopped. Proxies are those
of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, credentials those of "docker login".

Kubewright's own image, which the pods of "kubewright verify" run, is made of this very binary;
for another platform than this machine's, --binary names a kubewright that was built for it.`,
		Example: `  kubewright bundle create kubernetes.tar.zst
  kubewright bundle create --kubernetes-version v1.35.4 --platform linux/amd64,linux/arm64 --binary kubewright-arm64 bundle/
  kubewright bundle create --role worker workers.tar.zst
  kubewright bundle create --config cluster.yaml --mirror https://mirror.example.com/files bundle/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], out()) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.StringVar(&o.config, "config", "", "file with a Cluster document, or with kubeadm's; - is standard input")
	f.StringVar(&o.kubernetes, "kubernetes-version", "", "version of Kubernetes (default: that of the document, else the newest that kubewright was tried with)")
	f.StringSliceVar(&o.platforms, "platform", nil, "platforms of the hosts, linux/amd64, linux/arm64 (default: this machine's)")
	f.StringVar(&o.role, "role", "", "only what hosts of this role need: worker (default: everything)")
	f.StringSliceVar(&o.images, "image", nil, "further images, by their full references")
	f.StringSliceVar(&o.binaries, "binary", nil, "kubewright for another platform, of which its own image is made too")
	must(cmd.MarkFlagFilename("config", "yaml", "yml", "json"))
	must(cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions([]string{"linux/amd64", "linux/arm64"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"worker"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// cluster is the document that says what is needed.
func (o *createOptions) cluster() (*config.Cluster, error) {
	c := &config.Cluster{}
	if o.config != "" {
		var err error
		if c, err = load(o.config, config.Versions{Kubernetes: o.kubernetes}, true); err != nil {
			return nil, err
		}
		if c == nil {
			return nil, fmt.Errorf("%s: a JoinConfiguration alone describes no cluster", o.config)
		}
	}
	if o.kubernetes != "" && c.Spec.KubernetesVersion != "" && strings.TrimPrefix(c.Spec.KubernetesVersion, "v") != strings.TrimPrefix(o.kubernetes, "v") {
		return nil, fmt.Errorf("--kubernetes-version %s: the document says %s: write it in one place", o.kubernetes, c.Spec.KubernetesVersion)
	}
	set(&c.Spec.KubernetesVersion, o.kubernetes)
	if err := o.apply(&c.Spec.Artifacts); err != nil {
		return nil, err
	}
	c.Default(config.Versions{})
	if o.role != "" && o.role != string(config.WorkerRole) {
		return nil, fmt.Errorf("--role %q: write worker, or leave it out: a control plane needs everything", o.role)
	}
	return c, c.Validate()
}

// writable refuses, before anything is downloaded, a name that nothing can be written to.
func writable(to string) error {
	if strings.HasSuffix(to, ".zst") && !strings.HasSuffix(to, ".tar.zst") || slices.Contains([]string{".gz", ".tgz", ".xz", ".zip"}, filepath.Ext(to)) {
		return fmt.Errorf("%s: write a name that ends in .tar or .tar.zst, or a folder", to)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Clean(to))); err != nil {
		return fmt.Errorf("%s: %w: make that folder first", to, err)
	}
	return nil
}

func (o *createOptions) run(ctx context.Context, to string, out output) error {
	if err := writable(to); err != nil {
		return misuse(err)
	}
	if l, err := o.named(); err != nil {
		return err
	} else if l != nil && (o.kubernetes != "" || o.role != "" || o.images != nil || o.platforms != nil || o.binaries != nil) {
		return misuse(errors.New("--lock FILE says it all: leave --kubernetes-version, --role, --image, --platform and --binary out"))
	}
	if o.platforms == nil {
		o.platforms = []string{"linux/" + runtime.GOARCH}
	}
	c, err := o.cluster()
	if err != nil {
		return misuse(err)
	}
	own, err := o.own()
	if err != nil {
		return misuse(err)
	}
	images := phases.Images(c)
	if lb := c.Spec.ControlPlane.LoadBalancer.Image; c.Spec.ControlPlane.Endpoint == "" && (o.config == "" || c.Spec.Provider.Name != "") {
		images = append(images, lb) // "up" gives such a cluster an internal endpoint
	}
	images = slices.DeleteFunc(append(images, o.images...), func(image string) bool {
		return o.role != "" && manifests.IsControlPlaneImage(image)
	})
	documents := phases.Documents(c)
	if o.role != "" { // control planes apply them
		documents = nil
	}
	named, lacking, err := o.namedByManifest(ctx, c)
	if err != nil {
		return err
	}
	images = append(images, named...)
	view := newView(out)
	defer view.close()
	var b *bundle.Bundle
	var artifacts []bundle.Artifact
	steps := []step{
		{"resolve", "find out what the names mean, and download the files", func(ctx context.Context, moved bundle.Moved) (err error) {
			if b, err = o.resolve(ctx, c, images, documents, o.platforms, moved); err != nil {
				return err
			}
			artifacts, err = o.withOwn(ctx, b, own)
			return err
		}},
		{"download", "download the images", func(ctx context.Context, moved bundle.Moved) error {
			_, err := b.Fetch(ctx, artifacts, moved)
			return err
		}},
		{"pack", "write the bundle", func(ctx context.Context, moved bundle.Moved) error {
			return b.Pack(ctx, artifacts, to, moved)
		}},
	}
	if err := runSteps(ctx, view, steps); err != nil {
		return err
	}
	view.close()
	l := b.Lock()
	l.Artifacts = artifacts
	return o.created(out, to, l, lacking, own)
}

// namedByManifest are the images of a pod network that is somebody else's, and those of them that a bundle cannot
// hold under the name by which they are run: with a digest, or without a registry or a tag.
func (o *createOptions) namedByManifest(ctx context.Context, c *config.Cluster) (images, lacking []string, err error) {
	if c.Spec.Network.CNI.Name != "manifest" {
		return nil, nil, nil
	}
	m, err := o.material(ctx, c, nil, false, o.platforms[0])
	if err != nil {
		return nil, nil, err
	}
	for _, image := range addons.ImagesOf(m.Manifest) {
		if _, err := name.NewTag(image, name.StrictValidation); err == nil {
			images = append(images, image)
		} else if !slices.Contains(o.images, image) {
			lacking = append(lacking, image)
		}
	}
	return images, lacking, nil
}

// own are the binaries that the bundle's image of kubewright is made of, by platform.
func (o *createOptions) own() (map[string]string, error) {
	all := map[string]string{}
	if path, platform, ok := bundle.Running(); ok {
		all[platform] = path
	}
	for _, path := range o.binaries {
		platform, err := bundle.BinaryPlatform(path)
		if err != nil {
			return nil, fmt.Errorf("--binary: %w: name a kubewright that was built for linux/amd64 or linux/arm64", err)
		}
		if !slices.Contains(o.platforms, platform) {
			return nil, fmt.Errorf("--binary %s is for %s, and --platform does not ask for that", path, platform)
		}
		all[platform] = path
	}
	maps.DeleteFunc(all, func(platform, _ string) bool { return !slices.Contains(o.platforms, platform) })
	return all, nil
}

// withOwn adds kubewright's own images to the artifacts of a bundle. A lock that was named says itself whether it has them.
func (o *createOptions) withOwn(ctx context.Context, b *bundle.Bundle, own map[string]string) ([]bundle.Artifact, error) {
	artifacts := slices.Clone(b.Lock().Artifacts)
	l, err := o.named()
	if err != nil {
		return nil, err
	}
	for _, platform := range slices.Sorted(maps.Keys(own)) {
		a, err := b.AddOwn(ctx, version, own[platform])
		if err != nil {
			return nil, err
		}
		if l == nil {
			artifacts = append(artifacts, a)
		}
	}
	return artifacts, nil
}

// created tells what was made.
func (o *createOptions) created(out output, to string, l bundle.Lock, lacking []string, own map[string]string) error {
	for _, p := range o.platforms {
		if own[p] == "" && o.lock == "" {
			fmt.Fprintf(os.Stderr, "without kubewright's own image for %s, which kubewright verify needs there: name a binary for it with --binary\n", p)
		}
	}
	if lacking != nil {
		fmt.Fprintf(os.Stderr, "The pod network runs images that the bundle does not hold, as their names have a digest, or no registry or tag: %s. Hosts have to pull them.\n", strings.Join(lacking, ", "))
	}
	if out == "json" {
		return json.NewEncoder(os.Stdout).Encode(describeBundle("Bundle", to, l))
	}
	fmt.Printf("%s holds %d artifacts. Its lock is %s; whoever uses it can insist with --lock %[3]s\n", to, len(l.Artifacts), l.Digest())
	return nil
}
