package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kindFiles are what the real kind needs in a node image beside what kubewright puts into any: kubeadm, and the manifests
// that it applies. Its kubelets run below a control group of their own, which has to be there.
func (b *Builder) kindFiles(ctx context.Context, cni []byte, dir string) error {
	kubeadm, err := b.Binary(ctx, "kubeadm")
	if err != nil {
		return err
	}
	for file, content := range map[string]string{
		"kind/manifests/default-cni.yaml":     string(cni),
		"kind/manifests/default-storage.yaml": "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: standard}\nprovisioner: none.example/none\n",
		"etc/systemd/system/kubelet.service.d/11-kind.conf": `[Service]
ExecStartPre=/bin/sh -c 'for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do mkdir -p /sys/fs/cgroup/$c/kubelet /sys/fs/cgroup/$c/kubelet.slice; done; for c in kubelet kubelet.slice; do for f in cpus mems; do cat /sys/fs/cgroup/cpuset/cpuset.$f > /sys/fs/cgroup/cpuset/$c/cpuset.$f; done; done'
`,
	} {
		p := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dir, "etc/systemd/system/ssh.service")); err != nil { // a bare host of the lab has it
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755); err != nil {
		return err
	}
	return run(exec.CommandContext(ctx, "cp", kubeadm, filepath.Join(dir, "usr/bin/kubeadm")))
}

const nodeRepository = "kubewright-lab/node"

// NodeImage returns an image of a machine in the lab's engine, as `kubewright build node-image` makes it of a bare host and
// of the bundle without kubewright's own image, which is another after every change. The real kind takes it, too, and
// applies this pod network.
func (l *Lab) NodeImage(ctx context.Context, cni []byte) (string, error) {
	bundle, err := l.upstream(ctx)
	if err != nil {
		return "", err
	}
	code, err := treeKey(filepath.Join(l.source, "providers/nodeimage"), func(p string) bool { return !strings.HasSuffix(p, "_test.go") })
	if err != nil {
		return "", err
	}
	self, err := treeKey(filepath.Join(l.source, "e2e/lab"), func(p string) bool { return filepath.Base(p) == "nodeimage.go" })
	if err != nil {
		return "", err
	}
	k := key(rootfsKey(), bundle, code, self, string(cni))
	image := nodeRepository + ":" + k
	unlock, err := lock(ctx, filepath.Join(l.Engine.dir, "node.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := l.Engine.docker(ctx, nil, "image", "inspect", image); err == nil {
		return image, nil
	}
	l.log("building a node image")
	l.dropNodeImages(ctx) // two gigabytes each
	base, err := l.nodeBase(ctx, cni, k)
	if err != nil {
		return "", err
	}
	binary, err := l.Kubewright(ctx)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binary, "build", "node-image", image, "--base", base, "--bundle", bundle)
	cmd.Env = append(os.Environ(), l.Engine.Env()...)
	return image, run(cmd)
}

// nodeBase is a bare host with what kind needs.
func (l *Lab) nodeBase(ctx context.Context, cni []byte, k string) (string, error) {
	bare, err := l.bareImage(ctx)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "kubewright-node-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := l.kindFiles(ctx, cni, dir); err != nil {
		return "", err
	}
	name, image := "node-base-"+k[:8], nodeRepository+"-base:"+k
	defer l.Engine.docker(context.WithoutCancel(ctx), nil, "rm", "--force", "--volumes", name)
	for _, argv := range [][]string{{"rm", "--force", "--volumes", name}, {"create", "--name", name, bare.ref}, {"cp", dir + "/.", name + ":/"}, {"commit", name, image}} {
		if _, err := l.Engine.docker(ctx, nil, argv...); err != nil && argv[0] != "rm" {
			return "", fmt.Errorf("base of the node image: %w", err)
		}
	}
	return image, nil
}

// dropNodeImages removes those of before, if no machine uses them.
func (l *Lab) dropNodeImages(ctx context.Context) {
	for _, repository := range []string{nodeRepository, nodeRepository + "-base"} {
		out, err := l.Engine.docker(ctx, nil, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
		if err != nil {
			return // the next one tries again
		}
		for _, image := range strings.Fields(out) {
			l.Engine.docker(ctx, nil, "image", "rm", image)
		}
	}
}

// Env leads a command to the engine.
func (e *Engine) Env() []string {
	return []string{"DOCKER_HOST=unix://" + runDir + "/docker.sock", "DOCKER_CONFIG=" + e.dir, "DOCKER_CONTEXT="}
}
