package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/blang/semver/v4"
)

// VersionedArtifacts are the names that spec.artifacts.versions knows.
var VersionedArtifacts = []string{"containerd", "runc", "crictl", "cni-plugins"}

// AnyRegistry as the host of a [Registry] stands for every one that has no entry of its own.
const AnyRegistry = "*"

// normalise gives addresses the one form in which they are used: mirrors with their scheme,
// and none with a slash at its end.
func (a *Artifacts) normalise() {
	a.Mirror = strings.TrimRight(a.Mirror, "/")
	for _, r := range a.Registries {
		for i, m := range r.Mirrors {
			if !strings.Contains(m, "://") && m != "" {
				m = "https://" + m
			}
			r.Mirrors[i] = strings.TrimRight(m, "/")
		}
	}
}

// Clone shares nothing with a.
func (a Artifacts) Clone() Artifacts {
	a.Versions = maps.Clone(a.Versions)
	a.Registries = slices.Clone(a.Registries)
	for i := range a.Registries {
		a.Registries[i].Mirrors = slices.Clone(a.Registries[i].Mirrors)
	}
	return a
}

// Complete brings addresses to their one form, and reports everything that is wrong.
func (a *Artifacts) Complete() error {
	a.normalise()
	var p problems
	p.artifacts(*a)
	return Errors(p.all)
}

// MirrorHosts are the HOST[:PORT] of a registry's mirrors, in their order.
func (r Registry) MirrorHosts() (hosts []string) {
	for _, m := range r.Mirrors {
		if u, err := url.Parse(m); err == nil {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}

func (p *problems) artifacts(a Artifacts) {
	if a.Mirror != "" {
		p.address("spec.artifacts.mirror", a.Mirror)
	}
	p.ca("spec.artifacts.ca", a.CA)
	for _, name := range slices.Sorted(maps.Keys(a.Versions)) {
		at, v := "spec.artifacts.versions."+name, a.Versions[name]
		if !slices.Contains(VersionedArtifacts, name) {
			p.add(at, "is unknown: write one of %s", strings.Join(VersionedArtifacts, ", "))
		} else if _, err := semver.Parse(strings.TrimPrefix(v, "v")); err != nil || !strings.HasPrefix(v, "v") {
			p.add(at, "%q is not a version: write v1.2.3, say", v)
		}
	}
	hosts := map[string]int{}
	for i, r := range a.Registries {
		at := fmt.Sprintf("spec.artifacts.registries[%d]", i)
		if err := checkRegistry(r.Host); err != nil {
			p.add(at+".host", "%v", err)
		}
		if j, ok := hosts[r.Host]; ok {
			p.add(at+".host", "%q is the host of spec.artifacts.registries[%d] already: list all its mirrors there", r.Host, j)
		}
		hosts[r.Host] = i
		p.mirrors(at+".mirrors", r.Mirrors)
		p.ca(at+".ca", r.CA)
	}
}

// Docker's own registry is named after its web site in images, whatever its servers are called.
var namesOfDockerHub = []string{"hub.docker.com", "index.docker.io", "registry-1.docker.io"}

// checkRegistry looks at what names a registry: it must be what stands in the names of images.
func checkRegistry(s string) error {
	if s == AnyRegistry {
		return nil
	}
	if slices.Contains(namesOfDockerHub, s) {
		return fmt.Errorf("%q: write docker.io, as in the names of images", s)
	}
	host, port, err := SplitEndpoint(s, 443)
	bare := host
	if strings.Contains(host, ":") {
		bare = "[" + host + "]"
	}
	if err != nil || s != bare && s != net.JoinHostPort(host, strconv.Itoa(int(port))) {
		return fmt.Errorf("%q: write HOST or HOST:PORT, as in the names of images, or \"*\" for every other registry", s)
	}
	return nil
}

// prefixForm is that of a repository's name.
var prefixForm = regexp.MustCompile(`^(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)

func (p *problems) mirrors(path string, mirrors []string) {
	if len(mirrors) == 0 {
		p.add(path, "there is none: write the addresses of mirrors, https://harbor.example.com/k8s, say")
	}
	for i, m := range mirrors {
		at := fmt.Sprintf("%s[%d]", path, i)
		u := p.address(at, m)
		switch {
		case u == nil:
		case u.Path == "/v2" || strings.HasPrefix(u.Path, "/v2/"):
			p.add(at, "%q: leave out /v2, which every registry has: write %s://%s%s", m, u.Scheme, u.Host, strings.TrimPrefix(u.Path, "/v2"))
		case !prefixForm.MatchString(u.Path):
			p.add(at, "%q: after the host comes the beginning of repositories' names, in lower case: write https://harbor.example.com/k8s, say", m)
		case slices.Contains(mirrors[:i], m):
			p.add(at, "%q is there already: keep one", m)
		}
	}
}

// address checks the URL of a mirror, and returns nil where something is wrong with it. One
// that may hold a password is not quoted.
func (p *problems) address(path, s string) *url.URL {
	u, err := url.Parse(s)
	wrong := err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != ""
	switch {
	case err == nil && u.User != nil, wrong && strings.Contains(s, "@"):
		p.add(path, "holds a user name or a password: leave it out, and write it with `docker login` into Docker's config, which is read on each host")
		return nil
	case wrong:
		p.add(path, "%q is not a web address: write https://mirror.example.com, say", s)
		return nil
	case strings.ContainsAny(s, "?#"):
		p.add(path, "has a query or a fragment: leave out what begins with ? or #")
		return nil
	}
	if _, _, err := SplitEndpoint(u.Host, 443); err != nil {
		p.add(path, "%q: %v", s, err)
		return nil
	}
	return u
}

func (p *problems) ca(path, s string) {
	if err := checkCA(s); s != "" && err != nil {
		p.add(path, "%v", err)
	}
}

// checkCA takes certificates in PEM, and nothing else beside comments.
func checkCA(s string) error {
	if strings.Contains(s, "PRIVATE KEY") {
		return errors.New("holds a private key, which is nobody's business here: write the certificates alone, and take that key for known to others")
	}
	found := false
	for block, rest := pem.Decode([]byte(s)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %s: write certificates alone", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("holds a certificate that cannot be read: %w", err)
		}
		found = true
	}
	if !found {
		return errors.New("holds no certificate in PEM: write what begins with -----BEGIN CERTIFICATE-----")
	}
	return nil
}
