// Package bundle holds artifacts by pinned digest: the binaries, images and upstream
// manifests that a cluster is made of.
//
// In go files and images ([Create]); out comes a folder of two things: lock.yaml, which
// names every artifact and its digest, and blobs/sha256/<hex>, one file per digest. From
// such a folder ([Open]) come sources of bytes that cannot be read to the end unless they
// are what the lock says, and images in containerd ([Bundle.Import]). Trust is the lock
// alone: it pins files and image manifests, a manifest pins its config and layers.
package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/hashicorp/go-multierror"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// What a lock says of itself.
const (
	APIVersion = "kubewright.dev/v1alpha1"
	Kind       = "ArtifactLock"
)

// Origins of the artifacts of a lock.
const (
	Built    = "built"    // compiled from source by whoever made the bundle
	Upstream = "upstream" // as the projects publish them
)

// Types of artifact.
const (
	File     = "file"
	Image    = "image"
	Manifest = "manifest" // objects for the API, YAML; the same for all platforms, and listed for each
)

// Lock names everything that comes from outside, each by its digest.
type Lock struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Origin     string     `json:"origin"` // built or upstream
	Artifacts  []Artifact `json:"artifacts"`
}

// Artifact is one file, one image or one manifest for one platform. Name and platform together are unique in a lock.
type Artifact struct {
	Name     string `json:"name"`              // kubelet; of an image its reference, registry.k8s.io/pause:3.10.2
	Type     string `json:"type"`              // file, image or manifest
	Version  string `json:"version,omitempty"` // v1.36.3; empty for an image, whose reference says it
	Platform string `json:"platform"`          // linux/amd64
	Digest   string `json:"digest"`            // sha256:<hex> of the file, or of the image's manifest
	Size     int64  `json:"size"`              // bytes of the file, or of all distinct blobs of the image with its manifest
	// Source of a file that upstream publishes; an image's name says it.
	Source *Source `json:"source,omitempty"`
	// Verified tells how the digest was known to be right when the lock was made: catalogue,
	// document, signature, tls, http, or several with a comma between. Empty: by whoever made the lock.
	Verified string `json:"verified,omitempty"`
}

// Source is where a file can be downloaded.
type Source struct {
	URL string `json:"url"`
	// Of a file that comes in an archive: the sha256:<hex> of the archive, and its path there.
	Archive string `json:"archive,omitempty"`
	Member  string `json:"member,omitempty"`
}

// How a digest was known to be right.
const (
	ByCatalogue = "catalogue" // the built-in catalogue, or one that the user named, holds it
	ByDocument  = "document"  // the cluster's document does
	BySignature = "signature" // the project has signed it
	ByTLS       = "tls"       // its registry or publisher said so, over TLS
	ByHTTP      = "http"      // a mirror said so, and anybody on the way could have
)

// String is how errors name the artifact: "kubelet v1.36.3".
func (a Artifact) String() string {
	if a.Version == "" {
		return a.Name
	}
	return a.Name + " " + a.Version
}

// ParseLock decodes a lock strictly and validates it; the error holds everything that is wrong.
func ParseLock(data []byte) (Lock, error) {
	var l Lock
	if err := yaml.UnmarshalStrict(data, &l); err != nil {
		return Lock{}, err
	}
	return l, l.Validate()
}

var (
	digestForm   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	platformForm = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)
)

// IsDigest tells sha256:<hex> from anything else.
func IsDigest(s string) bool { return digestForm.MatchString(s) }

// Validate reports everything that is wrong with the lock, each problem with its path.
func (l Lock) Validate() error {
	var errs *multierror.Error
	problem := func(path, format string, args ...any) {
		errs = multierror.Append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if l.APIVersion != APIVersion {
		problem("apiVersion", "is %q; write %q", l.APIVersion, APIVersion)
	}
	if l.Kind != Kind {
		problem("kind", "is %q; write %q", l.Kind, Kind)
	}
	if l.Origin != Built && l.Origin != Upstream {
		problem("origin", "is %q; write %q or %q", l.Origin, Built, Upstream)
	}
	seen := map[[2]string]bool{}
	for i, a := range l.Artifacts {
		at := fmt.Sprintf("artifacts[%d] (%s)", i, a)
		switch key := [2]string{a.Name, a.Platform}; {
		case a.Name == "":
			problem(at, "has no name")
		case seen[key]:
			problem(at, "is there twice for platform %s; keep one", a.Platform)
		default:
			seen[key] = true
		}
		switch a.Type {
		case File, Manifest:
			if !nameForm.MatchString(a.Name) { // it is part of a path on hosts
				problem(at, "is not a file's name: write kubelet, or cni/bridge, say")
			}
			if err := a.Source.validate(); err != nil {
				problem(at+".source", "%v", err)
			}
		case Image:
			// containerd and the kubelet know images by their full references only.
			if _, err := name.ParseReference(a.Name, name.StrictValidation); err != nil {
				problem(at, "%v; write a full reference such as registry.k8s.io/pause:3.10.2", err)
			}
		default:
			problem(at, "has type %q; write %q, %q or %q", a.Type, File, Image, Manifest)
		}
		if !platformForm.MatchString(a.Platform) {
			problem(at, "has platform %q; write one such as linux/amd64", a.Platform)
		}
		if !digestForm.MatchString(a.Digest) {
			problem(at, `has digest %q; write "sha256:" and 64 hex digits in lower case`, a.Digest)
		}
		if a.Size < 0 {
			problem(at, "has size %d; write its bytes", a.Size)
		}
	}
	return config.Errors(errs)
}

// validate looks at what tells where to go, and what to take there.
func (s *Source) validate() error {
	if s == nil {
		return nil
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil:
		return errors.New("url: write an http(s) address without a password")
	case (s.Archive == "") != (s.Member == ""):
		return errors.New("archive and member: write both, or neither")
	case s.Archive != "" && !digestForm.MatchString(s.Archive):
		return fmt.Errorf(`archive: %q: write "sha256:" and 64 hex digits in lower case`, s.Archive)
	case s.Member != "" && !filepath.IsLocal(s.Member):
		return fmt.Errorf("member: %q is not a path in an archive", s.Member)
	}
	return nil
}

// Bytes is the lock in its one canonical form: artifacts sorted by name, then platform.
func (l Lock) Bytes() []byte {
	l.Artifacts = slices.SortedFunc(slices.Values(l.Artifacts), func(a, b Artifact) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Platform, b.Platform))
	})
	data, err := yaml.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return data
}

// Find returns the artifact of that name for the platform.
func (l Lock) Find(name, platform string) (Artifact, bool) {
	for _, a := range l.Artifacts {
		if a.Name == name && a.Platform == platform {
			return a, true
		}
	}
	return Artifact{}, false
}

// Digest identifies the lock, and with it every byte that it pins. Comments and order do not count.
func (l Lock) Digest() string { return host.Digest(l.Bytes()) }

// errDamaged ends every report of bytes that are not what the lock says.
var errDamaged = errors.New("the bundle is damaged or was tampered with; make or fetch it again")
