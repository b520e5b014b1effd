package bench

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/manifests"
)

// bare boots hosts with nothing of Kubernetes on them, and gives the operator a folder.
func bare(ctx context.Context, l *lab.Lab, run func(hosts []*lab.Host, dir string) error) (err error) {
	hosts, err := l.Hosts(ctx, clusterHosts...)
	if err != nil {
		return err
	}
	defer func() {
		for _, h := range hosts {
			err = errors.Join(err, h.Remove(context.WithoutCancel(ctx)))
		}
	}()
	dir, err := os.MkdirTemp("", "kubewright-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return run(hosts, dir)
}

// kubewrightSSH is `kubewright up` with a bundle on the operator's side.
func kubewrightSSH(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = bare(ctx, l, func(hosts []*lab.Host, dir string) error {
		o, err := cluster.NewOperator(ctx, l, dir)
		if err != nil {
			return err
		}
		if err := o.Write(ctx, "bench", "", cluster.Member{Host: hosts[0], Role: "control-plane"}, cluster.Member{Host: hosts[1], Role: "worker"}, cluster.Member{Host: hosts[2], Role: "worker"}); err != nil {
			return err
		}
		seconds, err = timed(func() error {
			return usable(ctx, hosts, func(ctx context.Context) error {
				_, _, err := o.Up(ctx)
				return err
			})
		})
		return err
	})
	return seconds, err
}

// noopUp is a second `up` on a cluster that has come to rest.
func noopUp(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = bare(ctx, l, func(hosts []*lab.Host, dir string) error {
		o, err := cluster.NewOperator(ctx, l, dir)
		if err != nil {
			return err
		}
		if err := o.Write(ctx, "bench", "", cluster.Member{Host: hosts[0], Role: "control-plane"}, cluster.Member{Host: hosts[1], Role: "worker"}, cluster.Member{Host: hosts[2], Role: "worker"}); err != nil {
			return err
		}
		if _, _, err := o.Up(ctx); err != nil {
			return err
		}
		c, err := o.Connect(hosts[0], hosts[1:]...)
		if err != nil {
			return err
		}
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
		seconds, err = timed(func() error {
			out, _, err := o.Up(ctx, "-o", "json")
			if err == nil && !strings.Contains(out, `"changes":0`) {
				err = fmt.Errorf("a second up was to change nothing: %s", out)
			}
			return err
		})
		return err
	})
	return seconds, err
}

//go:embed peer.sh
var peerScript string

// kubeadmSSH is peer.sh.
func kubeadmSSH(ctx context.Context, l *lab.Lab) (seconds float64, err error) {
	err = bare(ctx, l, func(hosts []*lab.Host, dir string) error {
		if err := peerFiles(ctx, l, dir); err != nil {
			return err
		}
		argv := []string{"-c", peerScript, "peer.sh", dir}
		for _, h := range hosts {
			argv = append(argv, h.IP)
		}
		seconds, err = timed(func() error {
			return usable(ctx, hosts, func(ctx context.Context) error {
				cmd := exec.CommandContext(ctx, "sh", argv...)
				var said bytes.Buffer
				cmd.Stderr = &said
				if err := cmd.Run(); err != nil {
					log, _ := os.ReadFile(filepath.Join(dir, "init.log"))
					return fmt.Errorf("peer.sh: %w: %s\n%s", err, said.String(), log)
				}
				return nil
			})
		})
		return err
	})
	return seconds, err
}

// peerFiles puts what peer.sh needs into dir: the bytes that ours has in its bundle, and kubeadm.
func peerFiles(ctx context.Context, l *lab.Lab, dir string) error {
	folder, err := l.Bundle(ctx)
	if err != nil {
		return err
	}
	b, err := bundle.Open(folder)
	if err != nil {
		return err
	}
	put := func(path string, mode os.FileMode, src io.ReadCloser) error {
		defer src.Close()
		path = filepath.Join(dir, "files", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, src)
		return errors.Join(err, f.Close())
	}
	sandbox := ""
	for _, a := range b.Lock().Artifacts {
		if a.Type == bundle.Image && strings.Contains(a.Name, "/pause:") {
			sandbox = a.Name
		}
		if a.Type != bundle.File || a.Platform != "linux/"+runtime.GOARCH {
			continue
		}
		at := "usr/local/bin/" + a.Name
		if plugin, ok := strings.CutPrefix(a.Name, "cni/"); ok {
			at = "opt/cni/bin/" + plugin
		} else if a.Name == "runc" {
			at = "usr/local/sbin/runc"
		}
		src, err := b.File(a).Open()
		if err != nil {
			return err
		}
		if err := put(at, 0o755, src); err != nil {
			return err
		}
	}
	kubeadm, err := l.Binary(ctx, "kubeadm")
	if err != nil {
		return err
	}
	src, err := os.Open(kubeadm)
	if err != nil {
		return err
	}
	if err := put(cluster.KubeadmPath, 0o755, src); err != nil {
		return err
	}
	files := append(manifests.KubeletUnit(""), manifests.ContainerdUnit(), manifests.Containerd(sandbox), manifests.Crictl("unix:///run/containerd/containerd.sock"))
	for _, f := range append(files, manifests.Prerequisites(false)...) {
		src, err := f.Content.Open()
		if err != nil {
			return err
		}
		if err := put(f.Path, 0o644, src); err != nil {
			return err
		}
	}
	for role, keep := range map[string]func(string) bool{
		"control-plane": func(image string) bool {
			return !strings.Contains(image, "haproxy") && image != lab.ProbeImage && !bundle.IsOwnImage(image)
		},
		"worker": func(image string) bool {
			return !manifests.IsControlPlaneImage(image) && !strings.Contains(image, "haproxy") && !bundle.IsOwnImage(image)
		},
	} {
		file, err := l.ImageTarOf(ctx, role, keep)
		if err != nil {
			return err
		}
		if err := os.Symlink(file, filepath.Join(dir, "images-"+role+".tar")); err != nil {
			return err
		}
	}
	flannel, err := cluster.FlannelManifest(ctx)
	if err != nil {
		return err
	}
	ssh, err := l.SSH(ctx)
	if err != nil {
		return err
	}
	config := fmt.Sprintf("Host *\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n", ssh.IdentityFile, ssh.KnownHosts)
	for name, content := range map[string]string{"ssh_config": config, "kubeadm.yaml": cluster.KubeadmConfig(""), "flannel.yaml": string(flannel)} {
		if err := put("../"+name, 0o600, io.NopCloser(strings.NewReader(content))); err != nil {
			return err
		}
	}
	return nil
}
