package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Image is what a host starts from: a root file system that the engine holds, and what /var holds, which is a volume
// and so in no image. The zero Image is a bare host.
type Image struct {
	ref string // in the engine
	dir string // in the cache; its folder "var" is what /var begins with
}

// bareImage imports the root file system into the engine.
func (l *Lab) bareImage(ctx context.Context) (Image, error) {
	rootfs, err := l.Rootfs(ctx)
	if err != nil {
		return Image{}, err
	}
	image := Image{ref: "kubewright-lab/bare:" + rootfsKey()}
	unlock, err := lock(ctx, filepath.Join(l.Engine.dir, "bare-"+rootfsKey()+".lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if _, err := l.Engine.docker(ctx, nil, "image", "inspect", image.ref); err == nil {
		return image, nil
	}
	l.log("importing the root filesystem into the engine")
	tar := exec.CommandContext(ctx, "tar", "-C", rootfs, "--numeric-owner", "-c", ".")
	out, err := tar.StdoutPipe()
	if err != nil {
		return Image{}, err
	}
	if err := tar.Start(); err != nil {
		return Image{}, err
	}
	_, err = l.Engine.docker(ctx, out, "import",
		"--change", `ENTRYPOINT ["/entry"]`, "--change", "ENV container=docker",
		"--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "-", image.ref)
	out.Close() // if the engine refused, tar must not wait for a reader
	if waitErr := tar.Wait(); err == nil {
		err = waitErr
	}
	return image, err
}

// In the engine's data, which dockerd mounts on itself: a hard link cannot leave a mount.
const preparedKind = "engine/data/prepared"

// Prepared returns an image of a host on which setup has run: so that many hosts can start from "containerd runs,
// images are imported". It is made once for each key, which has to stand for all that setup does; what it
// starts from and the lab's own files are added to it.
func (l *Lab) Prepared(ctx context.Context, what, setupKey string, setup func(ctx context.Context, h *Host) error) (Image, error) {
	k := key(rootfsKey(), what, setupKey)
	image := Image{ref: "kubewright-lab/prepared:" + k}
	if _, err := l.Engine.docker(ctx, nil, "image", "inspect", image.ref); err != nil {
		// A /var without its image is half a host.
		os.RemoveAll(filepath.Join(l.cache, preparedKind, k))
	}
	var err error
	image.dir, err = l.make(ctx, preparedKind, "prepared host: "+what, k, func(ctx context.Context, dir string) error {
		return l.prepare(ctx, image.ref, dir, "prepare-"+k[:8], setup)
	})
	if err == nil {
		l.pruneImages(ctx)
	}
	return image, err
}

// pruneImages removes the engine's half of prepared hosts whose other half was pruned.
func (l *Lab) pruneImages(ctx context.Context) {
	out, err := l.Engine.docker(ctx, nil, "image", "ls", "--format", "{{.Tag}}", "kubewright-lab/prepared")
	if err != nil {
		return // the next one tries again
	}
	for _, k := range strings.Fields(out) {
		dir := filepath.Join(l.cache, preparedKind, k)
		_, err := os.Stat(dir)
		_, making := os.Stat(dir + ".tmp")
		if errors.Is(err, fs.ErrNotExist) && errors.Is(making, fs.ErrNotExist) {
			l.Engine.docker(ctx, nil, "image", "rm", "kubewright-lab/prepared:"+k) // refused while a host uses it
		}
	}
}

func (l *Lab) prepare(ctx context.Context, ref, dir, name string, setup func(ctx context.Context, h *Host) error) error {
	h, err := l.Host(ctx, name, HostOptions{})
	if err != nil {
		return err
	}
	defer h.Remove(context.WithoutCancel(ctx))
	if err := setup(ctx, h); err != nil {
		return err
	}
	// Identity is the next host's own affair (see hostfiles/entry), and this host's log nobody's.
	if _, _, err := h.Exec(ctx, nil, "sh", "-ec", "truncate -s 0 /etc/machine-id; rm -rf /etc/ssh/ssh_host_* /var/log/journal/*"); err != nil {
		return err
	}
	if err := h.Stop(ctx); err != nil {
		return err
	}
	if _, err := l.Engine.docker(ctx, nil, "commit", h.id, ref); err != nil {
		return err
	}
	from, err := l.Engine.volumePath(ctx, h.id)
	if err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "cp", "-a", from, filepath.Join(dir, "var"))); err != nil {
		return err
	}
	for i, part := range sharedVar() {
		err := os.Rename(filepath.Join(dir, "var", part), filepath.Join(dir, fmt.Sprint("shared", i)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sharedVar is what containerd never writes to once it is there: blobs, and the layers below those of containers.
// Hosts share them by hard links, so that a gigabyte of images costs a new host milliseconds instead of seconds of
// disk. Hence setup must leave no container behind, and whoever damages a blob on a host on purpose has to replace the
// file, not write into it.
func sharedVar() []string {
	return []string{
		"lib/containerd/io.containerd.content.v1.content/blobs",
		"lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
	}
}

// varVolume makes the volume that is to be a host's /var. For a bare host it stays empty: the engine then fills it
// from the image.
func (l *Lab) varVolume(ctx context.Context, name string, image Image) (string, error) {
	if _, err := l.Engine.docker(ctx, nil, "volume", "create", "--label", label+"="+l.name, name); err != nil {
		return "", err
	}
	if image.dir == "" {
		return name, nil
	}
	to, err := l.Engine.volumePath(ctx, name)
	if err != nil {
		return "", err
	}
	return name, copyVar(ctx, image.dir, to)
}

func (e *Engine) volumePath(ctx context.Context, name string) (string, error) {
	out, err := e.docker(ctx, nil, "volume", "inspect", "--format", "{{.Mountpoint}}", name)
	return strings.TrimSpace(out), err
}

// copyVar copies a prepared /var, but links what hosts can share.
func copyVar(ctx context.Context, image, to string) error {
	if err := run(exec.CommandContext(ctx, "cp", "-a", filepath.Join(image, "var")+"/.", to)); err != nil {
		return err
	}
	for i, part := range sharedVar() {
		from := filepath.Join(image, fmt.Sprint("shared", i))
		if _, err := os.Stat(from); err != nil {
			continue // setup made none
		}
		if err := run(exec.CommandContext(ctx, "cp", "-a", "--link", from, filepath.Join(to, part))); err != nil {
			return err
		}
	}
	return nil
}
