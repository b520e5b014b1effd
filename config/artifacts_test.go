package config

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// certificate is one in PEM.
func certificate(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestValidateOfArtifacts(t *testing.T) {
	good := certificate(t)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	request := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}))
	damaged := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	const secret = "hunter2"
	credentials := "holds a user name or a password: leave it out, and write it with `docker login` into Docker's config, which is read on each host"
	for name, tt := range map[string]struct {
		a    Artifacts
		want string
	}{
		"nothing": {Artifacts{}, ""},
		"everything": {Artifacts{Mirror: "http://mirror.example.com:8080/a/B/", CA: "# ours\n" + good + good,
			Versions: map[string]string{"containerd": "v2.3.7", "runc": "v1.4.0-rc.1", "crictl": "v1.36.0", "cni-plugins": "v1.9.0"},
			Registries: []Registry{
				{Host: "registry.k8s.io", Mirrors: []string{"https://harbor.example.com/k8s", "http://192.0.2.1:5000", "harbor.example.com", "[fd00::1]:5000/a/b-c"}, CA: good, Exclusive: true},
				{Host: "*", Mirrors: []string{"harbor.example.com/all/"}}, {Host: "localhost:5000", Mirrors: []string{"a"}}, {Host: "[::1]:5000", Mirrors: []string{"a"}},
			}}, ""},

		"mirror of another kind":   {Artifacts{Mirror: "ftp://a/b"}, `spec.artifacts.mirror: "ftp://a/b" is not a web address: write https://mirror.example.com, say`},
		"mirror without scheme":    {Artifacts{Mirror: "a/b"}, `spec.artifacts.mirror: "a/b" is not a web address: write https://mirror.example.com, say`},
		"mirror without host":      {Artifacts{Mirror: "https:///b"}, `spec.artifacts.mirror: "https:///b": "" is neither HOST nor HOST:PORT: write a DNS name or an IP address, and a port if it is not 443`},
		"mirror's port":            {Artifacts{Mirror: "https://a:0"}, `spec.artifacts.mirror: "https://a:0": "a:0": the port must be a number from 1 to 65535`},
		"mirror with a query":      {Artifacts{Mirror: "https://a/b?sig=" + secret}, "spec.artifacts.mirror: has a query or a fragment: leave out what begins with ? or #"},
		"mirror with a fragment":   {Artifacts{Mirror: "https://a/b#c"}, "spec.artifacts.mirror: has a query or a fragment: leave out what begins with ? or #"},
		"mirror with a password":   {Artifacts{Mirror: "https://u:" + secret + "@a"}, "spec.artifacts.mirror: " + credentials},
		"mirror, password, broken": {Artifacts{Mirror: "https://u:" + secret + "@a:x"}, "spec.artifacts.mirror: " + credentials},
		"mirror, password, typo":   {Artifacts{Mirror: "https//u:" + secret + "@a"}, "spec.artifacts.mirror: " + credentials},

		"CA of nothing":  {Artifacts{CA: "/etc/ca.crt"}, "spec.artifacts.ca: holds no certificate in PEM: write what begins with -----BEGIN CERTIFICATE-----"},
		"CA and its key": {Artifacts{CA: good + key}, "spec.artifacts.ca: holds a private key, which is nobody's business here: write the certificates alone, and take that key for known to others"},
		"CA, a request":  {Artifacts{CA: request}, "spec.artifacts.ca: holds a CERTIFICATE REQUEST: write certificates alone"},
		"CA, damaged":    {Artifacts{CA: good + damaged}, "spec.artifacts.ca: holds a certificate that cannot be read: x509: malformed certificate"},

		"version of another": {Artifacts{Versions: map[string]string{"etcd": "v3.6.8"}}, "spec.artifacts.versions.etcd: is unknown: write one of containerd, runc, crictl, cni-plugins"},
		"version without v":  {Artifacts{Versions: map[string]string{"runc": "1.4.0"}}, `spec.artifacts.versions.runc: "1.4.0" is not a version: write v1.2.3, say`},
		"version of two":     {Artifacts{Versions: map[string]string{"runc": "v1.4"}}, `spec.artifacts.versions.runc: "v1.4" is not a version: write v1.2.3, say`},

		"registries": {Artifacts{Registries: []Registry{
			{Host: "https://registry.k8s.io", Mirrors: []string{"a"}}, {Host: "quay.io/x", Mirrors: []string{"a"}}, {Host: "..", Mirrors: []string{"a"}}, {Host: "fd00::1", Mirrors: []string{"a"}},
			{Host: "quay.io:0443", Mirrors: []string{"a"}}, {Host: "", Mirrors: []string{"a"}}, {Host: "a"}, {Host: "a", Mirrors: []string{"a"}}, {Host: "registry-1.docker.io", Mirrors: []string{"a"}},
		}}, `9 problems:
  - spec.artifacts.registries[0].host: "https://registry.k8s.io": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[1].host: "quay.io/x": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[2].host: "..": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[3].host: "fd00::1": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[4].host: "quay.io:0443": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[5].host: "": write HOST or HOST:PORT, as in the names of images, or "*" for every other registry
  - spec.artifacts.registries[6].mirrors: there is none: write the addresses of mirrors, https://harbor.example.com/k8s, say
  - spec.artifacts.registries[7].host: "a" is the host of spec.artifacts.registries[6] already: list all its mirrors there
  - spec.artifacts.registries[8].host: "registry-1.docker.io": write docker.io, as in the names of images`},
		"mirrors of a registry": {Artifacts{Registries: []Registry{{Host: "a", CA: "x", Mirrors: []string{
			"u:" + secret + "@a", "https://harbor.example.com/v2/k8s", "a/K8s", "a/b/../c", "b", "https://b/", "", "a b", "oci://a", "a?b", "a/%2e%2e",
		}}}}, `11 problems:
  - spec.artifacts.registries[0].ca: holds no certificate in PEM: write what begins with -----BEGIN CERTIFICATE-----
  - spec.artifacts.registries[0].mirrors[0]: ` + credentials + `
  - spec.artifacts.registries[0].mirrors[10]: "https://a/%2e%2e": after the host comes the beginning of repositories' names, in lower case: write https://harbor.example.com/k8s, say
  - spec.artifacts.registries[0].mirrors[1]: "https://harbor.example.com/v2/k8s": leave out /v2, which every registry has: write https://harbor.example.com/k8s
  - spec.artifacts.registries[0].mirrors[2]: "https://a/K8s": after the host comes the beginning of repositories' names, in lower case: write https://harbor.example.com/k8s, say
  - spec.artifacts.registries[0].mirrors[3]: "https://a/b/../c": after the host comes the beginning of repositories' names, in lower case: write https://harbor.example.com/k8s, say
  - spec.artifacts.registries[0].mirrors[5]: "https://b" is there already: keep one
  - spec.artifacts.registries[0].mirrors[6]: "" is not a web address: write https://mirror.example.com, say
  - spec.artifacts.registries[0].mirrors[7]: "https://a b" is not a web address: write https://mirror.example.com, say
  - spec.artifacts.registries[0].mirrors[8]: "oci://a" is not a web address: write https://mirror.example.com, say
  - spec.artifacts.registries[0].mirrors[9]: has a query or a fragment: leave out what begins with ? or #`},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Cluster{Spec: Spec{Artifacts: tt.a}}
			c.Default(Versions{})
			got := fmt.Sprint(c.Validate())
			if tt.want == "" {
				tt.want = "<nil>"
				survives(t, c)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got, secret) {
				t.Error("the password is in the error")
			}
		})
	}
}

func TestMirrorsAreURLsOnceDefaulted(t *testing.T) {
	c := document(t, `spec: {artifacts: {mirror: "https://m/x/", registries: [{host: "*", mirrors: ["a:5000/b/", "http://c/"]}]}}`)
	printed, err := c.Print()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mirror: https://m/x\n", "- https://a:5000/b\n", "- http://c\n"} {
		if !bytes.Contains(printed, []byte(want)) {
			t.Errorf("no %q in\n%s", want, printed)
		}
	}
	if diff := cmp.Diff([]string{"a:5000", "c"}, c.Spec.Artifacts.Registries[0].MirrorHosts()); diff != "" {
		t.Error(diff)
	}
}
