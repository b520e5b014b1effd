package nodeimage

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node is a disk of a node that readdress finds, in a folder.
type node struct {
	*testing.T
	dir string
}

func newNode(t *testing.T, address, initialCluster string) node {
	t.Helper()
	n := node{t, t.TempDir()}
	url := "https://" + net.JoinHostPort(address, "2380")
	n.write("/kind/none", "")
	n.write("/var/lib/kubelet/config.yaml", "address: "+address+"\n")
	n.write("/etc/kubernetes/manifests/etcd.yaml", "- --initial-cluster="+strings.ReplaceAll(initialCluster, "URL", url)+"\n- --listen-peer-urls="+url+"\n")
	n.write("/etc/kubernetes/kubelet.conf", "server: "+address+"1\n") // of which the address is a part
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true}
	caKey := n.key("/etc/kubernetes/pki/ca")
	n.sign("/etc/kubernetes/pki/ca", ca, ca, caKey, caKey)
	n.sign("/etc/kubernetes/pki/apiserver", &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().AddDate(1, 0, 0), Subject: pkix.Name{CommonName: "kube-apiserver"},
		DNSNames: []string{"kubernetes"}, IPAddresses: []net.IP{net.ParseIP("10.96.0.1"), net.ParseIP(address)},
	}, ca, n.key("/etc/kubernetes/pki/apiserver"), caKey)
	return n
}

func (n node) write(path, text string) {
	n.Helper()
	p := filepath.Join(n.dir, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		n.Fatal(err)
	}
}

func (n node) read(path string) string {
	b, err := os.ReadFile(filepath.Join(n.dir, path))
	if err != nil {
		n.Helper()
		n.Error(err)
	}
	return string(b)
}

func (n node) key(path string) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		n.Fatal(err)
	}
	n.write(path+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})))
	return key
}

func (n node) sign(path string, c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) {
	b, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		n.Fatal(err)
	}
	n.write(path+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})))
}

// boot runs readdress where the node has an address, and returns what it prints.
func (n node) boot(address string) (string, error) {
	family := "4"
	if strings.Contains(address, ":") {
		family = "6"
	}
	n.write("/bin/ip", "#!/bin/sh\n[ $1 != -"+family+" ] || echo '2: eth0 inet "+address+"/16 scope global'\n")
	n.write("/bin/readdress", strings.NewReplacer("/etc/kubernetes", n.dir+"/etc/kubernetes", "/var/lib/kubelet", n.dir+"/var/lib/kubelet", "/kind/", n.dir+"/kind/").Replace(readdress))
	cmd := exec.Command("bash", n.dir+"/bin/readdress")
	cmd.Env = append(os.Environ(), "PATH="+n.dir+"/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (n node) boots(address string) {
	n.Helper()
	if out, err := n.boot(address); err != nil {
		n.Fatalf("%v: %s", err, out)
	}
}

func (n node) certificateHas(address string) {
	n.Helper()
	block, _ := pem.Decode([]byte(n.read("/etc/kubernetes/pki/apiserver.crt")))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		n.Fatal(err)
	}
	if len(c.IPAddresses) != 2 || c.VerifyHostname(address) != nil || c.VerifyHostname("10.96.0.1") != nil || c.VerifyHostname("kubernetes") != nil || c.Subject.CommonName != "kube-apiserver" {
		n.Errorf("the certificate is for %s, %v, %v", c.Subject, c.IPAddresses, c.DNSNames)
	}
}

func needOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
}

func TestAnotherAddressIsWrittenForTheOldOne(t *testing.T) {
	needOpenSSL(t)
	for was, is := range map[string]string{"172.18.0.2": "172.18.0.3", "fc00:f853:ccd:e793::2": "fc00:f853:ccd:e793::3"} {
		n := newNode(t, was, "a=URL")
		n.boots(was)
		n.certificateHas(was)
		n.boots(is)
		n.certificateHas(is)
		if s := n.read("/etc/kubernetes/manifests/etcd.yaml"); strings.Contains(s, was) || strings.Count(s, is) != 2 {
			t.Errorf("etcd: %s", s)
		}
		if s := n.read("/etc/kubernetes/kubelet.conf"); s != "server: "+was+"1\n" {
			t.Errorf("an address of which the old one is a part: %s", s)
		}
		n.boots(was)
		n.certificateHas(was)
	}
}

func TestAWorkersKubeletMakesAnotherCertificate(t *testing.T) {
	n := newNode(t, "172.18.0.2", "a=URL")
	for _, path := range []string{"/etc/kubernetes/pki/ca.key", "/etc/kubernetes/manifests/etcd.yaml"} {
		if err := os.Remove(n.dir + path); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"crt", "key"} {
		n.write("/var/lib/kubelet/pki/kubelet."+name, "of the control plane's CA")
	}
	for _, address := range []string{"172.18.0.2", "172.18.0.2", "172.18.0.3"} {
		n.boots(address)
		for _, name := range []string{"crt", "key"} {
			if _, err := os.Stat(n.dir + "/var/lib/kubelet/pki/kubelet." + name); (err == nil) != (address == "172.18.0.2") {
				t.Errorf("at %s: kubelet.%s: %v", address, name, err)
			}
		}
	}
}

func TestWhatWasCutShortIsWrittenAtTheNextBoot(t *testing.T) {
	needOpenSSL(t)
	n := newNode(t, "172.18.0.2", "a=URL")
	n.boots("172.18.0.2")
	n.write("/bin/openssl", "#!/bin/sh\nexit 1\n")
	n.write("/bin/sed", "#!/bin/sh\nexit 1\n")
	if _, err := n.boot("172.18.0.3"); err == nil {
		t.Error("nothing is said of what could not be written")
	}
	for _, name := range []string{"openssl", "sed"} {
		if err := os.Remove(n.dir + "/bin/" + name); err != nil {
			t.Fatal(err)
		}
	}
	n.boots("172.18.0.3")
	n.certificateHas("172.18.0.3")
}

func TestSeveralMembersOfEtcdAreNotReaddressed(t *testing.T) {
	for name, change := range map[string]func(n node){
		"one that joined": func(n node) {
			n.write("/etc/kubernetes/manifests/etcd.yaml", "- --initial-cluster=a=https://172.18.0.9:2380,b=https://172.18.0.2:2380\n")
		},
		"the first": func(n node) { // whose manifest is as it was when it was alone
			n.write("/kind/kubewright.json", `{"cluster":"spec:\n  provider:\n    kind:\n      nodes:\n      - image: i\n        role: control-plane\n      - role: control-plane\n"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "172.18.0.2", "a=URL")
			change(n)
			before := n.read("/etc/kubernetes/manifests/etcd.yaml")
			n.boots("172.18.0.2")
			n.boots("172.18.0.3")
			if s := n.read("/kind/lost"); !strings.Contains(s, "172.18.0.2=172.18.0.3") {
				t.Errorf("it is lost as %q", s)
			}
			if s := n.read("/etc/kubernetes/manifests/etcd.yaml"); s != before {
				t.Errorf("etcd: %s", s)
			}
			n.boots("172.18.0.2")
			if _, err := os.Stat(n.dir + "/kind/lost"); err == nil {
				t.Error("with its old address it is lost yet")
			}
		})
	}
}
