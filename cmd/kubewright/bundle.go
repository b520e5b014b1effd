package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
)

func newBundle(out func() output) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Make, list, verify and push bundles: everything that a cluster is made of",
		Long: `Make, list, verify and push bundles: everything that a cluster is made of.

A bundle is a lock, which names every binary and image by its digest, and their bytes. It is a
folder, one file (.tar, .tar.zst), or a folder that a web server serves. With one, hosts need no
network but that of the cluster.`,
		Example: `  kubewright bundle create kubernetes.tar.zst
  kubewright bundle verify kubernetes.tar.zst
  kubewright init --bundle kubernetes.tar.zst`,
	}
	holdsCommands(cmd)
	cmd.AddCommand(newBundleCreate(out), newBundleList(out), newBundleVerify(out), newBundlePush(out), newBundlePrune(out))
	return cmd
}

// createOptions are those of bundle create.
type createOptions struct {
	artifactOptions
	config     string
	kubernetes string
	platforms  []string
	role       string
	images     []string
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
of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, credentials those of "docker login".`,
		Example: `  kubewright bundle create kubernetes.tar.zst
  kubewright bundle create --kubernetes-version v1.35.4 --platform linux/amd64,linux/arm64 bundle/
  kubewright bundle create --role worker workers.tar.zst
  kubewright bundle create --config cluster.yaml --mirror https://mirror.example.com/files bundle/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], out()) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.StringVar(&o.config, "config", "", "file with a Cluster document, or with kubeadm's; - is standard input")
	f.StringVar(&o.kubernetes, "kubernetes-version", "", "version of Kubernetes (default: that of the document, else the newest that kubewright was tried with)")
	f.StringSliceVar(&o.platforms, "platform", []string{"linux/" + runtime.GOARCH}, "platforms of the hosts, linux/amd64, linux/arm64")
	f.StringVar(&o.role, "role", "", "only what hosts of this role need: worker (default: everything)")
	f.StringSliceVar(&o.images, "image", nil, "further images, by their full references")
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

func (o *createOptions) run(ctx context.Context, to string, out output) error {
	c, err := o.cluster()
	if err != nil {
		return misuse(err)
	}
	images := slices.DeleteFunc(append(phases.Images(c), o.images...), func(image string) bool {
		return o.role != "" && manifests.IsControlPlaneImage(image)
	})
	view := newView(out)
	defer view.close()
	var b *bundle.Bundle
	var artifacts []bundle.Artifact
	steps := []step{
		{"resolve", "find out what the names mean, and download the files", func(ctx context.Context, moved bundle.Moved) (err error) {
			if b, err = o.resolve(ctx, c, images, o.platforms, false, moved); err == nil {
				artifacts = b.Lock().Artifacts
			}
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
	return o.created(out, to, b.Lock())
}

// created tells what was made.
func (o *createOptions) created(out output, to string, l bundle.Lock) error {
	if out == "json" {
		return json.NewEncoder(os.Stdout).Encode(describeBundle("Bundle", to, l))
	}
	fmt.Printf("%s holds %d artifacts. Its lock is %s; whoever uses it can insist with --lock %[3]s\n", to, len(l.Artifacts), l.Digest())
	return nil
}

// step is a part of a longer work, shown like a phase.
type step struct {
	name, short string
	run         func(context.Context, bundle.Moved) error
}

func runSteps(ctx context.Context, view *view, steps []step) error {
	host, _ := os.Hostname()
	for _, s := range steps {
		t := &phases.Target{Node: config.Node{Name: host}, Report: view.event}
		if err := phases.Show(ctx, t, s.name, s.short, s.run); err != nil {
			return err
		}
	}
	return nil
}

// listed is a bundle as JSON.
type listed struct {
	Kind      string            `json:"kind"`
	Path      string            `json:"path"`
	Lock      string            `json:"lock"`
	Origin    string            `json:"origin"`
	Used      *time.Time        `json:"lastUsed,omitempty"`
	Bytes     int64             `json:"bytes"`
	Artifacts []bundle.Artifact `json:"artifacts"`
}

func describeBundle(kind, path string, l bundle.Lock) listed {
	d := listed{Kind: kind, Path: path, Lock: l.Digest(), Origin: l.Origin, Artifacts: l.Artifacts}
	for _, a := range l.Artifacts {
		d.Bytes += a.Size
	}
	return d
}

func newBundleList(out func() output) *cobra.Command {
	o := &artifactOptions{}
	cmd := &cobra.Command{
		Use:   "list [BUNDLE]",
		Short: "List what a bundle holds, or which bundles the cache remembers",
		Long: `List what a bundle holds, or which bundles the cache remembers.

VERIFIED tells how a digest was known to be right when the lock was made: by the catalogue, by
the project's signature, or over TLS from its registry or publisher. A dash: whoever made the
lock says so.`,
		Example: "  kubewright bundle list kubernetes.tar.zst\n  kubewright bundle list -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			if len(args) == 0 {
				return o.listCache(w, out())
			}
			l, err := o.readLock(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := o.held(l); err != nil {
				return err
			}
			if out() == "json" {
				return json.NewEncoder(w).Encode(describeBundle("Bundle", args[0], l))
			}
			return listBundle(w, l)
		},
	}
	o.openFlags(cmd.Flags())
	return cmd
}

// readLock reads the lock of a bundle, and nothing else of it.
func (o *artifactOptions) readLock(ctx context.Context, where string) (bundle.Lock, error) {
	if info, err := os.Stat(where); err == nil && !info.IsDir() {
		p, err := bundle.OpenPacked(where, nil)
		if err != nil {
			return bundle.Lock{}, misuse(err)
		}
		return p.Lock(), p.Close()
	}
	b, err := o.open(ctx, where, nil)
	if err != nil {
		return bundle.Lock{}, err
	}
	return b.Lock(), nil
}

func listBundle(w io.Writer, l bundle.Lock) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tVERSION\tPLATFORM\tSIZE\tVERIFIED\tDIGEST")
	for _, a := range l.Artifacts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Name, dash(a.Version), a.Platform, mebibytes(a.Size), dash(a.Verified), a.Digest)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	d := describeBundle("", "", l)
	_, err := fmt.Fprintf(w, "%d artifacts, %s, origin %s, lock %s\n", len(l.Artifacts), mebibytes(d.Bytes), l.Origin, d.Lock)
	return err
}

func (o *artifactOptions) listCache(w io.Writer, out output) error {
	cache, err := o.openCache()
	if err != nil {
		return err
	}
	all, err := cache.List()
	if err != nil {
		return err
	}
	if out == "json" {
		list := []listed{}
		for _, c := range all {
			d := describeBundle("Bundle", c.Name, c.Lock)
			d.Used = &c.Used
			list = append(list, d)
		}
		return json.NewEncoder(w).Encode(list)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KUBERNETES\tPLATFORMS\tARTIFACTS\tSIZE\tLAST USED\tLOCK")
	for _, c := range all {
		d := describeBundle("", "", c.Lock)
		kubernetes, platforms := "", []string{}
		for _, a := range c.Lock.Artifacts {
			if a.Name == "kubelet" {
				kubernetes = a.Version
			}
			platforms = append(platforms, a.Platform)
		}
		slices.Sort(platforms)
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", dash(kubernetes), strings.Join(slices.Compact(platforms), ","), len(c.Lock.Artifacts), mebibytes(d.Bytes), c.Used.Format(time.DateTime), d.Lock)
	}
	return t.Flush()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newBundleVerify(out func() output) *cobra.Command {
	o := &artifactOptions{}
	cmd := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Hold every byte of a bundle to its lock",
		Long: `Hold every byte of a bundle to its lock.

The lock itself is believed unless --lock names the right one: by the digest that bundle create
printed, or a file that came another way.`,
		Example: "  kubewright bundle verify kubernetes.tar.zst\n  kubewright bundle verify --lock sha256:HEX bundle/",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			view := newView(out())
			defer view.close()
			var l bundle.Lock
			err := runSteps(cmd.Context(), view, []step{{"verify", "read the bundle", func(ctx context.Context, moved bundle.Moved) (err error) {
				l, err = o.verify(ctx, args[0], moved)
				return err
			}}})
			if err != nil {
				return err
			}
			view.close()
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(describeBundle("Bundle", args[0], l))
			}
			against := "its own lock"
			if o.lock != "" {
				against = "the lock that --lock names"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is whole: %d artifacts, checked against %s, %s\n", args[0], len(l.Artifacts), against, l.Digest())
			return err
		},
	}
	o.openFlags(cmd.Flags())
	return cmd
}

func (o *artifactOptions) verify(ctx context.Context, where string, moved bundle.Moved) (bundle.Lock, error) {
	if info, err := os.Stat(where); err == nil && !info.IsDir() {
		p, err := bundle.OpenPacked(where, moved)
		if err != nil {
			return bundle.Lock{}, misuse(err)
		}
		defer p.Close()
		if err := o.held(p.Lock()); err != nil {
			return bundle.Lock{}, err
		}
		return p.Lock(), p.Verify(ctx)
	}
	b, err := o.open(ctx, where, moved)
	if err != nil {
		return bundle.Lock{}, err
	}
	l := b.Lock()
	if b.Remote() { // what is served is read into the cache, and checked on the way
		_, err := b.Fetch(ctx, l.Artifacts, moved)
		return l, err
	}
	return l, b.Verify(ctx, l.Artifacts, func(done, total int64) { moved(filepath.Base(where), done, total) })
}

func newBundlePush(out func() output) *cobra.Command {
	o := &artifactOptions{}
	var registry, folder string
	var plain bool
	cmd := &cobra.Command{
		Use:   "push BUNDLE",
		Short: "Fill a registry or a mirror folder",
		Long: `Fill a registry or a mirror folder.

Of registry.k8s.io/pause:3.10.2, --registry HOST/PREFIX makes HOST/PREFIX/pause:3.10.2, so that
--registry-mirror registry.k8s.io=https://HOST/PREFIX finds it. Credentials are those of
"docker login".

A folder is the bundle itself: have a web server serve it, and give hosts --bundle
https://HOST/FOLDER.`,
		Example: `  kubewright bundle push kubernetes.tar.zst --registry harbor.example.com/k8s
  kubewright bundle push kubernetes.tar.zst --folder /srv/www/kubernetes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (registry == "") == (folder == "") {
				return misuse(errors.New("name one: --registry HOST[/PREFIX], or --folder PATH"))
			}
			if strings.HasSuffix(folder, ".tar") || strings.HasSuffix(folder, ".tar.zst") {
				return misuse(fmt.Errorf("--folder %s: that is the name of a file; `kubewright bundle create` makes those", folder))
			}
			view := newView(out())
			defer view.close()
			var pushed []string
			var b *bundle.Bundle
			steps := []step{{"open", "read the bundle", func(ctx context.Context, moved bundle.Moved) (err error) {
				b, err = o.open(ctx, args[0], moved)
				return err
			}}, {"push", "bring it there", func(ctx context.Context, moved bundle.Moved) error {
				l := b.Lock()
				if folder != "" {
					pushed = []string{folder}
					return b.Pack(ctx, l.Artifacts, folder, moved)
				}
				p := bundle.PushOptions{Insecure: plain, Keychain: authn.DefaultKeychain, Pushed: func(_, as string) { pushed = append(pushed, as) }}
				if o.mirrorCA != "" {
					ca, err := os.ReadFile(o.mirrorCA)
					if err != nil {
						return misuse(fmt.Errorf("--mirror-ca: %w", err))
					}
					p.CA = string(ca)
				}
				images := slices.DeleteFunc(slices.Clone(l.Artifacts), func(a bundle.Artifact) bool { return a.Type != bundle.Image })
				return b.Push(ctx, images, registry, p)
			}}}
			if err := runSteps(cmd.Context(), view, steps); err != nil {
				return err
			}
			view.close()
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"kind": "Pushed", "to": pushed})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(pushed, "\n"))
			return err
		},
	}
	o.openFlags(cmd.Flags())
	cmd.Flags().StringVar(&registry, "registry", "", "HOST[:PORT][/PREFIX] that takes the images")
	cmd.Flags().StringVar(&folder, "folder", "", "folder that becomes a bundle, to be served by a web server")
	cmd.Flags().BoolVar(&plain, "plain-http", false, "speak to the registry without TLS")
	must(cmd.MarkFlagDirname("folder"))
	return cmd
}

func newBundlePrune(out func() output) *cobra.Command {
	o := &artifactOptions{}
	var keep int
	var dry bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove old versions from the cache",
		Long: `Remove old versions from the cache: all but the --keep that were used last, and all bytes that
no remembered bundle names. What was used within the last hour stays, unless --keep is 0.`,
		Example: "  kubewright bundle prune --dry-run\n  kubewright bundle prune --keep 1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep < 0 {
				return misuse(fmt.Errorf("--keep %d: write how many to keep", keep))
			}
			cache, err := o.openCache()
			if err != nil {
				return err
			}
			p, err := cache.Prune(cmd.Context(), keep, dry)
			if err != nil {
				return err
			}
			if out() == "json" {
				names := []string{}
				for _, l := range p.Locks {
					names = append(names, l.Lock.Digest())
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"kind": "Pruned", "locks": names, "blobs": p.Blobs, "bytes": p.Bytes, "dryRun": dry})
			}
			verb := "Removed"
			if dry {
				verb = "Would remove"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %d of the remembered bundles, and %d files with %s\n", verb, len(p.Locks), p.Blobs, mebibytes(p.Bytes))
			return err
		},
	}
	cmd.Flags().StringVar(&o.cacheDir, "cache-dir", "", "folder of the cache (default /var/cache/kubewright; of other users than root, that of their caches)")
	cmd.Flags().IntVar(&keep, "keep", 2, "how many remembered bundles to keep")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed, and remove nothing")
	return cmd
}
