package bundle

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/host"
)

const kubeletPath = "/dl.example.test/kubelet"

// signedUpstream is a tiny upstream whose kubelet and kubectl have their signatures beside them, and their sums. The
// remote has it as a mirror, and trusts the authority.
func signedUpstream(t *testing.T, o faulty.Options) (s *faulty.Server, c *Catalogue, folder string, ours *sigstore, r *Remote) {
	t.Helper()
	s, c, folder = tinyUpstreamAt(t, o)
	ours = newSigstore(t)
	for _, name := range ofKubernetes {
		f := c.Files[name]
		f.Sum, f.Signature, f.Certificate = ".sha256", ".sig", ".cert"
		c.Files[name] = f
		content := contentOf(t, filepath.Join(folder, name))
		publish(t, filepath.Join(folder, name+".sha256"), sumOf(content))
		publishSignature(t, filepath.Join(folder, name), ours, releaseIdentity, content)
	}
	r = remoteOf(t, config.Artifacts{Mirror: s.URL, CA: string(s.CA)})
	r.trusted = func() (root.TrustedMaterial, error) { return ours, nil }
	return s, c, folder, ours, r
}

func publish(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func sumOf(content []byte) []byte {
	return []byte(strings.TrimPrefix(host.Digest(content), "sha256:") + "\n")
}

// publishSignature of some content beside a file.
func publishSignature(t *testing.T, file string, by *sigstore, identity string, content []byte) {
	t.Helper()
	key := newKey(t)
	sum, err := hex.DecodeString(strings.TrimPrefix(host.Digest(content), "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, file+".sig", []byte(base64.StdEncoding.EncodeToString(sig)))
	cert := by.certify(t, leaf(identity, releaseIssuer), leaf(identity, releaseIssuer), key.Public())
	publish(t, file+".cert", []byte(base64.StdEncoding.EncodeToString(cert)))
}

// nothingOf fails where the cache has something of a blob, or something that is not what its name says.
func nothingOf(t *testing.T, c *Cache, digest string) {
	t.Helper()
	for _, f := range files(t, filepath.Join(c.dir, blobsDir)) {
		if strings.HasSuffix(f, strings.TrimPrefix(digest, "sha256:")) {
			t.Errorf("%s is kept", f)
		}
	}
	honest(t, c)
}

// honest fails where a blob of the cache is not what its name says.
func honest(t *testing.T, c *Cache) {
	t.Helper()
	for _, f := range files(t, filepath.Join(c.dir, blobsDir)) {
		if strings.HasPrefix(f, partialPrefix) { // by a download that was called off
			continue
		}
		if host.Digest(contentOf(t, filepath.Join(c.dir, blobsDir, f))) != "sha256:"+f {
			t.Errorf("%s is in the cache with other bytes", f)
		}
	}
}

func TestResolveChecksASignatureWhereThereIsOne(t *testing.T) {
	for name, x := range map[string]struct {
		change   func(s *faulty.Server, kubelet string, ours *sigstore)
		verified string   // of the kubelet
		want     []string // of the error
	}{
		"good": {verified: "catalogue,signature"},
		"none": {change: func(_ *faulty.Server, kubelet string, _ *sigstore) {
			os.Remove(kubelet + ".sig")
			os.Remove(kubelet + ".cert")
		}, verified: "catalogue"},
		"none, though there is a certificate": {change: func(_ *faulty.Server, kubelet string, _ *sigstore) { os.Remove(kubelet + ".sig") }, verified: "catalogue"},
		"over another digest": {change: func(_ *faulty.Server, kubelet string, ours *sigstore) {
			publishSignature(t, kubelet, ours, releaseIdentity, []byte("another kubelet"))
		}, want: []string{kubeletPath + ".sig", "the signature is not of sha256:", "somebody has changed it or the file"}},
		"by somebody else": {change: func(_ *faulty.Server, kubelet string, ours *sigstore) {
			publishSignature(t, kubelet, ours, "somebody@example.org", []byte("this is kubelet"))
		}, want: []string{kubeletPath + ".sig", `of the identity "somebody@example.org"`, "somebody has changed it or the file"}},
		"by another authority": {change: func(_ *faulty.Server, kubelet string, _ *sigstore) {
			publishSignature(t, kubelet, newSigstore(t), releaseIdentity, []byte("this is kubelet"))
		}, want: []string{kubeletPath + ".sig", "no certificate authority of the trusted root", "somebody has changed it or the file"}},
		"a mirror that fails for it": {change: func(s *faulty.Server, _ string, _ *sigstore) {
			s.Break(kubeletPath+".sig", faulty.Fault{Status: 500})
		}, want: []string{kubeletPath + ".sig: 500 Internal Server Error (tried 5 times)"}},
		"a mirror that fails for the certificate": {change: func(s *faulty.Server, _ string, _ *sigstore) {
			s.Break(kubeletPath+".cert", faulty.Fault{Status: 403})
		}, want: []string{kubeletPath + ".cert: 403 Forbidden"}},
		"one that is far too long": {change: func(_ *faulty.Server, kubelet string, _ *sigstore) {
			publish(t, kubelet+".sig", make([]byte, 1<<20))
		}, want: []string{kubeletPath + ".sig: has more than 65536 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, catalogue, folder, ours, r := signedUpstream(t, faulty.Options{})
			if x.change != nil {
				x.change(s, filepath.Join(folder, "kubelet"), ours)
			}
			c := newCache(t)
			l, err := c.Resolve(context.Background(), Wish{Kubernetes: "v1.36.3", Platforms: []string{amd64}}, catalogue, r, nil)
			if x.want != nil {
				refused(t, err, append(x.want, "kubelet v1.36.3: ", s.URL)...)
				nothingOf(t, c, host.Digest([]byte("this is kubelet")))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, verified := range map[string]string{"kubelet": x.verified, "kubectl": "catalogue,signature", "runc": "catalogue"} {
				if a, _ := l.Find(name, amd64); a.Verified != verified {
					t.Errorf("%s is verified by %q, should be %q", name, a.Verified, verified)
				}
			}
		})
	}
}

// refused fails where an error lacks one of some words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v\nlacks %q", err, w)
		}
	}
}

// v1.36.9 is not in the catalogue: its digest is asked for, and counts for what the way that it came is worth.
func TestResolveOfAVersionThatTheCatalogueDoesNotKnow(t *testing.T) {
	kubelet := []byte("this is kubelet")
	for name, x := range map[string]struct {
		plain    bool
		change   func(s *faulty.Server, c *Catalogue, file string, r *Remote)
		verified string
		want     []string
	}{
		"signed too": {verified: "tls,signature"},
		"not signed": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) { os.Remove(file + ".sig") }, verified: "tls"},
		"with the name of the file behind it": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) {
			publish(t, file+".sha256", []byte(strings.TrimSpace(string(sumOf(kubelet)))+"  kubelet\n"))
		}, verified: "tls,signature"},
		"without TLS":                {plain: true, want: []string{"without TLS is worth nothing", "a mirror with https"}},
		"without TLS, and no mirror": {plain: true, change: ownAddresses, want: []string{"without TLS is worth nothing", "catalogue of your own"}},
		"over TLS, and no mirror":    {change: ownAddresses, verified: "tls,signature"},
		"not there": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) { os.Remove(file + ".sha256") },
			want: []string{kubeletPath + ".sha256: not found there: is there such a version?"}},
		"no sum": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) {
			publish(t, file+".sha256", []byte("<html>kubelet</html>"))
		}, want: []string{kubeletPath + ".sha256 does not begin with a sha256", "--mirror"}},
		"a sum that is too long": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) {
			publish(t, file+".sha256", []byte(strings.Repeat("a", 128)))
		}, want: []string{kubeletPath + ".sha256 does not begin with a sha256"}},
		"of other bytes": {change: func(_ *faulty.Server, _ *Catalogue, file string, _ *Remote) {
			os.Remove(file + ".sig")
			publish(t, file+".sha256", sumOf([]byte("other")))
		}, want: []string{kubeletPath + ": 15 bytes have digest " + host.Digest(kubelet), errWrong.Error()}},
		"redirected away from TLS": {change: func(s *faulty.Server, _ *Catalogue, _ string, _ *Remote) {
			s.Break(kubeletPath+".sha256", faulty.Fault{Redirect: "http://127.0.0.1:1/kubelet.sha256"})
		}, want: []string{"redirected to http://127.0.0.1:1/kubelet.sha256, which is not secure"}},
		"a server that falls silent": {change: func(s *faulty.Server, _ *Catalogue, _ string, r *Remote) {
			r.stall = 20 * time.Millisecond
			s.Break(kubeletPath+".sha256", faulty.Fault{Trickle: 1, Pause: time.Hour})
		}, want: []string{kubeletPath + ".sha256: nothing came for 20ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, catalogue, folder, _, r := signedUpstream(t, faulty.Options{TLS: !x.plain})
			if x.change != nil {
				x.change(s, catalogue, filepath.Join(folder, "kubelet"), r)
			}
			c := newCache(t)
			l, err := c.Resolve(context.Background(), Wish{Kubernetes: "v1.36.9", Platforms: []string{amd64}}, catalogue, r, nil)
			if x.plain && len(s.Requests(kubeletPath+".sha256")) > 0 {
				t.Error("it was asked without TLS")
			}
			if x.want != nil {
				refused(t, err, append(x.want, "v1.36.9: ")...)
				nothingOf(t, c, host.Digest(kubelet))
				if errors.Is(err, errWrong) {
					nothingOf(t, c, host.Digest([]byte("other")))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a, _ := l.Find("kubelet", amd64); a.Verified != x.verified || a.Digest != host.Digest(kubelet) {
				t.Errorf("is verified by %q, should be %q", a.Verified, x.verified)
			}
		})
	}
}

// ownAddresses has a catalogue name the server itself, instead of a mirror.
func ownAddresses(s *faulty.Server, c *Catalogue, _ string, r *Remote) {
	for name, f := range c.Files {
		f.URL = strings.Replace(f.URL, "https:/", s.URL, 1)
		c.Files[name] = f
	}
	r.mirror = ""
}
