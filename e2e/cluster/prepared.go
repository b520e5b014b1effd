package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"

	"github.com/kubewright/kubewright/e2e/lab"
)

// Prepared is the image of a host with containerd running, the images imported, kubelet
// and kubeadm installed, and /etc/kubernetes empty: where kubeadm can begin, and where a
// second cluster of ours begins.
func Prepared(ctx context.Context, l *lab.Lab) (lab.Image, error) {
	kubeadm, err := l.Binary(ctx, "kubeadm")
	if err != nil {
		return lab.Image{}, err
	}
	// kubeadm's folder is named by what is in it.
	phases := []string{"kernel", "install", "runtime", "images"}
	return prepared(ctx, l, "node", kubeadm, phases, func(ctx context.Context, h *lab.Host) error {
		return h.CopyTo(ctx, kubeadm, KubeadmPath)
	})
}

// WithRuntime is the image of a host with the bundle's binaries and containerd running, whose
// store is empty.
func WithRuntime(ctx context.Context, l *lab.Lab) (lab.Image, error) {
	return prepared(ctx, l, "runtime", "", []string{"kernel", "install", "runtime"}, nil)
}

// prepared is the image of a host on which phases of ours have run, after setup, for which
// setupKey stands.
func prepared(ctx context.Context, l *lab.Lab, what, setupKey string, phases []string, setup func(context.Context, *lab.Host) error) (lab.Image, error) {
	binary, err := l.Kubewright(ctx)
	if err != nil {
		return lab.Image{}, err
	}
	key, err := digest(binary)
	if err != nil {
		return lab.Image{}, err
	}
	folder, err := l.Bundle(ctx) // named by what is in it
	if err != nil {
		return lab.Image{}, err
	}
	return l.Prepared(ctx, what, key+setupKey+folder+Document(""), func(ctx context.Context, h *lab.Host) error {
		if err := h.Write(ctx, document, 0o600, strings.NewReader(Document(""))); err != nil {
			return err
		}
		if setup != nil {
			if err := setup(ctx, h); err != nil {
				return err
			}
		}
		for _, phase := range phases {
			args := []string{tool, "init", "phase", phase, "--config", document, "--bundle", lab.BundleDir}
			if _, _, err := h.Exec(ctx, nil, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

func digest(file string) (string, error) {
	b, err := os.ReadFile(file)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}
