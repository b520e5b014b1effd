package phases

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// imageServer is a registry on loopback, with TLS of its own CA, that counts its requests,
// and those among them with a password.
type imageServer struct {
	*httptest.Server
	asked, authorized atomic.Int64
}

// serveImages serves a registry, behind what guards it.
func serveImages(t *testing.T, guard func(s *imageServer, next http.Handler) http.Handler, hold ...string) *imageServer {
	t.Helper()
	s := &imageServer{}
	stored := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			s.authorized.Add(1)
		}
		guard(s, stored).ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	t.Cleanup(s.Close)

	push := httptest.NewServer(stored)
	defer push.Close()
	for _, repository := range hold {
		ref, err := name.ParseReference(strings.TrimPrefix(push.URL, "http://")+"/"+repository, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, smallImage(t), remote.WithContext(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func smallImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *imageServer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func unguarded(_ *imageServer, next http.Handler) http.Handler { return next }

// basic asks for robot's password.
func basic(_ *imageServer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "robot" || password != mirrorPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="images"`)
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer asks for a token, and gives it for robot's password.
func bearer(s *imageServer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			basic(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				json.NewEncoder(w).Encode(map[string]string{"token": "t0ken"})
			})).ServeHTTP(w, r)
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="images",scope="repository:x:pull"`, s.URL))
			http.Error(w, "{}", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// A real containerd pulls as the kubelet has it do, with the files that we write.
func TestContainerdPullsFromMirrors(t *testing.T) {
	certs := t.TempDir()
	socket := startContainerd(t, "", fmt.Sprintf("[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = %q\n", certs))
	target := onContainerd(t, socket)
	if err := until(t.Context(), 30*time.Second, "containerd", func(ctx context.Context) error {
		_, err := target.runtimeVersion(ctx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///runtime", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return target.dialRuntime(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pull := func(image string) error {
		_, err := cri.NewImageServiceClient(conn).PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
		return err
	}
	// The same containerd for all: that it need not be restarted is a part of it.
	tell := func(t *testing.T, r config.Registry, credentials func(string) (string, string, error)) {
		t.Helper()
		auth, err := (&Target{Credentials: credentials}).logins(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range manifests.RegistryHosts(r, auth) {
			f.Path = filepath.Join(certs, strings.TrimPrefix(f.Path, manifests.CertsDir))
			if _, err := (host.Local{}).WriteFiles(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
	}
	robots := func(string) (string, string, error) { return "robot", mirrorPassword, nil }

	for name, guard := range map[string]func(*imageServer, http.Handler) http.Handler{"basic": basic, "bearer": bearer} {
		t.Run(name, func(t *testing.T) {
			mirror := serveImages(t, guard, "pause:1", "k8s/pause:1")
			for prefix, registry := range map[string]string{"": "plain." + name + ".test", "/k8s": "prefix." + name + ".test"} {
				r := config.Registry{Host: registry, Mirrors: []string{mirror.URL + prefix}, CA: mirror.ca(), Exclusive: true}
				if prefix == "" {
					tell(t, r, nil)
					if err := pull(registry + "/pause:1"); err == nil {
						t.Error("pulled without a password")
					}
				}
				tell(t, r, robots)
				if err := pull(registry + "/pause:1"); err != nil {
					t.Errorf("%s: %v", registry, err)
				}
			}
			r := config.Registry{Host: "untrusted." + name + ".test", Mirrors: []string{mirror.URL}, Exclusive: true}
			tell(t, r, robots)
			if err := pull(r.Host + "/pause:1"); err == nil {
				t.Error("pulled from a mirror whose CA nobody trusts")
			}
		})
	}

	t.Run("who is asked", func(t *testing.T) {
		empty, mirror := serveImages(t, basic), serveImages(t, basic, "pause:1")
		upstream := serveImages(t, unguarded, "pause:1", "other:1")
		// On loopback containerd believes whom it calls, so no name and no CA are needed.
		r := config.Registry{Host: upstream.Listener.Addr().String(), Mirrors: []string{empty.URL, mirror.URL}, Exclusive: true,
			CA: empty.ca() + mirror.ca()}
		for _, tt := range []struct {
			image            string
			exclusive, works bool
			upstream         bool
		}{
			{"pause:1", true, true, false},
			{"other:1", true, false, false},
			{"other:1", false, true, true},
		} {
			r.Exclusive = tt.exclusive
			tell(t, r, robots)
			before := upstream.asked.Load()
			err := pull(r.Host + "/" + tt.image)
			if (err == nil) != tt.works {
				t.Errorf("%s, exclusive %t: %v", tt.image, tt.exclusive, err)
			}
			if asked := upstream.asked.Load() > before; asked != tt.upstream {
				t.Errorf("%s, exclusive %t: upstream was asked: %t", tt.image, tt.exclusive, asked)
			}
		}
		if empty.asked.Load() == 0 {
			t.Error("the first mirror was not asked")
		}
		if upstream.authorized.Load() > 0 {
			t.Error("upstream was sent a mirror's password")
		}
	})

	t.Run("every other", func(t *testing.T) {
		mirror := serveImages(t, basic, "all/pause:1")
		tell(t, config.Registry{Host: "*", Mirrors: []string{mirror.URL + "/all"}, CA: mirror.ca(), Exclusive: true}, robots)
		if err := pull("registry.example.test:5000/pause:1"); err != nil {
			t.Error(err)
		}
	})
}
