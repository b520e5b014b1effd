package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/e2e/upstream"
	"github.com/kubewright/kubewright/host"
)

const amd64 = "linux/amd64"

// networked is a document with that network.
func networked(t *testing.T, cni string) *config.Cluster {
	t.Helper()
	c, err := config.Parse([]byte("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nspec: {network: {cni: " + cni + "}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.Default(config.Versions{})
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// bundleWith holds nothing but some manifests.
func bundleWith(t *testing.T, manifests ...bundle.Artifact) *bundle.Bundle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	w, err := bundle.Create(dir, bundle.Upstream)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range manifests {
		path := a.Digest // of the file, for once
		a.Type, a.Platform, a.Digest = bundle.Manifest, amd64, ""
		if err := w.AddFile(t.Context(), a, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheManifestOfCalicoComesFromTheBundleOrTheCatalogue(t *testing.T) {
	real := string(upstream.File(t, upstream.Calico))
	c := networked(t, "{name: calico}")
	o := &artifactOptions{cacheDir: t.TempDir()}
	b := bundleWith(t, bundle.Artifact{Name: "calico", Version: "v3.32.1", Digest: file(t, "calico.yaml", real, 0o644)})
	m, err := o.material(t.Context(), c, b, true, amd64)
	if err != nil || len(m.Manifest) != 38 {
		t.Errorf("%d objects of the bundle's, %v", len(m.Manifest), err)
	}
	if _, err := o.material(t.Context(), c, bundleWith(t), true, amd64); err == nil || !strings.Contains(err.Error(), "the bundle does not hold the manifest of calico v3.32.1 for linux/amd64: make it anew") {
		t.Errorf("a bundle without it: %v", err)
	}
	moved := file(t, "calico.yaml", strings.Replace(real, "CALICO_IPV4POOL_VXLAN", "CALICO_POOL_VXLAN", 1), 0o644)
	b = bundleWith(t, bundle.Artifact{Name: "calico", Version: "v3.32.1", Digest: moved})
	if _, err := o.material(t.Context(), c, b, true, amd64); err == nil || !strings.Contains(err.Error(), `patch "encapsulation"`) {
		t.Errorf("a manifest whose field was moved: %v", err)
	}

	mirror := t.TempDir()
	at := filepath.Join(mirror, "raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/calico.yaml")
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(real), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := faulty.Serve(mirror, faulty.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.Spec.Artifacts.Mirror = s.URL
	if m, err = o.material(t.Context(), c, nil, false, amd64); err != nil || len(m.Manifest) != 38 {
		t.Errorf("%d objects of the mirror's, %v", len(m.Manifest), err)
	}
	s.Close()
	if m, err = o.material(t.Context(), c, nil, false, amd64); err != nil || len(m.Manifest) != 38 {
		t.Errorf("%d objects of the cache's, %v", len(m.Manifest), err)
	}
}

func TestAManifestOfOnesOwn(t *testing.T) {
	const text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: net}\n"
	source := file(t, "net.yaml", text, 0o644)
	c := networked(t, fmt.Sprintf("{name: manifest, manifest: {source: %s, sha256: %s}}", source, strings.TrimPrefix(host.Digest([]byte(text)), "sha256:")))
	o := &artifactOptions{cacheDir: t.TempDir()}
	of := bundle.Artifact{Name: "pod-network", Digest: source}
	for what, b := range map[string]*bundle.Bundle{"with its bundle": bundleWith(t, of), "with another bundle": bundleWith(t), "without one": nil} {
		if m, err := o.material(t.Context(), c, b, b != nil, amd64); err != nil || len(m.Manifest) != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	withIt := bundleWith(t, of)
	if err := os.Remove(source); err != nil {
		t.Fatal(err)
	}
	if m, err := o.material(t.Context(), c, withIt, true, amd64); err != nil || len(m.Manifest) != 1 {
		t.Errorf("the bundle alone: %v", err)
	}
	if err := os.WriteFile(source, []byte(text+"# changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := o.material(t.Context(), c, nil, false, amd64); err == nil || !strings.Contains(err.Error(), source+" has digest") {
		t.Errorf("another file: %v", err)
	}
}

func TestThePasswordOfWeave(t *testing.T) {
	o := &artifactOptions{}
	of := func(path string) error {
		_, err := o.material(t.Context(), networked(t, "{name: weave, weave: {acceptDeprecated: true, passwordFile: "+path+"}}"), nil, false, amd64)
		return err
	}
	if err := of(file(t, "password", "hunter2\n", 0o600)); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		file(t, "open", "hunter2\n", 0o644):    "is open to every user of this machine",
		file(t, "empty", "\nhunter2\n", 0o600): "its first line is empty",
		"/nowhere/at/all":                      "no such file",
	} {
		err := of(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "spec.network.cni.weave.passwordFile") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
