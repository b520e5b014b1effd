package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
)

func TestAnUpThatFailsTakesItsClusterOutOfTheKubeconfig(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	for path, text := range map[string]string{
		filepath.Join(dir, "docker"): "#!/bin/sh\n", // an engine that has no containers
		kubeconfig: `{apiVersion: v1, kind: Config, current-context: kind-ci, contexts: [{name: kind-ci, context: {cluster: kind-ci, user: kind-ci}}, {name: other, context: {cluster: other, user: other}}],
clusters: [{name: kind-ci, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: kind-ci, user: {}}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("KIND_EXPERIMENTAL_PROVIDER", "docker")
	t.Setenv("CI", "")
	failure := errors.New("a node is not ready")
	for _, exported := range []bool{false, true} {
		o := &fleetOptions{kind: kindOptions{made: true, exported: exported, finish: func() error { return nil }, cluster: &config.Cluster{Metadata: config.Metadata{Name: "ci"}}}}
		if err := o.tidy(t.Context(), failure, kubeconfig); !errors.Is(err, failure) {
			t.Error(err)
		}
		b, err := os.ReadFile(kubeconfig)
		if err != nil || strings.Contains(string(b), "kind-ci") == exported || !strings.Contains(string(b), "other") {
			t.Errorf("exported: %v; the kubeconfig has %s, %v", exported, b, err)
		}
	}
}

func TestLogsThatWereNotCollectedAreNotSaidToBeThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer func(was *os.File) { os.Stderr = was }(os.Stderr)
	os.Stderr = said
	o := &fleetOptions{kind: kindOptions{logs: dir}}
	o.logsOf(t.Context(), &config.Cluster{})
	b, err := os.ReadFile(said.Name())
	if s := string(b); err != nil || !strings.Contains(s, "is not empty: name another folder") || strings.Contains(s, "is in") {
		t.Errorf("it said %q, %v", s, err)
	}
}
