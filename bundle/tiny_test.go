package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/host"
)

// tinyUpstream serves the files of a node for v1.36.3, each some bytes, and gives their catalogue.
func tinyUpstream(t *testing.T) (*faulty.Server, *Catalogue) {
	t.Helper()
	s, c, _ := tinyUpstreamAt(t, faulty.Options{})
	return s, c
}

// tinyUpstreamAt also gives the folder of dl.example.test.
func tinyUpstreamAt(t *testing.T, o faulty.Options) (*faulty.Server, *Catalogue, string) {
	t.Helper()
	dir := t.TempDir()
	c := &Catalogue{APIVersion: APIVersion, Kind: CatalogueKind, Files: map[string]CatalogueFile{},
		Defaults: map[string]map[string]string{"v1.36": {"containerd": "v2.3.4", "runc": "v1.4.3", "crictl": "v1.36.0", "cni-plugins": "v1.9.1"}}}
	for file, members := range map[string]map[string]string{
		"kubelet": nil, "kubectl": nil, "runc": nil,
		"containerd":  {"bin/containerd": "containerd", "bin/ctr": "ctr"},
		"crictl":      {"crictl": "crictl"},
		"cni-plugins": {"bridge": "cni/bridge", "loopback": "cni/loopback"},
	} {
		content := []byte("this is " + file)
		if members != nil {
			content = archiveOf(t, slices.Sorted(maps.Keys(members)))
		}
		version := "v1.36.3"
		if v := c.Defaults["v1.36"][file]; v != "" {
			version = v
		}
		path := filepath.Join(dir, "dl.example.test", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		c.Files[file] = CatalogueFile{URL: "https://dl.example.test/" + file, Members: members,
			Versions: map[string]map[string]string{version: {"amd64": host.Digest(content)}}}
	}
	s, err := faulty.Serve(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, c, filepath.Join(dir, "dl.example.test")
}

// archiveOf writes members as releases do: with ./ before some names, and things that nobody wants.
func archiveOf(t *testing.T, members []string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, m := range append(members, "LICENSE") {
		content := []byte("this is " + m)
		if err := w.WriteHeader(&tar.Header{Name: "./" + m, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

// tinyRegistry is one over TLS that wants a password, and counts what it is asked.
type tinyRegistry struct {
	*httptest.Server
	asked atomic.Int64
	flip  atomic.Value // a string: the bodies of paths that end so are sent with a byte changed
}

const user, password = "puller", "correct horse"

func (r *tinyRegistry) host() string { return strings.TrimPrefix(r.URL, "https://") }

func (r *tinyRegistry) keychain() authn.Keychain {
	return keychain{r.host(): &authn.Basic{Username: user, Password: password}}
}

func (r *tinyRegistry) ca() string {
	return string(pemOf(r.Certificate().Raw))
}

type keychain map[string]authn.Authenticator

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := k[r.RegistryStr()]; ok {
		return a, nil
	}
	return authn.Anonymous, nil
}

func newTinyRegistry(t *testing.T) *tinyRegistry {
	t.Helper()
	r := &tinyRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		if u, p, _ := req.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="tiny"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if f, _ := r.flip.Load().(string); f == "" || req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, f) {
			inner.ServeHTTP(w, req)
			return
		}
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, req)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(flip(answer.Body.Bytes()))
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

// put pushes an image as registry.k8s.io's in a mirror with the prefix k8s.
func (r *tinyRegistry) put(t *testing.T, image string, img v1.Image) {
	t.Helper()
	as, err := name.ParseReference(r.host() + "/k8s/" + image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(as, img, remote.WithTransport(r.Client().Transport), remote.WithAuthFromKeychain(r.keychain())); err != nil {
		t.Fatal(err)
	}
}

func (r *tinyRegistry) mirrors(exclusive bool) []config.Registry {
	return []config.Registry{{Host: "registry.example.test", Mirrors: []string{r.URL + "/k8s"}, CA: r.ca(), Exclusive: exclusive}}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
