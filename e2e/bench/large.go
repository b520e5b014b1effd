package bench

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubewright/kubewright/e2e/servers"
)

// largeImage is what a bundle holds beside a cluster's own images where it has to be large.
const largeImage = "registry.k8s.io/large:v1"

// pushLarge gives a registry the large image: six layers of noise.
func pushLarge(ctx context.Context, registry *servers.Registry, size int64) error {
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return err
	}
	const layers = 6
	for i := range layers {
		layer, err := newNoise(byte(i), size/layers)
		if err != nil {
			return err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return err
		}
	}
	ref, err := name.ParseReference(strings.Replace(largeImage, "registry.k8s.io", registry.Address+"/all", 1))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(registry.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	return remote.Write(ref, img, remote.WithContext(ctx), remote.WithTransport(transport),
		remote.WithAuth(&authn.Basic{Username: registry.User, Password: registry.Password}))
}

// noise is a layer that nobody will unpack: bytes that cannot be compressed, made while they are read.
type noise struct {
	seed byte
	size int64
	hash v1.Hash
}

func newNoise(seed byte, size int64) (noise, error) {
	n := noise{seed: seed, size: size}
	h := sha256.New()
	r, err := n.Compressed()
	if err != nil {
		return n, err
	}
	if _, err := io.Copy(h, r); err != nil {
		return n, err
	}
	n.hash = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return n, nil
}

func (n noise) Digest() (v1.Hash, error)             { return n.hash, nil }
func (n noise) DiffID() (v1.Hash, error)             { return n.hash, nil }
func (n noise) Size() (int64, error)                 { return n.size, nil }
func (n noise) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (n noise) Uncompressed() (io.ReadCloser, error) { return n.Compressed() }
func (n noise) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(rand.NewChaCha8([32]byte{n.seed}), n.size)), nil
}
