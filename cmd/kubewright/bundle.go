package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/phases"
)

func newBundle(out func() output) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Make, list, verify, push and prune bundles: everything that a cluster is made of",
		Long: `Make, list, verify, push and prune bundles: everything that a cluster is made of.

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

VERIFIED tells how a digest was known to be right when the lock was made: by the catalogue, by the
cluster's document, by the project's signature, over TLS from its registry or publisher, or (http) from a mirror
without TLS. A dash: whoever made the lock says so.`,
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
	dir, err := o.dir()
	if err != nil {
		return err
	}
	var all []bundle.Cached
	if _, err := os.Stat(dir); err == nil { // else there is none, and looking makes none
		cache, err := bundle.OpenCache(dir)
		if err != nil {
			return err
		}
		if all, err = cache.List(); err != nil {
			return err
		}
	}
	seen := map[string]bool{} // a lock may be remembered under several names
	all = slices.DeleteFunc(all, func(c bundle.Cached) bool {
		again := seen[c.Lock.Digest()]
		seen[c.Lock.Digest()] = true
		return again
	})
	if out == "json" {
		list := []listed{}
		for _, c := range all {
			d := describeBundle("Bundle", c.Name, c.Lock)
			d.Used = &c.Used
			list = append(list, d)
		}
		return json.NewEncoder(w).Encode(list)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(w, "The cache %s remembers no bundle.\n", dir)
		return err
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
