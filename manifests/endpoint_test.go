package manifests

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/pki"
)

func TestHostsLinesLeadToTheHostItselfFirst(t *testing.T) {
	plane := []config.Role{config.ControlPlaneRole}
	c := load(t, "internal-endpoint")
	v6 := load(t, "internal-endpoint")
	v6.Spec.Hosts = []config.Node{{Name: "cp-1", Roles: plane, Address: "fd00::1"}}
	for name, tt := range map[string]struct {
		c    *config.Cluster
		n    config.Node
		want []string
	}{
		"a control plane":    {c, c.Spec.Hosts[0], []string{"127.0.0.1", "10.0.0.1", "10.0.0.2"}},
		"a worker":           {c, c.Spec.Hosts[3], []string{"127.0.0.1", "10.0.0.1", "10.0.0.2"}},
		"another worker":     {c, config.Node{Name: "w-2", Address: "10.0.0.8"}, []string{"127.0.0.1", "10.0.0.2", "10.0.0.1"}},
		"a new one":          {c, config.Node{Name: "cp-9", Roles: plane, Address: "10.0.0.9"}, []string{"127.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.1"}},
		"IPv6":               {v6, config.Node{Name: "w-1", Address: "fd00::9"}, []string{"::1", "fd00::1"}},
		"an endpoint of DNS": {load(t, "default"), c.Spec.Hosts[0], nil},
	} {
		got, err := HostsLines(tt.c, tt.n)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, address := range tt.want {
			want = append(want, address+" prod.kubewright.internal # kubewright")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	c.Spec.Hosts = nil
	if _, err := HostsLines(c, config.Node{Name: "w-1"}); err == nil {
		t.Error("a worker that knows no control plane is content")
	}
	if _, err := HAProxy(c, config.Node{Name: "w-1"}); err == nil {
		t.Error("and so is its load balancer")
	}
}

func TestLoadBalancerIsRootOnlyForAPortThatNeedsIt(t *testing.T) {
	c := load(t, "internal-endpoint")
	if s := loadBalancer(c, "").Spec.Containers[0].SecurityContext; *s.RunAsUser == 0 || !*s.RunAsNonRoot || len(s.Capabilities.Add) > 0 {
		t.Errorf("6443: %+v", s)
	}
	c.Spec.ControlPlane.BindPort = 443
	if s := loadBalancer(c, "").Spec.Containers[0].SecurityContext; *s.RunAsUser != 0 || s.RunAsNonRoot != nil || len(s.Capabilities.Add) != 1 {
		t.Errorf("443: %+v", s)
	}
}

// apiStandIn answers /readyz with a status, and everything else with its name. It ends no connection.
type apiStandIn struct {
	*http.Server
	status atomic.Int32
	hellos atomic.Int32 // of TLS
}

func startAPI(t *testing.T, name, address string, certificate tls.Certificate) *apiStandIn {
	t.Helper()
	a := &apiStandIn{}
	a.status.Store(http.StatusOK)
	a.Server = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(int(a.status.Load()))
			return
		}
		fmt.Fprintln(w, name)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})}
	l, err := tls.Listen("tcp", address, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		a.hellos.Add(1)
		return &certificate, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	go a.Serve(l)
	t.Cleanup(func() { a.Close() })
	return a
}

// The real haproxy, between clients and two servers with certificates as API servers have them.
func TestHAProxyLeadsToTheServersThatAreReady(t *testing.T) {
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	c := load(t, "internal-endpoint")
	c.Spec.ControlPlane.BindPort = int32(port)
	c.Spec.Hosts[0].Address, c.Spec.Hosts[1].Address = "127.0.0.2", "127.0.0.3"

	secrets, err := pki.New(c, c.Spec.Hosts[0], nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := secrets.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	pem := map[string]string{}
	for _, f := range files {
		pem[f.Path] = content(t, f)
	}
	certificate, err := tls.X509KeyPair([]byte(pem[pkiDir+"/apiserver.crt"]), []byte(pem[pkiDir+"/apiserver.key"]))
	if err != nil {
		t.Fatal(err)
	}
	strange, err := pki.New(c, c.Spec.Hosts[0], nil, time.Now()) // of another CA
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, secrets.CACert(), 0o644); err != nil {
		t.Fatal(err)
	}
	haproxy, err := HAProxy(c, config.Node{Name: "w-1", Address: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	configuration := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(configuration, []byte(strings.ReplaceAll(content(t, haproxy[0]), pkiDir+"/ca.crt", ca)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), binary, "-c", "-f", configuration).CombinedOutput(); err != nil || strings.Contains(string(out), "WARNING") {
		t.Fatalf("%v: %s", err, out)
	}
	one := startAPI(t, "one", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)), certificate)
	two := startAPI(t, "two", net.JoinHostPort("127.0.0.3", strconv.Itoa(port)), certificate)
	run := exec.CommandContext(t.Context(), binary, "-db", "-f", configuration)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Process.Kill(); run.Wait() })

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secrets.CACert())
	dial := func() (*tls.Conn, string, error) {
		dialer := &net.Dialer{Timeout: 10 * time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), &tls.Config{RootCAs: roots, ServerName: "prod.kubewright.internal"})
		if err != nil {
			return nil, "", err
		}
		fmt.Fprint(conn, "GET /watch HTTP/1.1\r\nHost: a\r\n\r\n")
		for r := bufio.NewReader(conn); ; {
			line, err := r.ReadString('\n')
			if err != nil || line == "one\n" || line == "two\n" {
				return conn, strings.TrimSpace(line), err
			}
		}
	}
	// until keeps asking, and closes what it is not waiting for.
	until := func(what string, enough func(names map[string]int) bool) {
		t.Helper()
		names, last := map[string]int{}, error(nil)
		for deadline := time.Now().Add(time.Minute); !enough(names); {
			conn, name, err := dial()
			if names[name]++; err == nil {
				conn.Close()
			} else {
				last = err
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: answers of %v; %v", what, names, last)
			}
		}
	}
	// only tells that the last 20 answers came from one server.
	only := func(want string) func(map[string]int) bool {
		before, since := 0, 0
		return func(names map[string]int) bool {
			all := 0
			for _, n := range names {
				all += n
			}
			if others := all - names[want]; others != before {
				before, since = others, all
			}
			return all-since >= 20
		}
	}
	until("both are up", func(names map[string]int) bool { return names["one"] > 0 && names["two"] > 0 })

	var watch *tls.Conn
	for name := ""; name != "one"; {
		if watch, name, err = dial(); err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
	}
	one.status.Store(http.StatusInternalServerError)
	watch.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadAll(watch); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("a session goes on, to a server that is not ready")
	}
	until("one is not ready", only("two"))

	two.status.Store(http.StatusUnauthorized) // anonymous requests are forbidden there
	one.status.Store(http.StatusOK)
	until("one is back", func(names map[string]int) bool { return names["one"] > 0 && names["two"] > 0 })

	two.Close()
	until("two is gone", only("one"))

	others, err := strange.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range others {
		pem[f.Path] = content(t, f)
	}
	if certificate, err = tls.X509KeyPair([]byte(pem[pkiDir+"/apiserver.crt"]), []byte(pem[pkiDir+"/apiserver.key"])); err != nil {
		t.Fatal(err)
	}
	stranger := startAPI(t, "stranger", net.JoinHostPort("127.0.0.3", strconv.Itoa(port)), certificate)
	until("a stranger was looked at", func(map[string]int) bool { return stranger.hellos.Load() > 2 })
	until("a stranger has two's address", only("one"))
}
