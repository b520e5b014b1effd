// Package nodeimage makes images of machines that are containers: a system with systemd goes in, and a
// bundle; out comes an image that is a node of a cluster within seconds, here and in kind.
package nodeimage

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/host/container"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/reach"
)

var (
	//go:embed entrypoint.sh
	entrypoint string
	//go:embed readdress.sh
	readdress string
	//go:embed seed.sh
	seed string
	//go:embed finish.sh
	finish string
)

// Image is what is made.
type Image struct {
	Engine container.Engine
	Base   string // a system with systemd, iproute2, iptables...: Debian's, or kindest/base
	Name   string // of the image
	// Cluster is complete; Bundle has what its nodes are made of.
	Cluster *config.Cluster
	Bundle  *bundle.Bundle
	Report  func(phases.Event)
}

// Build makes the image, in a container that is gone afterwards.
func Build(ctx context.Context, i Image) (err error) {
	name := "kubewright-build-" + strings.ToLower(rand.Text()[:8])
	// The images that it will hold are unpacked into a volume: there is no overlay on an overlay.
	_, err = i.Engine.Do(ctx, "run", "--detach", "--name", name, "--label", "kubewright.dev/build="+i.Name, "--privileged", "--cgroupns=private", "--security-opt", "seccomp=unconfined",
		"--security-opt", "apparmor=unconfined", "--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--volume", "/var/lib/containerd", "--stop-signal", "SIGRTMIN+3",
		"--entrypoint", "/bin/sh", i.Base, "-c", "mount --make-rshared /; exec /sbin/init")
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if _, rmErr := i.Engine.Do(ctx, "rm", "--force", "--volumes", name); err == nil {
			err = rmErr
		}
	}()
	if err != nil {
		return fmt.Errorf("start %s: %w", i.Base, err)
	}
	h := host.NewRemote(container.New(i.Engine, name, nil, container.Relayed(reach.NewRelay)))
	defer h.Close()
	if err := i.Engine.Booted(ctx, name, h); err != nil {
		return err
	}
	if err := phases.Furnish(ctx, h, i.Cluster, i.Bundle, i.Report); err != nil {
		return err
	}
	_, err = h.WriteFiles(ctx,
		host.File{Path: "/kind/entrypoint", Mode: 0o755, Content: host.Text(entrypoint)},
		host.File{Path: "/kind/readdress", Mode: 0o755, Content: host.Text(readdress)},
		host.File{Path: "/kind/seed", Mode: 0o755, Content: host.Text(seed)},
		// It would start, find no configuration, and end, again and again.
		host.File{Path: "/etc/systemd/system/kubelet.service.d/05-kubewright-image.conf", Content: host.Text("[Unit]\nConditionPathExists=/var/lib/kubelet/config.yaml\n")},
		host.File{Path: "/etc/systemd/system/containerd.service.d/10-kubewright-seed.conf", Content: host.Text("[Service]\nExecStartPre=/kind/seed\n")})
	if err != nil {
		return err
	}
	return i.commit(ctx, h, name)
}

func (i Image) commit(ctx context.Context, h *host.Remote, name string) error {
	script := fmt.Sprintf("version=%s\n%s", i.Cluster.Spec.KubernetesVersion, finish)
	if _, err := h.Run(ctx, host.Cmd("sh", "-c", script)); err != nil {
		return err
	}
	h.Close()
	if _, err := i.Engine.Do(ctx, "stop", "--time", "30", name); err != nil {
		return err
	}
	_, err := i.Engine.Do(ctx, "commit", "--change", `ENTRYPOINT ["/kind/entrypoint"]`, "--change", "CMD []", name, i.Name)
	return err
}
