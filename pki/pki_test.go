package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// now is in the future, so that nothing depends on the clock of the machine.
var now = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

var (
	cp1    = config.Node{Name: "cp1", Address: "192.0.2.11", Roles: []config.Role{config.ControlPlaneRole}}
	cp2    = config.Node{Name: "cp2", Address: "192.0.2.12", Roles: []config.Role{config.ControlPlaneRole}}
	worker = config.Node{Name: "w1", Address: "192.0.2.21", Roles: []config.Role{config.WorkerRole}}
)

func cluster(change ...func(*config.Cluster)) *config.Cluster {
	c := &config.Cluster{}
	c.Default(config.Versions{})
	for _, f := range change {
		f(c)
	}
	return c
}

// files is what a host has, by path.
type files map[string][]byte

func (f files) write(t *testing.T, written []host.File) {
	t.Helper()
	for _, w := range written {
		if _, ok := f[w.Path]; ok {
			t.Errorf("%s was there and would be replaced", w.Path)
		}
		r, err := w.Content.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f[w.Path] = b
	}
}

func (f files) without(paths ...string) files {
	g := maps.Clone(f)
	for _, p := range paths {
		if _, ok := g[p]; !ok {
			panic(p + " was not there")
		}
		delete(g, p)
	}
	return g
}

func (f files) cert(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	certs, err := certutil.ParseCertsPEM(f[name+".crt"])
	if err != nil {
		t.Fatalf("%s.crt: %v", name, err)
	}
	return certs[0]
}

// all makes everything that a host of this role should have.
func all(t *testing.T, s *pki.Secrets, f files) files {
	t.Helper()
	f = maps.Clone(f)
	if f == nil {
		f = files{}
	}
	certs, err := s.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	confs, err := s.Kubeconfigs(true)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, certs)
	f.write(t, confs)
	return f
}

func firstHost(t *testing.T, c *config.Cluster, n config.Node) files {
	t.Helper()
	return all(t, mustNew(t, c, n, nil, now), nil)
}

func mustNew(t *testing.T, c *config.Cluster, n config.Node, f files, at time.Time) *pki.Secrets {
	t.Helper()
	s, err := pki.New(c, n, f, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCertificatesFollowTheContract(t *testing.T) {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	v6 := config.Node{Name: "cp6", Address: "2001:db8::0011", Roles: []config.Role{config.ControlPlaneRole}}
	for _, tt := range []struct {
		name                          string
		c                             *config.Cluster
		n                             config.Node
		apiServer, etcd, peer, kublet []string
	}{
		{
			"defaults", cluster(), cp1,
			[]string{"cp1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "10.96.0.1", "192.0.2.11"},
			[]string{"cp1", "localhost", "192.0.2.11", "127.0.0.1", "::1"},
			[]string{"cp1", "localhost", "192.0.2.11", "127.0.0.1", "::1"},
			[]string{"cp1", "192.0.2.11"},
		}, {
			"endpoint, domain and more names",
			cluster(func(c *config.Cluster) {
				c.Spec.ControlPlane.Endpoint = "api.example.com:8443"
				c.Spec.ControlPlane.CertSANs = []string{"*.example.org", "203.0.113.9", "cp1", "192.0.2.11"} // the last two are there already
				c.Spec.Network.DNSDomain, c.Spec.Network.ServiceCIDR = "corp.example", "172.16.32.0/20"
				c.Spec.Etcd.ServerCertSANs, c.Spec.Etcd.PeerCertSANs = []string{"etcd.example.com"}, []string{"203.0.113.7"}
			}), cp1,
			[]string{"cp1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.corp.example", "api.example.com", "*.example.org", "172.16.32.1", "192.0.2.11", "203.0.113.9"},
			[]string{"cp1", "localhost", "etcd.example.com", "192.0.2.11", "127.0.0.1", "::1"},
			[]string{"cp1", "localhost", "192.0.2.11", "127.0.0.1", "::1", "203.0.113.7"},
			[]string{"cp1", "192.0.2.11"},
		}, {
			"IPv6",
			cluster(func(c *config.Cluster) {
				c.Spec.ControlPlane.Endpoint = "[2001:db8::ff]:6443"
				c.Spec.ControlPlane.CertSANs = []string{"2001:db8:0::11"} // the node's, written in another way
				c.Spec.Network.ServiceCIDR = "fd00:10:96::/112"
			}), v6,
			[]string{"cp6", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "fd00:10:96::1", "2001:db8::11", "2001:db8::ff"},
			[]string{"cp6", "localhost", "2001:db8::11", "127.0.0.1", "::1"},
			[]string{"cp6", "localhost", "2001:db8::11", "127.0.0.1", "::1"},
			[]string{"cp6", "2001:db8::11"},
		}, {
			"dual-stack: the service kubernetes has one address, the node two",
			cluster(func(c *config.Cluster) { c.Spec.Network.ServiceCIDR = "10.96.0.0/12,fd00:10:96::/112" }),
			config.Node{Name: "cp1", Address: "192.0.2.11", OtherAddress: "2001:db8::0011", Roles: []config.Role{config.ControlPlaneRole}},
			[]string{"cp1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "10.96.0.1", "192.0.2.11", "2001:db8::11"},
			[]string{"cp1", "localhost", "192.0.2.11", "127.0.0.1", "::1"},
			[]string{"cp1", "localhost", "192.0.2.11", "127.0.0.1", "::1"},
			[]string{"cp1", "192.0.2.11", "2001:db8::11"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := firstHost(t, tt.c, tt.n)
			for _, want := range []struct {
				name, parent, cn string
				org              []string
				usages           []x509.ExtKeyUsage
				sans             []string
			}{
				{"/etc/kubernetes/pki/ca", "", "kubernetes", nil, nil, nil},
				{"/etc/kubernetes/pki/front-proxy-ca", "", "front-proxy-ca", nil, nil, nil},
				{"/etc/kubernetes/pki/etcd/ca", "", "etcd-ca", nil, nil, nil},
				{"/etc/kubernetes/pki/apiserver", "/etc/kubernetes/pki/ca", "kube-apiserver", nil, []x509.ExtKeyUsage{server}, tt.apiServer},
				{"/etc/kubernetes/pki/apiserver-kubelet-client", "/etc/kubernetes/pki/ca", "kube-apiserver-kubelet-client", nil, []x509.ExtKeyUsage{client}, nil},
				{"/etc/kubernetes/pki/front-proxy-client", "/etc/kubernetes/pki/front-proxy-ca", "front-proxy-client", nil, []x509.ExtKeyUsage{client}, nil},
				{"/etc/kubernetes/pki/apiserver-etcd-client", "/etc/kubernetes/pki/etcd/ca", "kube-apiserver-etcd-client", nil, []x509.ExtKeyUsage{client}, nil},
				{"/etc/kubernetes/pki/etcd/healthcheck-client", "/etc/kubernetes/pki/etcd/ca", "kube-etcd-healthcheck-client", nil, []x509.ExtKeyUsage{client}, nil},
				{"/etc/kubernetes/pki/etcd/server", "/etc/kubernetes/pki/etcd/ca", tt.n.Name, nil, []x509.ExtKeyUsage{server, client}, tt.etcd},
				{"/etc/kubernetes/pki/etcd/peer", "/etc/kubernetes/pki/etcd/ca", tt.n.Name, nil, []x509.ExtKeyUsage{server, client}, tt.peer},
				{"/var/lib/kubelet/pki/kubelet", "/etc/kubernetes/pki/ca", "system:node:" + tt.n.Name, []string{"system:nodes"}, []x509.ExtKeyUsage{server}, tt.kublet},
			} {
				cert := f.cert(t, want.name)
				type facts struct {
					CN      string
					Org     []string
					Usages  []x509.ExtKeyUsage
					SANs    []string
					IsCA    bool
					Usage   x509.KeyUsage
					From    time.Time
					To      time.Time
					Subject string
				}
				w := facts{want.cn, want.org, want.usages, want.sans, want.parent == "", x509.KeyUsageDigitalSignature, now.Add(-5 * time.Minute), now.Add(8760 * time.Hour), "CN=" + want.cn}
				if want.parent == "" {
					w.Usage, w.To = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, now.Add(87600*time.Hour)
				}
				if want.org != nil {
					w.Subject += ",O=" + want.org[0]
				}
				sans := slices.Clone(cert.DNSNames)
				for _, ip := range cert.IPAddresses {
					sans = append(sans, ip.String())
				}
				got := facts{cert.Subject.CommonName, cert.Subject.Organization, cert.ExtKeyUsage, sans, cert.IsCA, cert.KeyUsage, cert.NotBefore, cert.NotAfter, cert.Subject.String()}
				if diff := cmp.Diff(w, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", want.name, diff)
				}
				if _, err := tls.X509KeyPair(f[want.name+".crt"], f[want.name+".key"]); err != nil {
					t.Errorf("%s: %v", want.name, err)
				}
				parent := want.parent
				if parent == "" {
					parent = want.name
				}
				verify(t, f.cert(t, parent), cert, x509.ExtKeyUsageAny)
			}
			rest := slices.Sorted(maps.Keys(f))
			want := slices.Sorted(slices.Values(slices.DeleteFunc(pki.Paths(tt.n), func(p string) bool {
				return strings.HasSuffix(p, ".csr") || strings.Contains(p, ".conf.")
			})))
			if diff := cmp.Diff(want, rest); diff != "" {
				t.Errorf("files on the host (-Paths +made):\n%s", diff)
			}
		})
	}
}

func verify(t *testing.T, ca, cert *x509.Certificate, usage x509.ExtKeyUsage) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		t.Errorf("%s: %v", cert.Subject, err)
	}
}

func TestKubeconfigsFollowTheContract(t *testing.T) {
	c := cluster(func(c *config.Cluster) {
		c.Metadata.Name, c.Spec.ControlPlane.Endpoint = "prod", "api.example.com"
	})
	s := mustNew(t, c, cp1, nil, now)
	f := all(t, s, nil)
	const endpoint, local = "https://api.example.com:6443", "https://192.0.2.11:6443"
	for _, want := range []struct {
		path, user string
		org        []string
		server     string
	}{
		{"/etc/kubernetes/admin.conf", "kubernetes-admin", []string{"kubeadm:cluster-admins"}, endpoint},
		{"/etc/kubernetes/super-admin.conf", "kubernetes-super-admin", []string{"system:masters"}, endpoint},
		{"/etc/kubernetes/controller-manager.conf", "system:kube-controller-manager", nil, local},
		{"/etc/kubernetes/scheduler.conf", "system:kube-scheduler", nil, local},
		{"/etc/kubernetes/kubelet.conf", "system:node:cp1", []string{"system:nodes"}, local},
	} {
		r, context := restConfig(t, f[want.path])
		if context != want.user+"@prod" || r.Host != want.server {
			t.Errorf("%s: context %q to %s", want.path, context, r.Host)
		}
		checkClient(t, want.path, f, r, want.user, want.org)
	}

	without, err := s.Kubeconfigs(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range without {
		if w.Path == pki.SuperAdminConf {
			t.Error("super-admin.conf is made where nobody asked")
		}
	}
	if len(without) != 4 {
		t.Errorf("%d kubeconfigs without super-admin, want 4", len(without))
	}

	b, err := s.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	r, _ := restConfig(t, b)
	if r.Host != local {
		t.Errorf("ourselves: to %s", r.Host)
	}
	checkClient(t, "ourselves", f, r, "kubernetes-super-admin", []string{"system:masters"})
}

func restConfig(t *testing.T, b []byte) (*rest.Config, string) {
	t.Helper()
	conf, err := clientcmd.Load(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := clientcmd.NewDefaultClientConfig(*conf, nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	return r, conf.CurrentContext
}

func checkClient(t *testing.T, what string, f files, r *rest.Config, user string, org []string) {
	t.Helper()
	pair, err := tls.X509KeyPair(r.CertData, r.KeyData)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	cert := pair.Leaf
	if cert.Subject.CommonName != user || !slices.Equal(cert.Subject.Organization, org) {
		t.Errorf("%s: subject %s", what, cert.Subject)
	}
	if !bytes.Equal(r.CAData, f[pki.CA+".crt"]) {
		t.Errorf("%s: another CA", what)
	}
	verify(t, f.cert(t, pki.CA), cert, x509.ExtKeyUsageClientAuth)
}

func TestModesAndSecrecyOfFiles(t *testing.T) {
	s := mustNew(t, cluster(), cp1, nil, now)
	certs, _ := s.Certificates()
	confs, _ := s.Kubeconfigs(true)
	for _, f := range append(certs, confs...) {
		private := strings.HasSuffix(f.Path, ".key") || strings.HasSuffix(f.Path, ".conf")
		if f.Secret != private {
			t.Errorf("%s: Secret is %v", f.Path, f.Secret)
		}
		if public := strings.HasSuffix(f.Path, ".crt"); public && f.Perm() != 0o644 || !public && f.Perm() != 0o600 {
			t.Errorf("%s: mode %o", f.Path, f.Perm())
		}
	}
	// A run that is killed between the two must leave the key, not the certificate.
	for i, f := range certs {
		if name, ok := strings.CutSuffix(f.Path, ".crt"); ok && certs[i-1].Path != name+".key" {
			t.Errorf("%s is written before its key", f.Path)
		}
	}
}

func TestASecondRunMakesNothing(t *testing.T) {
	c := cluster()
	f := firstHost(t, c, cp1)
	s := mustNew(t, c, cp1, f, now.Add(time.Hour))
	for name, made := range map[string]func() ([]host.File, error){
		"certificates": s.Certificates,
		"kubeconfigs":  func() ([]host.File, error) { return s.Kubeconfigs(true) },
	} {
		got, err := made()
		if err != nil || len(got) > 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if w, err := s.Warnings(), s.Problems(); w != nil || err != nil {
		t.Errorf("warnings %v, problems %v", w, err)
	}
}

func TestTheSameSecretsGiveTheSameFilesToEveryGoroutine(t *testing.T) {
	s := mustNew(t, cluster(), cp1, nil, now)
	var wg sync.WaitGroup
	sums := make([]string, 8)
	for i := range sums {
		wg.Go(func() {
			certs, _ := s.Certificates()
			confs, _ := s.Kubeconfigs(true)
			for _, f := range append(slices.Clone(certs), confs...) {
				sums[i] += f.Content.Digest()
			}
			if _, err := pki.New(cluster(), cp1, nil, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(slices.Compact(sums)) != 1 {
		t.Error("the files differ from call to call")
	}
}

func TestARunThatWasKilledIsFinished(t *testing.T) {
	c := cluster()
	made, err := mustNew(t, c, cp1, nil, now).Certificates()
	if err != nil {
		t.Fatal(err)
	}
	for i := range made {
		f := files{}
		f.write(t, made[:i])
		before := maps.Clone(f)
		s, err := pki.New(c, cp1, f, now)
		if err != nil {
			t.Fatalf("killed before %s: %v", made[i].Path, err)
		}
		f = all(t, s, f)
		for path, b := range before {
			if !bytes.Equal(f[path], b) {
				t.Errorf("killed before %s: %s was replaced", made[i].Path, path)
			}
		}
		again := mustNew(t, c, cp1, f, now) // verifies every chain and every pair
		if rest, err := again.Certificates(); err != nil || len(rest) > 0 {
			t.Errorf("killed before %s: left after the second run: %v, %v", made[i].Path, rest, err)
		}
	}
}

func TestACertificateMadeFromTheCAsKeyHasTheSamePin(t *testing.T) {
	f := firstHost(t, cluster(), cp1)
	s := mustNew(t, cluster(), cp1, files{pki.CA + ".key": f[pki.CA+".key"]}, now)
	if got, want := s.CAHashes(), []string{pki.Pin(f.cert(t, pki.CA))}; !slices.Equal(got, want) {
		t.Errorf("pin %v, before %v", got, want)
	}
}

func TestEveryProblemOfWhatExistsIsReportedAtOnce(t *testing.T) {
	good, other := firstHost(t, cluster(), cp1), firstHost(t, cluster(), cp1)
	with := func(change ...string) files { // path, content, ...
		f := maps.Clone(good)
		for i := 0; i < len(change); i += 2 {
			f[change[i]] = []byte(change[i+1])
		}
		return f
	}
	for _, tt := range []struct {
		name string
		f    files
		want []string
	}{
		{"another key", with(pki.APIServer+".key", string(other[pki.APIServer+".key"])),
			[]string{"/etc/kubernetes/pki/apiserver.key is not the key of /etc/kubernetes/pki/apiserver.crt: restore the one that is, or remove both"}},
		{"another CA's key", with(pki.CA+".key", string(other[pki.CA+".key"])), []string{"pki/ca.key is not the key of"}},
		{"another CA's leaf", with(pki.EtcdPeer+".key", string(other[pki.EtcdPeer+".key"]), pki.EtcdPeer+".crt", string(other[pki.EtcdPeer+".crt"])),
			[]string{"etcd/peer.crt is not signed by /etc/kubernetes/pki/etcd/ca.crt"}},
		{"no PEM", with(pki.APIServer+".crt", "", pki.EtcdServer+".key", "x", pki.ServiceAccount+".key", "y", pki.SchedulerConf, "z: {"),
			[]string{"apiserver.crt is not a PEM certificate", "etcd/server.key: not a PEM private key", "sa.key: not a PEM private key"}},
		{"no kubeconfig", with(pki.SchedulerConf, "z: {", pki.AdminConf, "apiVersion: v1\nkind: Config\n"),
			[]string{"scheduler.conf is not a kubeconfig", "admin.conf is of no use: its current context"}},
		{"not a CA", with(pki.CA+".crt", string(good[pki.APIServer+".crt"])), []string{"pki/ca.crt is not a certificate authority"}},
		{"certificate without key", good.without(pki.APIServer + ".key"), []string{"apiserver.crt is there without"}},
		{"CA's key without certificate", good.without(pki.CA + ".crt"), []string{"pki/ca.crt is missing, but there is something that it signed (/etc/kubernetes/pki/apiserver.crt)"}},
		{"leaf without CA", good.without(pki.FrontProxyCA+".crt", pki.FrontProxyCA+".key"), []string{"front-proxy-ca.crt is missing, but there is something that it signed"}},
		{"kubeconfigs without CA", files{pki.AdminConf: good[pki.AdminConf]}, []string{"pki/ca.crt is missing, but there is something that it signed (/etc/kubernetes/admin.conf)"}},
		{"sa.pub of another", with(pki.ServiceAccount+".pub", string(other[pki.ServiceAccount+".pub"])), []string{"sa.pub does not hold the public key of sa.key"}},
		{"sa.pub alone", good.without(pki.ServiceAccount + ".key"), []string{"sa.pub is there without"}},
		{"another cluster's kubeconfigs", with(pki.AdminConf, string(other[pki.AdminConf])),
			[]string{"admin.conf trusts the CA " + pki.Pin(other.cert(t, pki.CA)) + ", but this cluster's is " + pki.Pin(good.cert(t, pki.CA)), "holds a certificate that is not signed by"}},
		{"another server", with(pki.AdminConf, strings.ReplaceAll(string(good[pki.AdminConf]), "192.0.2.11", "192.0.2.99")),
			[]string{"admin.conf points to https://192.0.2.99:6443, but this cluster is at https://192.0.2.11:6443"}},
		{"a key that is not its certificate's", with(pki.AdminConf, swapKey(t, good[pki.AdminConf], other[pki.AdminConf])),
			[]string{"admin.conf holds a key that is not its certificate's"}},
		{"several", with(pki.APIServer+".key", "x", pki.EtcdPeer+".crt", "y"), []string{"2 problems", "apiserver.key", "etcd/peer.crt"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pki.New(cluster(), cp1, tt.f, now)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in:\n%v", w, err)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE KEY---") {
				t.Error("a key is in the message")
			}
		})
	}
}

// swapKey puts the key of another kubeconfig into one.
func swapKey(t *testing.T, b, other []byte) string {
	t.Helper()
	key := func(b []byte) string {
		_, after, ok := strings.Cut(string(b), "client-key-data: ")
		if !ok {
			t.Fatal("no key")
		}
		return after
	}
	return strings.ReplaceAll(string(b), key(b), key(other))
}

func TestExternalCA(t *testing.T) {
	c := cluster()
	full := firstHost(t, c, cp1)

	t.Run("everything signed: nothing to do", func(t *testing.T) {
		s := mustNew(t, c, cp1, full.without(pki.CA+".key", pki.EtcdCA+".key", pki.FrontProxyCA+".key"), now)
		certs, err := s.Certificates()
		confs, err2 := s.Kubeconfigs(true)
		if err != nil || err2 != nil || len(certs)+len(confs) > 0 {
			t.Errorf("%v, %v; %v, %v", certs, confs, err, err2)
		}
		b, err := s.ClientConfig()
		if err != nil {
			t.Fatal(err)
		}
		r, _ := restConfig(t, b)
		checkClient(t, "ourselves", full, r, "kubernetes-super-admin", []string{"system:masters"})
	})

	t.Run("unsigned: keys and requests, and nothing of the CAs that we have is held up", func(t *testing.T) {
		f := files{pki.CA + ".crt": full[pki.CA+".crt"]}
		s := mustNew(t, c, cp1, f, now)
		certs, err := s.Certificates()
		var unsigned *pki.UnsignedError
		if !errors.As(err, &unsigned) {
			t.Fatal(err)
		}
		want := []pki.Unsigned{
			{pki.APIServer + ".crt", pki.APIServer + ".csr", pki.CA + ".crt"},
			{pki.APIServerKubeletClient + ".crt", pki.APIServerKubeletClient + ".csr", pki.CA + ".crt"},
		}
		if diff := cmp.Diff(want, unsigned.Missing); diff != "" {
			t.Error(diff)
		}
		confs, err := s.Kubeconfigs(false)
		if !errors.As(err, &unsigned) || len(unsigned.Missing) != 4 {
			t.Fatal(err)
		}
		f.write(t, certs)
		f.write(t, confs)
		if f[pki.EtcdServer+".crt"] == nil {
			t.Error("etcd's CA is ours, but nothing was signed by it")
		}
		for _, path := range []string{pki.AdminConf, pki.KubeletServing + ".crt", pki.CA + ".key", pki.SuperAdminConf + ".csr"} {
			if f[path] != nil {
				t.Errorf("%s was made", path)
			}
		}

		// The second run asks for the same and writes nothing, the last one finds everything signed.
		s = mustNew(t, c, cp1, f, now)
		if again, err := s.Certificates(); err == nil || len(again) > 0 {
			t.Errorf("second run: %v, %v", again, err)
		}
		for path := range maps.Clone(f) {
			if name, ok := strings.CutSuffix(path, ".csr"); ok {
				f[name+".crt"] = signLike(t, full, f, name)
			}
		}
		s = mustNew(t, c, cp1, f, now)
		if rest, err := s.Certificates(); err != nil || len(rest) > 0 {
			t.Errorf("signed: %v, %v", rest, err)
		}
		confs, err = s.Kubeconfigs(false)
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, confs)
		r, _ := restConfig(t, f[pki.AdminConf])
		checkClient(t, pki.AdminConf, full, r, "kubernetes-admin", []string{"kubeadm:cluster-admins"})
		mustNew(t, c, cp1, f, now)
	})

	t.Run("a request of an older document is asked for again", func(t *testing.T) {
		f := files{pki.CA + ".crt": full[pki.CA+".crt"]}
		made, _ := mustNew(t, c, cp1, f, now).Certificates()
		f.write(t, made)
		changed := cluster(func(c *config.Cluster) { c.Spec.ControlPlane.CertSANs = []string{"new.example.com"} })
		made, _ = mustNew(t, changed, cp1, f, now).Certificates()
		if len(made) != 1 || made[0].Path != pki.APIServer+".csr" {
			t.Errorf("made %v", made)
		}
		confs, _ := mustNew(t, c, cp1, f, now).Kubeconfigs(false)
		f.write(t, confs)
		confs, _ = mustNew(t, c, cp2, f, now).Kubeconfigs(false)
		if len(confs) != 1 || confs[0].Path != pki.KubeletConf+".csr" {
			t.Errorf("for another node name: %v", confs)
		}
	})
}

// signLike is an external CA: it signs what a request asks for.
func signLike(t *testing.T, ca, f files, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(f[name+".csr"])
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyutil.ParsePrivateKeyPEM(ca[pki.CA+".key"])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: req.Subject, DNSNames: req.DNSNames, IPAddresses: req.IPAddresses,
		NotBefore: now, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca.cert(t, pki.CA), req.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestJoin(t *testing.T) {
	c := cluster(func(c *config.Cluster) { c.Spec.ControlPlane.Endpoint = "api.example.com" })
	first := mustNew(t, c, cp1, nil, now)
	firstFiles := all(t, first, nil)

	t.Run("a control plane gets the shared files and its own leaves", func(t *testing.T) {
		s, err := pki.Join(c, cp2, nil, first.Shared(), now)
		if err != nil {
			t.Fatal(err)
		}
		f := all(t, s, nil)
		for path, b := range first.Shared() {
			if !bytes.Equal(f[path], b) {
				t.Errorf("%s differs", path)
			}
		}
		if len(first.Shared()) != 8 {
			t.Errorf("%d files are shared, want 3 CAs with keys and a key pair", len(first.Shared()))
		}
		if cn := f.cert(t, pki.EtcdPeer).Subject.CommonName; cn != "cp2" {
			t.Errorf("etcd's peer is %s", cn)
		}
		verify(t, firstFiles.cert(t, pki.EtcdCA), f.cert(t, pki.EtcdPeer), x509.ExtKeyUsageAny)
		if _, err := pki.Join(c, cp2, f, first.Shared(), now); err != nil {
			t.Errorf("second run: %v", err)
		}
	})

	t.Run("a worker gets the CA without key, and its kubelet's certificates", func(t *testing.T) {
		s, err := pki.Join(c, worker, nil, first.Shared(), now)
		if err != nil {
			t.Fatal(err)
		}
		f := all(t, s, nil)
		want := []string{pki.KubeletConf, pki.CA + ".crt", pki.KubeletServing + ".crt", pki.KubeletServing + ".key"}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(f))); diff != "" {
			t.Error(diff)
		}
		r, _ := restConfig(t, f[pki.KubeletConf])
		if r.Host != "https://api.example.com:6443" {
			t.Errorf("the kubelet goes to %s", r.Host)
		}
		checkClient(t, pki.KubeletConf, f, r, "system:node:w1", []string{"system:nodes"})
	})

	t.Run("a worker that knows only the CA's certificate gets that, and bootstraps", func(t *testing.T) {
		s, err := pki.Join(c, worker, nil, files{pki.CA + ".crt": firstFiles[pki.CA+".crt"]}, now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{pki.CA + ".crt"}, slices.Sorted(maps.Keys(all(t, s, nil)))); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("never a new CA", func(t *testing.T) {
		shared := files(first.Shared()).without(pki.EtcdCA+".crt", pki.EtcdCA+".key", pki.ServiceAccount+".key", pki.ServiceAccount+".pub")
		_, err := pki.Join(c, cp2, nil, shared, now)
		if err == nil || !strings.Contains(err.Error(), "etcd/ca.crt is missing") || !strings.Contains(err.Error(), "sa.key is missing") {
			t.Error(err)
		}
		if _, err := pki.New(c, worker, nil, now); err == nil || !strings.Contains(err.Error(), "pki/ca.crt is missing") {
			t.Error(err)
		}
	})

	t.Run("a host of another cluster is an error", func(t *testing.T) {
		_, err := pki.Join(c, cp2, firstHost(t, c, cp2), first.Shared(), now)
		if err == nil || !strings.Contains(err.Error(), "/etc/kubernetes/pki/ca.crt on cp2 is not the cluster's") {
			t.Error(err)
		}
	})
}

// An external etcd has a CA of its own, and files of ours would look as if they were in use.
func TestExternalEtcd(t *testing.T) {
	c := cluster(func(c *config.Cluster) {
		c.Spec.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://192.0.2.21:2379"}}}
	})
	// Somebody has put its CA where ours would be, which is nothing to be judged.
	existing := files{pki.EtcdCA + ".crt": []byte("another's"), pki.APIServerEtcdClient + ".crt": []byte("another's")}
	first := mustNew(t, c, cp1, existing, now)
	f := all(t, first, nil)
	for path := range f {
		if strings.Contains(path, "etcd") {
			t.Errorf("it made %s", path)
		}
	}
	if _, ok := f[pki.AdminConf]; !ok {
		t.Error("it made no admin.conf")
	}
	if err := first.Problems(); err != nil {
		t.Error(err)
	}
	if _, err := pki.Join(c, cp2, nil, first.Shared(), now); err != nil {
		t.Error(err)
	}
}

func TestExpiry(t *testing.T) {
	c := cluster(func(c *config.Cluster) { c.Spec.PKI.Validity.Duration = 100 * 24 * time.Hour })
	f := firstHost(t, c, cp1)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name               string
		at                 time.Time
		problems, warnings int // of 8 leaves, the kubelet's and 5 kubeconfigs; and 3 CAs
		problem, warning   string
	}{
		{"fresh", now, 0, 0, "", ""},
		{"31 days left", now.Add(69 * day), 0, 0, "", ""},
		{"29 days left", now.Add(71 * day), 0, 13, "", "apiserver.crt: the certificate expires on 2031-05-14: remove it and run again"},
		{"expired", now.Add(101 * day), 13, 0, "admin.conf: the certificate expired on 2031-05-14: remove it and run again", ""},
		{"the CA expires", now.Add(3650*day - day), 13, 3, "", "pki/ca.crt: the certificate expires on 2041-01-31: roll out a new CA"},
		{"a clock that is behind", now.Add(-time.Hour), 16, 0, "not valid before 2031-02-03T04:00:06Z, and here it is 2031-02-03T03:05:06Z: set the clock right", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustNew(t, c, cp1, f, tt.at)
			w, problems := s.Warnings(), ""
			if err := s.Problems(); err != nil {
				problems = err.Error()
			}
			if n := strings.Count(problems, "the certificate "); n != tt.problems || !strings.Contains(problems, tt.problem) {
				t.Errorf("%d problems, want %d with %q:\n%s", n, tt.problems, tt.problem, problems)
			}
			if len(w) != tt.warnings || !strings.Contains(strings.Join(w, "\n"), tt.warning) {
				t.Errorf("%d warnings, want %d with %q:\n%s", len(w), tt.warnings, tt.warning, strings.Join(w, "\n"))
			}
		})
	}

	t.Run("what was removed is made anew from its key", func(t *testing.T) {
		later := now.Add(101 * day)
		s := mustNew(t, c, cp1, f.without(pki.APIServer+".crt"), later)
		made, err := s.Certificates()
		if err != nil || len(made) != 1 {
			t.Fatal(made, err)
		}
		g := f.without(pki.APIServer + ".crt")
		g.write(t, made)
		if a, b := f.cert(t, pki.APIServer), g.cert(t, pki.APIServer); pki.Pin(a) != pki.Pin(b) || !b.NotAfter.After(later) {
			t.Errorf("key %s then %s, until %s", pki.Pin(a), pki.Pin(b), b.NotAfter)
		}
	})
}

func TestSANDriftNamesWhatIsMissing(t *testing.T) {
	f := firstHost(t, cluster(func(c *config.Cluster) { c.Spec.ControlPlane.CertSANs = []string{"*.example.com"} }), cp1)
	c := cluster(func(c *config.Cluster) {
		c.Spec.ControlPlane.CertSANs = []string{"api.example.com", "*.example.com", "api.example.org", "203.0.113.5"} // the first two are covered
		c.Spec.Etcd.PeerCertSANs = []string{"203.0.113.6"}
	})
	want := []string{
		"/etc/kubernetes/pki/apiserver.crt: the certificate is not valid for api.example.org, 203.0.113.5: remove it and run again, and it is made anew from its key",
		"/etc/kubernetes/pki/etcd/peer.crt: the certificate is not valid for 203.0.113.6: remove it and run again, and it is made anew from its key",
	}
	s := mustNew(t, c, cp1, f, now)
	if diff := cmp.Diff(want, s.Warnings()); diff != "" {
		t.Error(diff)
	}
	if made, err := s.Certificates(); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
}

func TestAKubeconfigToTheOtherAddressOfTheClusterIsKeptWithAWarning(t *testing.T) {
	f := firstHost(t, cluster(), cp1)
	c := cluster(func(c *config.Cluster) { c.Spec.ControlPlane.Endpoint = "192.0.2.100" })
	w := strings.Join(mustNew(t, c, cp1, f, now).Warnings(), "\n")
	if want := "admin.conf: points to https://192.0.2.11:6443 and not to https://192.0.2.100:6443: remove it"; !strings.Contains(w, want) {
		t.Errorf("%q is not in:\n%s", want, w)
	}
}

func TestAKubeletsOwnServingCertificateIsLeftAlone(t *testing.T) {
	f := firstHost(t, cluster(), cp1).without(pki.KubeletServing+".key", pki.KubeletServing+".crt")
	crt, key, err := certutil.GenerateSelfSignedCertKey("cp1", nil, nil) // as the kubelet does
	if err != nil {
		t.Fatal(err)
	}
	f[pki.KubeletServing+".crt"] = crt
	mustNew(t, cluster(), cp1, f, time.Now()) // its key may be elsewhere: --tls-private-key-file
	f[pki.KubeletServing+".key"] = key
	s := mustNew(t, cluster(), cp1, f, time.Now())
	if made, err := s.Certificates(); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
	for _, w := range s.Warnings() {
		if strings.Contains(w, "kubelet") {
			t.Error(w)
		}
	}
}

func TestRotatedKubeletConf(t *testing.T) {
	f := firstHost(t, cluster(), cp1)
	rotated, err := pki.RotatedKubeletConf(f[pki.KubeletConf])
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.Load(rotated)
	if err != nil {
		t.Fatal(err)
	}
	auth := conf.AuthInfos["system:node:cp1"]
	const want = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	if auth == nil || auth.ClientCertificate != want || auth.ClientKey != want || len(auth.ClientCertificateData)+len(auth.ClientKeyData) > 0 {
		t.Errorf("user %+v", auth)
	}
	if again, err := pki.RotatedKubeletConf(rotated); err != nil || !bytes.Equal(again, rotated) {
		t.Errorf("the second time it changes: %v", err)
	}
	f[pki.KubeletConf] = rotated
	if made, err := mustNew(t, cluster(), cp1, f, now).Kubeconfigs(true); err != nil || len(made) > 0 {
		t.Errorf("a second run makes %v, %v", made, err)
	}
}

func TestBootstrapKubeconfig(t *testing.T) {
	f := firstHost(t, cluster(), cp1)
	b, err := pki.BootstrapKubeconfig("kubernetes", "https://[2001:db8::1]:6443", f[pki.CA+".crt"], "abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	r, context := restConfig(t, b)
	if context != "tls-bootstrap-token-user@kubernetes" || r.BearerToken != "abcdef.0123456789abcdef" || r.Host != "https://[2001:db8::1]:6443" {
		t.Errorf("context %s, token %q, to %s", context, r.BearerToken, r.Host)
	}
}

func TestCAHashesPinEveryCertificateOfABundle(t *testing.T) {
	f, old := firstHost(t, cluster(), cp1), firstHost(t, cluster(), cp1)
	want := []string{pki.Pin(f.cert(t, pki.CA)), pki.Pin(old.cert(t, pki.CA))}
	f[pki.CA+".crt"] = append(slices.Clone(f[pki.CA+".crt"]), old[pki.CA+".crt"]...)
	// What the old CA signed is good while the bundle holds it.
	f[pki.APIServer+".crt"], f[pki.APIServer+".key"] = old[pki.APIServer+".crt"], old[pki.APIServer+".key"]
	got := mustNew(t, cluster(), cp1, f, now).CAHashes()
	if !slices.Equal(got, want) || !strings.HasPrefix(got[0], "sha256:") || len(got[0]) != len("sha256:")+64 {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestServiceAccountKeys(t *testing.T) {
	f := firstHost(t, cluster(), cp1)
	pubs, err := keyutil.ParsePublicKeysPEM(f[pki.ServiceAccount+".pub"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyutil.ParsePrivateKeyPEM(f[pki.ServiceAccount+".key"])
	if err != nil {
		t.Fatal(err)
	}
	if !key.(*ecdsa.PrivateKey).PublicKey.Equal(pubs[0]) {
		t.Error("sa.pub is not that of sa.key")
	}
	made, err := mustNew(t, cluster(), cp1, f.without(pki.ServiceAccount+".pub"), now).Certificates()
	g := files{}
	g.write(t, made)
	if err != nil || len(g) != 1 || !bytes.Equal(g[pki.ServiceAccount+".pub"], f[pki.ServiceAccount+".pub"]) {
		t.Errorf("without sa.pub: %v, %v", made, err)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bits  int
		usage x509.KeyUsage
	}{
		{"ECDSA-P256", 256, x509.KeyUsageDigitalSignature},
		{"ECDSA-P384", 384, x509.KeyUsageDigitalSignature},
		{"RSA-2048", 2048, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment},
		{"RSA-3072", 3072, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment},
		{"RSA-4096", 4096, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.bits > 2048 && testing.Short() {
				t.Skip("large RSA keys take seconds")
			}
			// The worker's set is the smallest that has every kind: a CA, a leaf, a kubeconfig.
			c := cluster(func(c *config.Cluster) {
				c.Spec.PKI.Algorithm, c.Spec.ControlPlane.Endpoint = tt.name, "api"
			})
			s, err := pki.Join(c, worker, nil, mustNew(t, c, cp1, nil, now).Shared(), now)
			if err != nil {
				t.Fatal(err)
			}
			f := all(t, s, nil)
			ca, cert := f.cert(t, pki.CA), f.cert(t, pki.KubeletServing)
			verify(t, ca, cert, x509.ExtKeyUsageServerAuth)
			for _, c := range []*x509.Certificate{ca, cert} {
				bits := 0
				switch k := c.PublicKey.(type) {
				case *ecdsa.PublicKey:
					bits = k.Params().BitSize
				case *rsa.PublicKey:
					bits = k.N.BitLen()
				}
				if bits != tt.bits {
					t.Errorf("%s has %d bits", c.Subject, bits)
				}
			}
			if cert.KeyUsage != tt.usage {
				t.Errorf("key usage %b, want %b", cert.KeyUsage, tt.usage)
			}
			if _, err := pki.Join(c, worker, f, s.Shared(), now); err != nil {
				t.Errorf("second run: %v", err)
			}
		})
	}
}

func TestURLs(t *testing.T) {
	v6 := config.Node{Name: "cp6", Address: "2001:db8::0011", Roles: []config.Role{config.ControlPlaneRole}}
	for _, tt := range []struct {
		endpoint            string
		n                   config.Node
		hosts               []config.Node
		local, controlPlane string
	}{
		{"", cp1, nil, "https://192.0.2.11:6443", "https://192.0.2.11:6443"},
		{"", v6, nil, "https://[2001:db8::11]:6443", "https://[2001:db8::11]:6443"},
		{"api.example.com", cp1, nil, "https://192.0.2.11:6443", "https://api.example.com:6443"},
		{"api.example.com:443", worker, nil, "https://192.0.2.21:6443", "https://api.example.com:443"},
		{"2001:db8::ff", cp1, nil, "https://192.0.2.11:6443", "https://[2001:db8::ff]:6443"},
		{"[2001:db8::ff]:8443", cp1, nil, "https://192.0.2.11:6443", "https://[2001:db8::ff]:8443"},
		{"", worker, []config.Node{worker, cp2, cp1}, "https://192.0.2.21:6443", "https://192.0.2.12:6443"},
		{"", worker, nil, "https://192.0.2.21:6443", ""},
	} {
		c := cluster(func(c *config.Cluster) { c.Spec.ControlPlane.Endpoint, c.Spec.Hosts = tt.endpoint, tt.hosts })
		if got := pki.LocalURL(c, tt.n); got != tt.local {
			t.Errorf("%s, endpoint %q: local %s, want %s", tt.n.Name, tt.endpoint, got, tt.local)
		}
		if got := pki.ControlPlaneURL(c, tt.n); got != tt.controlPlane {
			t.Errorf("%s, endpoint %q: control plane %s, want %s", tt.n.Name, tt.endpoint, got, tt.controlPlane)
		}
	}
}

func TestCfsslPrintsNothing(t *testing.T) {
	var printed bytes.Buffer
	log.SetOutput(&printed) // cfssl prints through this logger
	defer log.SetOutput(os.Stderr)
	firstHost(t, cluster(), cp1)
	if printed.Len() > 0 {
		t.Errorf("printed %s", &printed)
	}
}

func BenchmarkControlPlane(b *testing.B) {
	for _, algorithm := range config.Algorithms {
		b.Run(algorithm, func(b *testing.B) {
			c := cluster(func(c *config.Cluster) { c.Spec.PKI.Algorithm = algorithm })
			for b.Loop() {
				s, err := pki.New(c, cp1, nil, now)
				if err != nil {
					b.Fatal(err)
				}
				s.Certificates()
				s.Kubeconfigs(true)
			}
		})
	}
}
