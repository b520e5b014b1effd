package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/phases"
)

// journalOf is a host of which only the journal can be read.
type journalOf struct {
	host.Host
	journal string
}

func (h journalOf) ReadFile(context.Context, string) ([]byte, error) {
	if h.journal == "" {
		return nil, fs.ErrNotExist
	}
	return []byte(h.journal), nil
}

// lockOf has what a control plane of a version needs, on amd64.
func lockOf(t *testing.T, kubernetes string) bundle.Lock {
	t.Helper()
	c := &config.Cluster{Spec: config.Spec{KubernetesVersion: kubernetes}}
	c.Default(config.Versions{})
	l := bundle.Lock{APIVersion: bundle.APIVersion, Kind: bundle.Kind, Origin: bundle.Upstream}
	add := func(kind, name, version string) {
		l.Artifacts = append(l.Artifacts, bundle.Artifact{Name: name, Type: kind, Version: version, Platform: "linux/amd64", Digest: host.Digest([]byte(name + version)), Size: 1})
	}
	for _, name := range []string{"kubelet", "kubectl"} {
		add(bundle.File, name, kubernetes)
	}
	for _, image := range phases.Images(c) {
		add(bundle.Image, image, "")
	}
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	return l
}

// bare is a host that has nothing, or what an earlier run has made from a lock.
func bare(t *testing.T, had *bundle.Lock) *phases.Target {
	t.Helper()
	h := journalOf{}
	facts := config.Facts{Hostname: "w-1", Machine: "amd64", Commands: map[string]string{}}
	if had != nil {
		line, err := json.Marshal(map[string]string{"kind": "lock", "name": "artifacts", "after": string(had.Bytes())})
		if err != nil {
			t.Fatal(err)
		}
		h.journal = string(line) + "\n"
		facts.Commands = map[string]string{"kubelet": "/usr/local/bin/kubelet", "containerd": "/usr/local/bin/containerd"}
	}
	j, err := phases.OpenJournal(context.Background(), h)
	if err != nil {
		t.Fatal(err)
	}
	return &phases.Target{Host: h, Facts: facts, Journal: j, Report: func(phases.Event) {}}
}

func TestJoinIsMadeOfWhatItsClusterSays(t *testing.T) {
	l := lockOf(t, "v1.34.4")
	theirs := &config.Cluster{Spec: config.Spec{KubernetesVersion: "v1.34.4", Artifacts: config.Artifacts{
		Mirror: "https://mirror.example.com", Registries: []config.Registry{{Host: "registry.k8s.io", Mirrors: []string{"https://one.example.com"}}}}}}
	theirs.Default(config.Versions{})
	o := &joinOptions{}
	o.cacheDir, o.registries = t.TempDir(), []string{"registry.k8s.io=two.example.com:5000/k8s"}
	target := bare(t, nil)
	target.Discover = func(context.Context) (*phases.Discovery, error) {
		return &phases.Discovery{Cluster: theirs, Lock: l.Bytes()}, nil
	}
	if err := o.complete(&config.Cluster{}, target, config.WorkerRole); err != nil {
		t.Fatal(err)
	}
	if acquires, err := o.acquires(context.Background(), target, phases.Select(phases.Join(), "install")); !acquires || err != nil {
		t.Fatal(acquires, err)
	}
	if err := o.acquireAs(context.Background(), target, &config.Cluster{}, config.WorkerRole); err != nil {
		t.Fatal(err)
	}
	if got := target.Bundle.Lock().Digest(); got != l.Digest() {
		t.Errorf("held to %s", got)
	}
	if got := target.Cluster.Spec; got.KubernetesVersion != "v1.34.4" || got.Runtime.SandboxImage != "registry.k8s.io/pause:3.10.1" {
		t.Errorf("prepares %s with %s", got.KubernetesVersion, got.Runtime.SandboxImage)
	}
	if got := theirs.Spec.Artifacts.Registries[0].Mirrors; !slices.Equal(got, []string{"https://one.example.com"}) {
		t.Errorf("the flag went into the cluster's document: %q", got)
	}
	own := theirs.Spec.Artifacts.Clone()
	if err := o.apply(&own); err != nil {
		t.Fatal(err)
	}
	if got := own.Registries[0].Mirrors; !slices.Equal(got, []string{"https://two.example.com:5000/k8s"}) {
		t.Errorf("this host's mirrors are %q", got)
	}
}

func TestHostIsHeldToTheLockThatItWasMadeFrom(t *testing.T) {
	l := lockOf(t, "v1.36.3")
	cluster := func(kubernetes string) *config.Cluster {
		c := &config.Cluster{Spec: config.Spec{KubernetesVersion: kubernetes, Artifacts: config.Artifacts{Mirror: "http://127.0.0.1:1"}}}
		c.Default(config.Versions{})
		return c
	}
	options := func(lock string) *hostOptions {
		o := &hostOptions{}
		o.cacheDir, o.lock = t.TempDir(), lock
		return o
	}
	target := func() *phases.Target {
		target := bare(t, &l)
		target.Node = config.Node{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}}
		return target
	}
	ctx := context.Background()
	t.Run("again", func(t *testing.T) {
		got := target()
		if err := options("").acquire(ctx, got, cluster("v1.36.3"), nil); err != nil || got.Bundle.Lock().Digest() != l.Digest() {
			t.Errorf("%v", err)
		}
	})
	t.Run("though it lacks nothing", func(t *testing.T) {
		if acquires, err := options("").acquires(ctx, target(), phases.Select(phases.Init(), "install")); !acquires || err != nil {
			t.Error(acquires, err) // half of it may be missing: the run before may have been killed
		}
	})
	t.Run("with the lock of a file", func(t *testing.T) {
		other := lockOf(t, "v1.36.2")
		file := filepath.Join(t.TempDir(), "lock.yaml")
		if err := os.WriteFile(file, other.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		got := target()
		if err := options(file).acquire(ctx, got, cluster("v1.36.3"), nil); err != nil || got.Bundle.Lock().Digest() != other.Digest() {
			t.Errorf("%v", err)
		}
	})
	t.Run("with the lock that it has", func(t *testing.T) {
		if err := options(l.Digest()).acquire(ctx, target(), cluster("v1.36.3"), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("with another lock", func(t *testing.T) {
		got := target()
		if err := options("sha256:"+strings.Repeat("0", 64)).acquire(ctx, got, cluster("v1.36.3"), nil); err == nil || got.Bundle != nil || !strings.Contains(err.Error(), "--lock asks for") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another version is another lock", func(t *testing.T) {
		t.Parallel()
		if err := options("").acquire(ctx, target(), cluster("v1.35.4"), nil); err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:1/dl.k8s.io/release/v1.35.4") {
			t.Errorf("got %v", err)
		}
	})
}

func TestHostWithSoftwareOfItsOwnNeedsNothing(t *testing.T) {
	own := bare(t, nil)
	own.Facts.Commands = map[string]string{"kubelet": "/usr/bin/kubelet", "containerd": "/usr/bin/containerd"}
	o := &hostOptions{}
	if acquires, err := o.acquires(context.Background(), own, phases.Init()); acquires || err != nil {
		t.Error(acquires, err)
	}
	o.lock = "sha256:" + strings.Repeat("0", 64)
	if _, err := o.acquires(context.Background(), own, phases.Init()); err == nil || !strings.Contains(err.Error(), "--lock") {
		t.Errorf("a lock that holds nothing: %v", err)
	}
	o = &hostOptions{skip: []string{"download", "install", "images"}}
	if acquires, err := o.acquires(context.Background(), bare(t, nil), phases.Init()); acquires || err != nil {
		t.Error("all that installs is skipped, and yet: ", acquires, err)
	}
	if acquires, err := new(hostOptions).acquires(context.Background(), bare(t, nil), phases.Select(phases.Init(), "certs")); acquires || err != nil {
		t.Error("certificates need no binaries: ", acquires, err)
	}
}
