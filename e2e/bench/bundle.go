package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/e2e/servers"
)

// BundleLimit of [BundleMemory], in MB, however large the bundle is.
const BundleLimit = 100

// BundleMemory has kubewright fill a registry of this machine from the lab's bundle; make a bundle in one file from there
// and from a mirror, with nothing in its cache; verify it; and unpack it into a folder. It returns the largest peak memory
// of the four, in MB, and tells detail of each. Where large is not 0, there is an image of so many bytes in the bundle as
// well, none of which can be compressed.
func BundleMemory(ctx context.Context, l *lab.Lab, large int64, detail func(format string, args ...any)) (peak float64, err error) {
	tool, err := l.Kubewright(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "kubewright-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	at := func(name string) string { return filepath.Join(dir, name) }

	upstream, err := l.Upstream(ctx)
	if err != nil {
		return 0, err
	}
	files, err := faulty.Serve(filepath.Join(upstream, "files"), faulty.Options{TLS: true})
	if err != nil {
		return 0, err
	}
	defer files.Close()
	binary, err := l.Binary(ctx, "registry")
	if err != nil {
		return 0, err
	}
	registry, err := servers.StartRegistry(ctx, binary, "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer registry.Close()
	for name, content := range map[string][]byte{
		"config.json":  registry.DockerConfig(),
		"ca.pem":       append(bytes.Clone(files.CA), registry.CA...),
		"cluster.yaml": []byte(cluster.Document(withoutBundle)),
	} {
		if err := os.WriteFile(at(name), content, 0o600); err != nil {
			return 0, err
		}
	}

	maxrss, err := l.Tool(ctx, "e2e/cmd/maxrss")
	if err != nil {
		return 0, err
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, maxrss, append([]string{tool, "bundle"}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		begin := time.Now()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("bundle %s: %w: %s", args[0], err, stderr.String())
		}
		mb, err := maxRSS(stdout.String())
		if err != nil {
			return err
		}
		detail("bundle %s %.0fMB in %.1fs", args[0], mb, time.Since(begin).Seconds())
		peak = max(peak, mb)
		return nil
	}
	folder, err := l.Bundle(ctx)
	if err != nil {
		return 0, err
	}
	if err := run("push", folder, "--registry", registry.Address+"/all", "--mirror-ca", at("ca.pem")); err != nil {
		return 0, err
	}
	create := []string{"create", at("bundle.tar.zst"), "--config", at("cluster.yaml"), "--cache-dir", at("cache"), "--mirror-ca", at("ca.pem"),
		"--catalogue", filepath.Join(upstream, "catalogue.yaml"), "--mirror", files.URL, "--registry-mirror", "*=https://" + registry.Address + "/all"}
	if large > 0 {
		if err := pushLarge(ctx, registry, large); err != nil {
			return 0, fmt.Errorf("push the large image: %w", err)
		}
		create = append(create, "--image", largeImage)
	}
	if err := run(create...); err != nil {
		return 0, err
	}
	if err := os.RemoveAll(at("cache")); err != nil {
		return 0, err
	}
	if err := run("verify", at("bundle.tar.zst")); err != nil {
		return 0, err
	}
	return peak, run("push", at("bundle.tar.zst"), "--folder", at("folder"), "--cache-dir", at("cache"))
}

// maxRSS is what maxrss printed last, in MB.
func maxRSS(out string) (float64, error) {
	var kib float64
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if _, err := fmt.Sscanf(lines[len(lines)-1], "maxrss %f", &kib); err != nil {
		return 0, fmt.Errorf("maxrss printed %q: %w", lines[len(lines)-1], err)
	}
	return kib * 1024 / 1e6, nil
}
