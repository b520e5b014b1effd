package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/bundle"
)

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
			if rest, ok := strings.CutPrefix(registry, "http://"); ok {
				registry, plain = rest, true
			}
			registry = strings.TrimPrefix(registry, "https://")
			view := newView(out())
			defer view.close()
			var pushed []string
			var b *bundle.Bundle
			steps := []step{{"open", "read the bundle", func(ctx context.Context, moved bundle.Moved) (err error) {
				if b, err = o.open(ctx, args[0], moved); err != nil {
					return err
				}
				_, err = b.Fetch(ctx, b.Lock().Artifacts, moved) // of one that is served
				return err
			}}, {"push", "bring it there", func(ctx context.Context, moved bundle.Moved) error {
				l := b.Lock()
				if folder != "" {
					pushed = []string{folder}
					return b.Pack(ctx, l.Artifacts, folder, moved)
				}
				p := bundle.PushOptions{Insecure: plain, Keychain: authn.DefaultKeychain, Moved: moved, Pushed: func(_, as string) { pushed = append(pushed, as) }}
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
			fmt.Fprintln(cmd.OutOrStdout(), strings.Join(pushed, "\n"))
			scheme, hint := "https", "\nHosts have it from there, on a web server, with --bundle https://HOST/FOLDER"
			if plain {
				scheme = "http"
			}
			if registry != "" {
				hint = fmt.Sprintf("\nHosts pull from there with --registry-mirror '*=%s://%s'", scheme, registry)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), hint)
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
