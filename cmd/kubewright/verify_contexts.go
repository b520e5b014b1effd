package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kubewright/kubewright/apiclient"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// others is a kubeconfig that belongs to somebody, with a field that nobody here knows.
const others = `apiVersion: v1
clusters:
- cluster:
    server: https://192.0.2.1:6443
  name: others
contexts:
- context:
    cluster: others
    user: others
  name: others
current-context: others
kind: Config
theirs: kept
users:
- name: others
  user:
    token: none
`

// tryContexts is a life of a cluster in somebody's kubeconfig: merged, renamed, switched to and away from, used,
// removed. What else is in the file is at the end what it was.
func tryContexts(ctx context.Context, kubeconfig []byte) (string, error) {
	forget(os.TempDir())
	dir, err := os.MkdirTemp("", contextsFolder)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(others), 0o600); err != nil {
		return "", err
	}
	cluster, err := source(kubeconfig, dir)
	if err != nil {
		return "", fmt.Errorf("the kubeconfig %w", err)
	}
	const namespace = metav1.NamespaceSystem
	cluster.Contexts[cluster.CurrentContext].Namespace = namespace
	edit := func(what, current string, change func(entries, *api.Config) error) error {
		if _, err := editKubeconfig(ctx, path, 10*time.Second, change); err != nil {
			return fmt.Errorf("kubeconfig %s: %w", what, err)
		}
		_, have, err := loadKubeconfig(path)
		if err != nil || have.CurrentContext != current {
			return fmt.Errorf("after kubeconfig %s the current context is to be %s: %v, %v", what, current, have, err)
		}
		return nil
	}
	switchTo := func(name string) func(entries, *api.Config) error {
		return func(e entries, have *api.Config) error { return use(e, have, name) }
	}
	if err := edit("merge", "verified", func(e entries, have *api.Config) error {
		_, err := merge(e, have, cluster, mergeOptions{name: "verified"})
		return err
	}); err != nil {
		return "", err
	}
	if err := edit("use", "others", switchTo("others")); err != nil {
		return "", err
	}
	if err := edit("rename", "others", func(e entries, have *api.Config) error { return rename(e, have, "verified", "renamed") }); err != nil {
		return "", err
	}
	if err := edit("use", "renamed", switchTo("renamed")); err != nil {
		return "", err
	}
	if err := listPods(ctx, path, namespace); err != nil {
		return "", fmt.Errorf("with the context that was switched to: %w", err)
	}
	if err := edit("use", "others", switchTo("others")); err != nil {
		return "", err
	}
	if err := edit("remove", "others", func(e entries, have *api.Config) error {
		_, err := remove(e, have, []string{"renamed"})
		return err
	}); err != nil {
		return "", err
	}
	left, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(left, []byte(others)) {
		return "", fmt.Errorf("a kubeconfig in which a cluster was merged and removed is another:\n%s", left)
	}
	return "a context was merged, renamed, switched to, used in its namespace, and removed; the other entries of the file are untouched", nil
}

// contextsFolder begins the name of the folder with the temporary kubeconfig.
const contextsFolder = "kubewright-verify-"

// forget removes the folders that runs left which were killed: they hold an administrator's key. One that is younger
// than any run may belong to another that is at work.
func forget(tmp string) {
	all, _ := filepath.Glob(filepath.Join(tmp, contextsFolder+"*"))
	for _, dir := range all {
		if info, err := os.Lstat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir)
		}
	}
}

// listPods uses a kubeconfig as kubectl does, in the namespace of its context.
func listPods(ctx context.Context, path, namespace string) error {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, nil)
	config, err := loader.ClientConfig()
	if err != nil {
		return err
	}
	client, err := apiclient.New(config, nil)
	if err != nil {
		return err
	}
	in, _, err := loader.Namespace()
	if err != nil || in != namespace {
		return fmt.Errorf("its namespace is %q, want %s: %v", in, namespace, err)
	}
	_, err = client.CoreV1().Pods(in).List(ctx, metav1.ListOptions{Limit: 1})
	return err
}
