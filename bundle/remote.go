package bundle

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/kubewright/kubewright/config"
)

// Remote is where artifacts are published, or the mirrors that take its place.
type Remote struct {
	mirror     string // without a slash at the end; empty: the addresses of the catalogue and of locks
	files      *http.Client
	registries []mirrored
	keychain   authn.Keychain
	trusted    func() (root.TrustedMaterial, error) // who signs

	pause time.Duration // before the first retry; each later one waits twice as long
	stall time.Duration // how long a server may send nothing

	// Clients of registries, by repository: each costs a greeting, and often a token.
	clients   sync.Map
	greetings singleflight.Group
}

// mirrored is config.Registry with the client that trusts its CA.
type mirrored struct {
	config.Registry
	transport http.RoundTripper
}

// NewRemote reads where artifacts come from. Credentials for registries are asked of the
// keychain by the registry's host; authn.DefaultKeychain has those of `docker login`. Proxies are
// those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func NewRemote(a config.Artifacts, keychain authn.Keychain) (*Remote, error) {
	r := &Remote{
		mirror:   strings.TrimSuffix(a.Mirror, "/"),
		keychain: keychain,
		trusted:  publicGood,
		pause:    250 * time.Millisecond, stall: time.Minute,
	}
	t, err := newTransport(a.CA, &r.stall)
	if err != nil {
		return nil, fmt.Errorf("spec.artifacts.ca: %w", err)
	}
	r.files = &http.Client{Transport: t, CheckRedirect: noDowngrade}
	for i, x := range a.Registries {
		t, err := newTransport(x.CA, &r.stall)
		if err != nil {
			return nil, fmt.Errorf("spec.artifacts.registries[%d].ca: %w", i, err)
		}
		r.registries = append(r.registries, mirrored{x, t})
	}
	return r, nil
}

// newTransport is http.DefaultTransport, which knows proxies, with a CA beside the system's.
func newTransport(ca string, stall *time.Duration) (http.RoundTripper, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // lengths and ranges are those of the file
	t.MaxIdleConnsPerHost = parallel
	// Of each download: the default of 4 MiB is too much of the memory that a bundle may take.
	t.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20}
	if ca == "" {
		return stalling{t, stall}, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("holds no certificate: write it in PEM")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return stalling{t, stall}, nil
}

// noDowngrade keeps what began over TLS there.
func noDowngrade(req *http.Request, via []*http.Request) error {
	if len(via) > 10 {
		return errors.New("redirected more than ten times")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirected to %s, which is not secure", req.URL.Redacted())
	}
	return nil
}

// address of what upstream has at url.
func (r *Remote) address(upstream string) (string, error) {
	if r.mirror == "" {
		return upstream, nil
	}
	x, err := url.Parse(upstream)
	if err != nil {
		return "", err
	}
	return r.mirror + "/" + x.Host + x.EscapedPath(), nil
}

// isSecure tells that what comes from an address comes over TLS.
func isSecure(address string) bool { return strings.HasPrefix(address, "https:") }

// insecure tells that some mirror of images is asked without TLS.
func (r *Remote) insecure() bool {
	return slices.ContainsFunc(r.registries, func(x mirrored) bool {
		return slices.ContainsFunc(x.Mirrors, func(m string) bool { return !isSecure(m) })
	})
}

// errNowhere is what a server says of what it does not have.
var errNowhere = errors.New("not found there")

// get reads a small file; errNowhere where there is none.
func (r *Remote) get(ctx context.Context, address string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	var data []byte
	err = r.again(ctx, func() (bool, error) {
		resp, err := r.files.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if err := answered(resp); err != nil {
			return false, err
		}
		data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err == nil && int64(len(data)) > limit {
			err = finalError{fmt.Errorf("has more than %d bytes", limit)}
		}
		return false, err
	})
	return data, err
}

// location is one place that has a blob.
type location struct {
	url      string
	client   func(ctx context.Context) (*http.Client, error)
	accept   string
	optional bool // it need not have anything
}

// direct is the client of files.
func (r *Remote) direct(context.Context) (*http.Client, error) { return r.files, nil }

// fileLocations of a blob that was published at url, which may be empty.
func (r *Remote) fileLocations(digest, url string) ([]location, error) {
	var all []location
	if r.mirror != "" && digest != "" {
		all = append(all, location{url: r.mirror + "/" + blobsDir + "/" + strings.TrimPrefix(digest, "sha256:"), client: r.direct, optional: true})
	}
	if url != "" {
		at, err := r.address(url)
		if err != nil {
			return nil, err
		}
		all = append(all, location{url: at, client: r.direct})
	}
	return all, nil
}

// imageLocations of a blob of an image, in the order in which they are asked.
func (r *Remote) imageLocations(image, digest string, manifest bool) ([]location, error) {
	ref, err := name.ParseReference(image, name.StrictValidation)
	if err != nil {
		return nil, err
	}
	all, err := r.fileLocations(digest, "")
	if err != nil {
		return nil, err
	}
	endpoints, err := r.endpoints(ref)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		kind, accept := "blobs", ""
		if manifest {
			kind, accept = "manifests", string(types.OCIManifestSchema1)+", "+string(types.DockerManifestSchema2)
		}
		all = append(all, location{
			url:    fmt.Sprintf("%s://%s/v2/%s/%s/%s", e.scheme, e.repo.RegistryStr(), e.repo.RepositoryStr(), kind, digest),
			accept: accept,
			client: func(ctx context.Context) (*http.Client, error) { return r.client(ctx, e) },
		})
	}
	return all, nil
}

// hint says what may be missing where a file or an image cannot be had.
func (r *Remote) hint(err error, image string) error {
	switch {
	case err == nil || errors.Is(err, errWrong) || errors.Is(err, context.Canceled) || errors.Is(err, unix.ENOSPC):
		return err
	case image != "" && r.mirror != "" && len(r.registries) == 0:
		return fmt.Errorf("%w\n--mirror is for files: images come from their registry, or from one that --registry-mirror names", err)
	case image == "" && errors.Is(err, errNowhere):
		return fmt.Errorf("%w\ndoes the mirror have this version? spec.artifacts.versions and --catalogue choose others", err)
	}
	return fmt.Errorf("%w\nwithout a way there: --bundle, --mirror and --registry-mirror, or a proxy (HTTPS_PROXY)", err)
}

// endpoint is a repository that has an image: in a mirror, or in its own registry.
type endpoint struct {
	repo      name.Repository
	scheme    string // https, unless a mirror's address says http
	transport http.RoundTripper
}

// tlsOnly keeps the registry's library from trying without TLS what it takes for a private address.
type tlsOnly struct{ http.RoundTripper }

func (t tlsOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not secure: write its address with http:// where you mean it", req.URL.Redacted())
	}
	return t.RoundTripper.RoundTrip(req)
}

// endpoints of an image, mirrors first.
func (r *Remote) endpoints(ref name.Reference) ([]endpoint, error) {
	own := endpoint{ref.Context(), "https", tlsOnly{r.files.Transport}}
	set, ok := r.registryOf(ref.Context().RegistryStr())
	if !ok {
		return []endpoint{own}, nil
	}
	var all []endpoint
	for _, m := range set.Mirrors {
		x, err := url.Parse(m)
		if err != nil {
			return nil, err
		}
		var o []name.Option
		t := http.RoundTripper(tlsOnly{set.transport})
		if x.Scheme == "http" {
			o, t = append(o, name.Insecure), set.transport
		}
		repo, err := name.NewRepository(strings.Trim(x.Host+x.Path, "/")+"/"+ref.Context().RepositoryStr(), o...)
		if err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", m, set.Host, err)
		}
		all = append(all, endpoint{repo, x.Scheme, t})
	}
	if !set.Exclusive {
		all = append(all, own)
	}
	return all, nil
}

func (r *Remote) registryOf(host string) (mirrored, bool) {
	if host == name.DefaultRegistry { // index.docker.io, which nobody writes
		host = "docker.io"
	}
	var other mirrored
	var ok bool
	for _, x := range r.registries {
		switch x.Host {
		case host:
			return x, true
		case config.AnyRegistry:
			other, ok = x, true
		}
	}
	return other, ok
}

// client of an endpoint, which may pull.
func (r *Remote) client(ctx context.Context, e endpoint) (*http.Client, error) {
	key := e.scheme + " " + e.repo.Name()
	c, err, _ := r.greetings.Do(key, func() (any, error) {
		if have, ok := r.clients.Load(key); ok {
			return have, nil
		}
		made, err := r.greet(ctx, e)
		if err == nil {
			r.clients.Store(key, made)
		}
		return made, err
	})
	if err != nil {
		return nil, err
	}
	return c.(*http.Client), nil
}

func (r *Remote) greet(ctx context.Context, e endpoint) (*http.Client, error) {
	auth, err := authn.Resolve(ctx, r.keychain, e.repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", e.repo.RegistryStr(), err)
	}
	t, err := transport.NewWithContext(ctx, e.repo.Registry, auth, e.transport, []string{e.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: noDowngrade}, nil
}
