package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host/container"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers/nodeimage"
)

func newBuild(out func() output) *cobra.Command {
	cmd := &cobra.Command{Use: "build", Short: "Build images of machines", Example: "  kubewright build node-image my/node:v1.36.3 --base kindest/base:v20260101 --bundle kubernetes.tar.zst"}
	holdsCommands(cmd)
	cmd.AddCommand(newBuildNodeImage(out))
	return cmd
}

// nodeImageOptions are those of build node-image.
type nodeImageOptions struct {
	artifactOptions
	base, bundle, config, kubernetes string
}

func newBuildNodeImage(out func() output) *cobra.Command {
	o := &nodeImageOptions{}
	cmd := &cobra.Command{
		Use:   "node-image IMAGE",
		Short: "Build the image of a machine that is a container, for up --provider kind, and for kind",
		Long: `Build the image of a machine that is a container: the runtime, the kubelet, the CNI plugins and
all images of a cluster, unpacked, so that nothing has to be downloaded or unpacked when a cluster is
made of it. With --bundle no network is needed.

The base is an image of a system with systemd that boots when its /sbin/init is run, and that has
bash, iproute2, iptables, nftables, conntrack, kmod, mount, util-linux, procps and tar: kindest/base, or Debian with these packages.`,
		Example: `  kubewright build node-image my/node:v1.36.3 --base kindest/base:v20260101-0123abcd
  kubewright build node-image my/node:v1.36.3 --base my/debian-systemd --bundle kubernetes.tar.zst
  kubewright up --provider kind --image my/node:v1.36.3`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], out()) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.StringVar(&o.base, "base", "", "image of the system")
	f.StringVar(&o.bundle, "bundle", "", "binaries and images, as a folder, a file (.tar, .tar.zst), or the address at which a folder is served (default: download them)")
	f.StringVar(&o.config, "config", "", "file with the Cluster document that the image is for; - is standard input")
	f.StringVar(&o.kubernetes, "kubernetes-version", "", "version of Kubernetes (default: that of the bundle, or of the document, else the newest that kubewright was tried with)")
	must(cmd.MarkFlagRequired("base"))
	must(cmd.MarkFlagFilename("config", "yaml", "yml", "json"))
	must(cmd.MarkFlagFilename("bundle"))
	return cmd
}

func (o *nodeImageOptions) run(ctx context.Context, name string, out output) error {
	begin := time.Now()
	v := newView(out)
	defer v.close()
	engine, err := container.Detect(ctx)
	if err != nil {
		return err
	}
	c := &config.Cluster{}
	if o.config != "" {
		b, err := config.Read(o.config)
		if err != nil {
			return misuse(err)
		}
		if c, err = config.Parse(b); err != nil {
			return misuse(fmt.Errorf("%s: %w", o.config, err))
		}
	}
	set(&c.Spec.KubernetesVersion, o.kubernetes)
	if err := o.apply(&c.Spec.Artifacts); err != nil {
		return misuse(err)
	}
	b, err := o.contents(ctx, c, v)
	if err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return misuse(err)
	}
	if err := nodeimage.Build(ctx, nodeimage.Image{Engine: engine, Base: o.base, Name: name, Cluster: c, Bundle: b, Report: v.event}); err != nil {
		return err
	}
	v.close()
	if out == "json" {
		return json.NewEncoder(os.Stdout).Encode(struct {
			Kind       string  `json:"kind"`
			Image      string  `json:"image"`
			Kubernetes string  `json:"kubernetes"`
			Seconds    float64 `json:"seconds"`
		}{"NodeImage", name, c.Spec.KubernetesVersion, time.Since(begin).Seconds()})
	}
	fmt.Printf("\n%s is built, with Kubernetes %s (%.0f s).\n\n  kubewright up --provider kind --image %s\n", name, c.Spec.KubernetesVersion, time.Since(begin).Seconds(), name)
	return nil
}

// contents finds what the image is to hold, and completes the document.
func (o *nodeImageOptions) contents(ctx context.Context, c *config.Cluster, v *view) (*bundle.Bundle, error) {
	t := &phases.Target{Report: v.event, Node: config.Node{Name: "here"}}
	err := phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		if o.bundle != "" {
			b, err := o.open(ctx, o.bundle, moved)
			if err == nil {
				c.Default(b.Lock().Versions("linux/" + runtime.GOARCH))
			}
			return b, err
		}
		c.Default(config.Versions{})
		return o.resolve(ctx, c, phases.Images(c), phases.Documents(c), []string{"linux/" + runtime.GOARCH}, moved)
	})
	return t.Bundle, err
}
