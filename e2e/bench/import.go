package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

const tarDir = "/mnt/images"

// kubewrightImport is the images phase of a control plane, as a user would run it alone: it looks at the host, verifies
// what it sends, and imports.
func kubewrightImport(ctx context.Context, l *lab.Lab) (float64, error) {
	return importOn(ctx, l, lab.ToolDir+"/kubewright", "init", "phase", "images", "--config", documentPath, "--bundle", lab.BundleDir)
}

// ctrImport is containerd's own way: all images in one tar, as OCI lays them out, with the bundle's own blobs. It is what
// a person types; with --local ctr takes little more than half of that time here.
func ctrImport(ctx context.Context, l *lab.Lab) (float64, error) {
	file, err := l.ImageTar(ctx)
	if err != nil {
		return 0, err
	}
	return importOn(ctx, l, "ctr", "--namespace", "k8s.io", "images", "import", tarDir+"/"+filepath.Base(file))
}

// importOn times a command that imports the images into the empty store of a host whose containerd runs.
func importOn(ctx context.Context, l *lab.Lab, argv ...string) (seconds float64, err error) {
	image, err := cluster.WithRuntime(ctx, l)
	if err != nil {
		return 0, err
	}
	file, err := l.ImageTar(ctx)
	if err != nil {
		return 0, err
	}
	o := lab.HostOptions{Image: image, Mounts: []lab.Mount{{Source: filepath.Dir(file), Target: tarDir}}}
	h, err := l.Host(ctx, "bench-import", o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.Remove(context.WithoutCancel(ctx))) }()
	if _, _, err := h.Exec(ctx, nil, "crictl", "version"); err != nil {
		return 0, err
	}
	if out, _, err := h.Exec(ctx, nil, "ctr", "--namespace", "k8s.io", "content", "list", "--quiet"); err != nil {
		return 0, err
	} else if out != "" {
		return 0, fmt.Errorf("containerd's store is not empty: %s", out)
	}
	// Both sides read from the page cache, and neither waits for what the host's making has left to write.
	if _, _, err := h.Exec(ctx, nil, "sh", "-c", "cat "+lab.BundleDir+"/blobs/sha256/* "+tarDir+"/* > /dev/null"); err != nil {
		return 0, err
	}
	syscall.Sync()
	seconds, err = timed(func() error {
		_, _, err := h.Exec(ctx, nil, argv...)
		return err
	})
	if err != nil {
		return 0, err
	}
	return seconds, allUsable(ctx, l, h)
}

// allUsable wants each image of the bundle whole and unpacked.
func allUsable(ctx context.Context, l *lab.Lab, h *lab.Host) error {
	folder, err := l.Bundle(ctx)
	if err != nil {
		return err
	}
	b, err := bundle.Open(folder)
	if err != nil {
		return err
	}
	out, _, err := h.Exec(ctx, nil, "ctr", "--namespace", "k8s.io", "images", "check")
	if err != nil {
		return err
	}
	state := map[string]string{} // of each image, its line of the table
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 {
			state[f[0]] = line
		}
	}
	for _, image := range b.Images("linux/" + runtime.GOARCH) {
		// REF, TYPE, DIGEST, STATUS (complete (3/3)), SIZE, UNPACKED
		line := state[image.Name]
		if f := strings.Fields(line); !strings.Contains(line, image.Digest) || !strings.Contains(line, " complete ") || f[len(f)-1] != "true" {
			return fmt.Errorf("image %s of digest %s is not there, whole and unpacked: %q", image.Name, image.Digest, line)
		}
	}
	return nil
}
