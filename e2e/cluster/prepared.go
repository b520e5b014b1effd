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
	binary, err := l.Kubewright(ctx)
	if err != nil {
		return lab.Image{}, err
	}
	key, err := digest(binary)
	if err != nil {
		return lab.Image{}, err
	}
	folder, err := l.Bundle(ctx)
	if err != nil {
		return lab.Image{}, err
	}
	// kubeadm's and the bundle's folders are named by what is in them.
	return l.Prepared(ctx, "node", key+kubeadm+folder+Document(""), func(ctx context.Context, h *lab.Host) error {
		if err := h.Write(ctx, document, 0o600, strings.NewReader(Document(""))); err != nil {
			return err
		}
		if err := h.CopyTo(ctx, kubeadm, KubeadmPath); err != nil {
			return err
		}
		for _, phase := range []string{"kernel", "install", "runtime", "images"} {
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
