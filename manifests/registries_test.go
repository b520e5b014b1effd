package manifests

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

func TestRegistryHostsEqualGoldens(t *testing.T) {
	auth := map[string]string{"harbor.example.com": "robot$k8s:p\"\\'w", "192.0.2.1:5000": "u:p"}
	got := map[string]string{}
	for name, r := range map[string]config.Registry{
		"plain":     {Host: "registry.k8s.io", Mirrors: []string{"https://mirror.example.com"}},
		"all":       {Host: "*", Mirrors: []string{"http://192.0.2.1:5000", "https://harbor.example.com/k8s/a", "https://mirror.example.com"}, CA: "a certificate\n"},
		"exclusive": {Host: "localhost:5000", Mirrors: []string{"https://mirror.example.com", "https://harbor.example.com/k8s"}, CA: "a certificate\n", Exclusive: true},
	} {
		for _, f := range RegistryHosts(r, auth) {
			got[fmt.Sprintf("/%s/%04o%s", name, f.Perm(), f.Path)] = content(t, f)
			if f.Secret != (f.Perm() == 0o600) || strings.Contains(content(t, f), "Basic") != f.Secret {
				t.Errorf("%s: %s has mode %04o, Secret %t", name, f.Path, f.Perm(), f.Secret)
			}
		}
	}
	dir := filepath.Join("testdata", "registries")
	if *update {
		writeGoldens(t, dir, got)
	}
	if diff := cmp.Diff(readGoldens(t, dir), got); diff != "" {
		t.Errorf("golden and computed (go test -update writes it):\n%s", diff)
	}
}

// What containerd's own code makes of the files: whom it asks, in which order, and how.
func TestContainerdReadsWhatWeMean(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	address := server.Listener.Addr().String()
	const login = "robot$k8s:p\"\\'w" // Basic cm9ib3QkazhzOnAiXCd3
	auth := map[string]string{address: login}

	for name, tt := range map[string]struct {
		r     config.Registry
		image string // of which registry
		want  []string
	}{
		"a mirror, then the registry": {
			config.Registry{Host: "registry.k8s.io", Mirrors: []string{"https://mirror.example.com"}}, "registry.k8s.io",
			[]string{"https://mirror.example.com/v2", "https://registry.k8s.io/v2 push"},
		},
		"Docker's": {
			config.Registry{Host: "docker.io", Mirrors: []string{"https://mirror.example.com"}}, "docker.io",
			[]string{"https://mirror.example.com/v2", "https://registry-1.docker.io/v2 push"},
		},
		"with prefix, CA and password": {
			config.Registry{Host: "quay.io:5000", Mirrors: []string{"https://mirror.example.com/a.b/c-d", "https://" + address + "/k8s"}, CA: ca}, "quay.io:5000",
			[]string{"https://mirror.example.com/v2/a.b/c-d ca", "https://" + address + "/v2/k8s ca Basic cm9ib3QkazhzOnAiXCd3", "https://quay.io:5000/v2 push"},
		},
		"nobody else": {
			config.Registry{Host: "registry.k8s.io", Mirrors: []string{"https://" + address + "/k8s", "https://mirror.example.com"}, CA: ca, Exclusive: true}, "registry.k8s.io",
			[]string{"https://" + address + "/v2/k8s ca Basic cm9ib3QkazhzOnAiXCd3", "https://mirror.example.com/v2 ca"},
		},
		"nobody else, with password": {
			config.Registry{Host: "registry.k8s.io", Mirrors: []string{"https://" + address + "/k8s"}, CA: ca, Exclusive: true}, "registry.k8s.io",
			[]string{"https://" + address + "/v2/k8s ca Basic cm9ib3QkazhzOnAiXCd3"},
		},
		"no TLS": {
			config.Registry{Host: "registry.k8s.io", Mirrors: []string{"http://192.0.2.1:5000"}, CA: ca, Exclusive: true}, "registry.k8s.io",
			[]string{"http://192.0.2.1:5000/v2"},
		},
		"every other": {
			config.Registry{Host: "*", Mirrors: []string{"https://mirror.example.com/all"}}, "ghcr.io",
			[]string{"https://mirror.example.com/v2/all", "https://ghcr.io/v2 push"},
		},
		"an address": {
			config.Registry{Host: "[fd00::1]:5000", Mirrors: []string{"https://[fd00::2]:5000"}, Exclusive: true}, "[fd00::1]:5000",
			[]string{"https://[fd00::2]:5000/v2"},
		},
		"an address without a port": {
			config.Registry{Host: "[fd00::1]", Mirrors: []string{"https://[fd00::2]"}, Exclusive: true}, "[fd00::1]",
			[]string{"https://[fd00::2]/v2"},
		},
		"the same host twice": {
			config.Registry{Host: "quay.io", Mirrors: []string{"https://a/x", "https://a/y", "https://a"}, Exclusive: true}, "quay.io",
			[]string{"https://a/v2/x", "https://a/v2/y", "https://a/v2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range RegistryHosts(tt.r, auth) {
				f.Path = filepath.Join(root, strings.TrimPrefix(f.Path, CertsDir))
				if _, err := (host.Local{}).WriteFiles(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
			hosts, err := dockerconfig.ConfigureHosts(t.Context(), dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(root)})(tt.image)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range hosts {
				s := h.Scheme + "://" + h.Host + h.Path
				if h.Client.Transport.(*http.Transport).TLSClientConfig.RootCAs != nil {
					s += " ca"
				}
				if h.Capabilities.Has(docker.HostCapabilityPush) {
					s += " push"
				}
				if !h.Capabilities.Has(docker.HostCapabilityPull | docker.HostCapabilityResolve) {
					s += " nothing"
				}
				got = append(got, strings.TrimSpace(s+" "+strings.Join(h.Header["Authorization"], " ")))
			}
			if !slices.Equal(got, tt.want) {
				t.Error(cmp.Diff(tt.want, got))
			}
			files, err := os.ReadDir(root)
			if err != nil || len(files) != 1 {
				t.Errorf("%v, %v", files, err)
			}
		})
	}
}
