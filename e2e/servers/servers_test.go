package servers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/e2e/servers"
)

// install has the machine hold what the lab needs, and returns a builder.
func install(t *testing.T) *lab.Builder {
	t.Helper()
	if testing.Short() {
		t.Skip("the registry is built, and Debian's packages installed: not with -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("Debian's packages are installed, and an address given to the loopback device: run as root")
	}
	b, err := lab.NewBuilder(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := servers.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func registryBinary(t *testing.T) string {
	t.Helper()
	binary, err := install(t).Binary(t.Context(), "registry")
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// trusting is a transport that trusts only the CA, and uses the proxy, if there is one.
func trusting(t *testing.T, ca []byte, proxy string) *http.Transport {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		transport.Proxy = http.ProxyURL(u)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func TestRegistryKeepsImagesForWhoKnowsThePassword(t *testing.T) {
	r, err := servers.StartRegistry(t.Context(), registryBinary(t), servers.Reachable+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	ref, err := name.ParseReference(r.Address + "/k8s/thing:v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	transport := remote.WithTransport(trusting(t, r.CA, ""))
	auth := remote.WithAuth(&authn.Basic{Username: r.User, Password: r.Password})
	if err := remote.Write(ref, image, transport, auth); err != nil {
		t.Fatal(err)
	}

	// As Docker's config has it.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), r.DockerConfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	got, err := remote.Head(ref, transport, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	want, _ := image.Digest()
	if err != nil || got.Digest != want {
		t.Errorf("got %v, %v", got, err)
	}
	if !strings.Contains(r.Log(), "/v2/k8s/thing/manifests/v1") {
		t.Errorf("the log lacks the request:\n%s", r.Log())
	}

	if _, err := remote.Head(ref, transport); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a password: %v", err)
	}
	wrong := remote.WithAuth(&authn.Basic{Username: r.User, Password: "x"})
	if _, err := remote.Head(ref, transport, wrong); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with another password: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := remote.Head(ref, auth, remote.WithTransport(trusting(t, nil, ""))); !errors.As(err, &unknown) {
		t.Errorf("without the CA: %v", err)
	}
}

func TestARegistryThatCannotListenSaysSo(t *testing.T) {
	_, err := servers.StartRegistry(t.Context(), registryBinary(t), "192.0.2.1:5000")
	if err == nil || !strings.Contains(err.Error(), "cannot assign requested address") {
		t.Errorf("got %v", err)
	}
}

func TestProxyConnects(t *testing.T) {
	install(t)
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	t.Cleanup(web.Close)
	get := func(proxy string) (string, error) {
		transport := web.Client().Transport.(*http.Transport).Clone()
		u, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		transport.Proxy, transport.DisableKeepAlives = http.ProxyURL(u), true
		resp, err := (&http.Client{Transport: transport}).Get(web.URL)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	for name, c := range map[string]struct{ user, password string }{"for all": {}, "with a password": {"u", "p4ss"}} {
		t.Run(name, func(t *testing.T) {
			p, err := servers.StartProxy(t.Context(), servers.Reachable, c.user, c.password)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			if body, err := get(p.URL); err != nil || body != "hello" {
				t.Errorf("got %q, %v", body, err)
			}
			if line := "CONNECT " + strings.TrimPrefix(web.URL, "https://"); !strings.Contains(p.Log(), line) {
				t.Errorf("the log lacks %q:\n%s", line, p.Log())
			}
			anonymous, _ := url.Parse(p.URL)
			anonymous.User = nil
			if _, err := get(anonymous.String()); (err == nil) != (c.user == "") {
				t.Errorf("without a password: %v", err)
			}
		})
	}
}

// Go's own rule: a proxy from the environment is not asked for 127.0.0.1.
func TestGoAsksAProxyForTheReachableAddress(t *testing.T) {
	const variable = "HTTPS_PROXY"
	if os.Getenv("KUBEWRIGHT_TEST_CHILD") != "" { // which has not yet read its environment
		u, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: servers.Reachable + ":5000"}})
		fmt.Println("proxy:", u, err)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = []string{"KUBEWRIGHT_TEST_CHILD=1", variable + "=http://proxy.test:1"}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "proxy: http://proxy.test:1 <nil>") {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestNothingIsLeftOfAKilledRun(t *testing.T) {
	if binary := os.Getenv("KUBEWRIGHT_TEST_REGISTRY"); binary != "" { // the run that is killed
		r, err := servers.StartRegistry(t.Context(), binary, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("address:", r.Address)
		select {}
	}
	binary := registryBinary(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "KUBEWRIGHT_TEST_REGISTRY="+binary)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var address string
	if _, err := fmt.Fscanf(out, "address: %s\n", &address); err != nil {
		t.Fatal(err)
	}
	folders := func() []string {
		found, _ := filepath.Glob(filepath.Join(os.TempDir(), "kubewright-servers", fmt.Sprintf("%d-*", cmd.Process.Pid)))
		return found
	}
	if len(folders()) != 1 {
		t.Fatalf("the run has the folders %v", folders())
	}
	cmd.Process.Kill()
	cmd.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v2/", nil)
		resp, err := client.Do(req)
		if ctx.Err() != nil {
			t.Fatal("the registry outlived its run")
		} else if err != nil {
			break // nothing listens
		}
		resp.Body.Close()
	}
	p, err := servers.StartProxy(ctx, "127.0.0.1", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(folders()) != 0 {
		t.Errorf("the next server has left %v", folders())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if own, _ := filepath.Glob(filepath.Join(os.TempDir(), "kubewright-servers", fmt.Sprintf("%d-*", os.Getpid()))); len(own) != 0 {
		t.Errorf("a closed server has left %v", own)
	}
}
