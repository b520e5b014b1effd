package bundle

import (
	"strings"
	"testing"
)

const goodLock = `apiVersion: kubewright.dev/v1alpha1
kind: ArtifactLock
origin: upstream
artifacts:
- name: kubelet
  type: file
  version: v1.36.3
  platform: linux/amd64
  digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
  size: 10
- name: kubelet
  type: file
  version: v1.36.3
  platform: linux/arm64
  digest: sha256:2222222222222222222222222222222222222222222222222222222222222222
  size: 10
- name: registry.k8s.io/pause:3.10.2
  type: image
  platform: linux/amd64
  digest: sha256:3333333333333333333333333333333333333333333333333333333333333333
  size: 10
`

func TestLockIsParsedStrictly(t *testing.T) {
	if _, err := ParseLock([]byte(goodLock)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		old, new string
		says     string
	}{
		"unknown field":    {"origin:", "orgin: x\norigin:", `"orgin"`},
		"wrong type":       {"size: 10", "size: ten", "size"},
		"field twice":      {"origin:", "origin: built\norigin:", "origin"},
		"version":          {"v1alpha1", "v9", `apiVersion: is "kubewright.dev/v9"`},
		"kind":             {"ArtifactLock", "Lock", `kind: is "Lock"; write "ArtifactLock"`},
		"origin":           {"upstream", "elsewhere", `origin: is "elsewhere"; write "built" or "upstream"`},
		"no name":          {"- name: kubelet", "- name: ''", "artifacts[0] ( v1.36.3): has no name"},
		"type":             {"type: file", "type: tar", `artifacts[0] (kubelet v1.36.3): has type "tar"; write "file", "image" or "manifest"`},
		"no platform":      {"platform: linux/amd64", "platform: ''", `has platform ""; write one such as linux/amd64`},
		"platform":         {"platform: linux/amd64", "platform: amd64", `has platform "amd64"`},
		"twice":            {"linux/arm64", "linux/amd64", "artifacts[1] (kubelet v1.36.3): is there twice for platform linux/amd64"},
		"digest short":     {"sha256:1", "sha256:", "64 hex digits"},
		"digest upper":     {"sha256:111", "sha256:AAA", "64 hex digits"},
		"digest elsewhere": {"sha256:111", "../../..111", "64 hex digits"},
		"digest algorithm": {"sha256:1", "sha512:1", "64 hex digits"},
		"size":             {"size: 10", "size: -1", "has size -1"},
		"image name":       {"registry.k8s.io/pause:3.10.2", "nginx", "write a full reference"},
		"image registry":   {"registry.k8s.io/pause:3.10.2", "library/nginx:1", "write a full reference"},
		"image tag":        {"registry.k8s.io/pause:3.10.2", "docker.io/library/nginx", "write a full reference"},
	} {
		t.Run(name, func(t *testing.T) {
			data := strings.Replace(goodLock, test.old, test.new, 1)
			if data == goodLock {
				t.Fatal("the test changes nothing")
			}
			if _, err := ParseLock([]byte(data)); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v\nwant %q", err, test.says)
			}
		})
	}
}

func TestLockReportsAllProblemsAtOnce(t *testing.T) {
	_, err := ParseLock([]byte(strings.NewReplacer("upstream", "x", "type: image", "type: tar", "sha256:1", "z").Replace(goodLock)))
	for _, want := range []string{`"x"`, `"tar"`, `"z`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

func TestLockDigestIsOfTheMeaning(t *testing.T) {
	parse := func(s string) Lock {
		l, err := ParseLock([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := parse(goodLock)
	if string(l.Bytes()) != string(parse(string(l.Bytes())).Bytes()) {
		t.Error("canonical bytes do not survive a round")
	}
	turned := parse("# a comment\n" + goodLock)
	turned.Artifacts[0], turned.Artifacts[2] = turned.Artifacts[2], turned.Artifacts[0]
	if turned.Digest() != l.Digest() {
		t.Error("order or a comment counts")
	}
	if turned.Artifacts[0].Name == "kubelet" {
		t.Error("Digest sorted its caller's artifacts")
	}
	if parse(strings.Replace(goodLock, "size: 10", "size: 11", 1)).Digest() == l.Digest() {
		t.Error("a size does not count")
	}
}
