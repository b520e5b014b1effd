package bundle

import (
	_ "embed"
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/blang/semver/v4"
	"github.com/hashicorp/go-multierror"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
)

// CatalogueKind is the kind of a catalogue's document; its apiVersion is [APIVersion].
const CatalogueKind = "Catalogue"

// Catalogue is what upstream publishes: addresses, versions and digests of the files of a node,
// and which versions go together. The head of catalogue.yaml describes the fields.
type Catalogue struct {
	APIVersion string                       `json:"apiVersion"`
	Kind       string                       `json:"kind"`
	Defaults   map[string]map[string]string `json:"defaults"` // v1.36: {runc: v1.4.3}
	Files      map[string]CatalogueFile     `json:"files"`
	Manifests  map[string]CatalogueManifest `json:"manifests,omitempty"`
}

// CatalogueFile is a file, or an archive of files, in all its versions.
type CatalogueFile struct {
	URL         string                       `json:"url"`
	Sum         string                       `json:"sum,omitempty"`         // .sha256: what the address of its digest adds to the URL
	Signature   string                       `json:"signature,omitempty"`   // .sig
	Certificate string                       `json:"certificate,omitempty"` // .cert
	Members     map[string]string            `json:"members,omitempty"`     // bin/ctr: ctr
	Versions    map[string]map[string]string `json:"versions"`              // v1.36.3: {amd64: sha256:<hex>}
}

// Download is a file to get, or an archive of files.
type Download struct {
	Type                    string `json:",omitempty"` // File, unless it says Manifest
	Name, Version, Platform string // containerd, v2.3.4, linux/amd64
	URL                     string // of a manifest also the path of a file
	ByDocument              bool   `json:",omitempty"` // it is the cluster's document that says so
	// Digest is the sha256:<hex> of what is at URL. Empty: the catalogue does not know the version,
	// and SumURL says it.
	Digest string
	// SumURL is of a file that holds the digest as hex; empty if none is published.
	SumURL string
	// SignatureURL and CertificateURL are both empty if nobody signs it.
	SignatureURL, CertificateURL string
	// Members are the files of an archive: from their paths there, as path.Clean gives them, to the names
	// of their artifacts. Nil: what is at URL is the artifact Name itself.
	Members map[string]string
}

// The files of a node: those that have the version of Kubernetes, and those that have their own.
var (
	ofKubernetes = []string{"kubelet", "kubectl"}
	ofTheirOwn   = []string{"containerd", "runc", "crictl", "cni-plugins"}
)

// nameForm is that of a file's artifact: its name is part of a path on hosts.
var nameForm = regexp.MustCompile(`^(cni/)?[a-z0-9][a-z0-9.-]*$`)

//go:embed catalogue.yaml
var builtIn []byte

// BuiltIn is the catalogue that comes with this kubewright.
func BuiltIn() *Catalogue {
	c, err := ParseCatalogue(builtIn)
	if err != nil {
		panic(err) // a test reads it
	}
	return c
}

// ParseCatalogue decodes a catalogue strictly and validates it; the error holds everything that is wrong.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	object, err := config.Object(data)
	if err != nil {
		return nil, err
	}
	if misfits := config.Misfits("", object, reflect.TypeFor[Catalogue]()); misfits != nil {
		return nil, config.Errors(&multierror.Error{Errors: misfits})
	}
	c := &Catalogue{}
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, err
	}
	return c, c.validate()
}

// Downloads are the files that a node needs for a version of Kubernetes (v1.36.3) on a platform (linux/amd64),
// always in the same order. versions overrides the defaults; its keys are containerd, runc, crictl and
// cni-plugins. What the catalogue does not hold is an error that says what it holds.
func (c *Catalogue) Downloads(kubernetes, platform string, versions map[string]string) ([]Download, error) {
	v, err := semver.Parse(strings.TrimPrefix(kubernetes, "v"))
	if err != nil {
		return nil, fmt.Errorf("%q is not a version of Kubernetes: write v1.36.3, say", kubernetes)
	}
	minor := fmt.Sprintf("v%d.%d", v.Major, v.Minor)
	defaults, ok := c.Defaults[minor]
	if !ok {
		return nil, fmt.Errorf("the catalogue does not hold Kubernetes %s, only %s", minor, sorted(c.Defaults))
	}
	var errs *multierror.Error
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if !slices.Contains(ofTheirOwn, name) {
			errs = multierror.Append(errs, fmt.Errorf("no version can be chosen for %q, only for %s", name, strings.Join(ofTheirOwn, ", ")))
		}
	}
	var downloads []Download
	for _, name := range slices.Concat(ofKubernetes, ofTheirOwn) {
		version := "v" + v.String()
		if slices.Contains(ofTheirOwn, name) {
			version = defaults[name]
			if chosen := versions[name]; chosen != "" {
				version = "v" + strings.TrimPrefix(chosen, "v")
			}
		}
		d, err := c.Files[name].download(name, version, platform)
		if err != nil {
			errs = multierror.Append(errs, err)
		}
		downloads = append(downloads, d)
	}
	if errs != nil {
		return nil, config.Errors(errs)
	}
	return downloads, nil
}

func (f CatalogueFile) download(name, version, platform string) (Download, error) {
	arch, linux := strings.CutPrefix(platform, "linux/")
	if !linux {
		return Download{}, fmt.Errorf("platform %q: nodes run Linux; write linux/amd64, say", platform)
	}
	d := Download{Name: name, Version: version, Platform: platform, URL: f.address(version, arch),
		Digest: f.Versions[version][arch], Members: f.Members}
	if f.Sum != "" {
		d.SumURL = d.URL + f.Sum
	}
	if f.Signature != "" {
		d.SignatureURL, d.CertificateURL = d.URL+f.Signature, d.URL+f.Certificate
	}
	switch archs, known := f.Versions[version]; {
	case d.Digest != "" || d.SumURL != "":
	case known:
		return d, fmt.Errorf("the catalogue holds %s %s for %s only, not for %s", name, version, sorted(archs), arch)
	default:
		return d, fmt.Errorf("the catalogue does not hold %s %s, only %s", name, version, sorted(f.Versions))
	}
	return d, nil
}

func (f CatalogueFile) address(version, arch string) string {
	return strings.NewReplacer("{version}", strings.TrimPrefix(version, "v"), "{arch}", arch).Replace(f.URL)
}

// sorted lists the keys of a map, versions by their numbers.
func sorted[V any](m map[string]V) string {
	return strings.Join(slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		x, errX := semver.ParseTolerant(a)
		y, errY := semver.ParseTolerant(b)
		if errX != nil || errY != nil {
			return strings.Compare(a, b)
		}
		return x.Compare(y)
	}), ", ")
}

// validate reports everything that is wrong with the catalogue, each problem with its path.
func (c *Catalogue) validate() error {
	var errs *multierror.Error
	problem := func(path, format string, args ...any) {
		errs = multierror.Append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if c.APIVersion != APIVersion {
		problem("apiVersion", "is %q; write %q", c.APIVersion, APIVersion)
	}
	if c.Kind != CatalogueKind {
		problem("kind", "is %q; write %q", c.Kind, CatalogueKind)
	}
	if len(c.Defaults) == 0 {
		problem("defaults", "names no version of Kubernetes; write v1.36: {containerd: v2.3.4, ...}, say")
	}
	for _, minor := range slices.Sorted(maps.Keys(c.Defaults)) {
		at := "defaults." + minor
		if v, err := semver.ParseTolerant(minor); err != nil || minor != fmt.Sprintf("v%d.%d", v.Major, v.Minor) {
			problem(at, "is not a minor version; write v1.36, say")
		}
		for _, name := range slices.Sorted(maps.Keys(c.Defaults[minor])) {
			version := c.Defaults[minor][name]
			if !slices.Contains(ofTheirOwn, name) {
				problem(at+"."+name, "is not one of %s; take it away", strings.Join(ofTheirOwn, ", "))
			} else if _, ok := c.Files[name].Versions[version]; !ok {
				problem(at+"."+name, "%s is not one of files.%s.versions; write one of %s", version, name, sorted(c.Files[name].Versions))
			}
		}
		for _, name := range ofTheirOwn {
			if c.Defaults[minor][name] == "" {
				problem(at+"."+name, "is missing; write a version")
			}
		}
	}
	all := slices.Concat(ofKubernetes, ofTheirOwn)
	for _, name := range all {
		if _, ok := c.Files[name]; !ok {
			problem("files."+name, "is missing, and every node needs it")
		}
	}
	from := map[string]string{} // where an artifact comes from
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		if !slices.Contains(all, name) {
			problem("files."+name, "is not one of %s; take it away", strings.Join(all, ", "))
		}
		f := c.Files[name]
		f.validate("files."+name, problem)
		artifacts := []string{name}
		if len(f.Members) > 0 {
			artifacts = slices.Sorted(maps.Values(f.Members))
		}
		for _, a := range artifacts {
			if other, ok := from[a]; ok {
				problem("files."+name, "gives %q, and so does files.%s; keep one", a, other)
			}
			from[a] = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Manifests)) {
		c.Manifests[name].validate("manifests."+name, name, problem)
		if other, ok := from[name]; ok {
			problem("manifests."+name, "gives %q, and so does files.%s; keep one", name, other)
		}
	}
	return config.Errors(errs)
}

func (f CatalogueFile) validate(at string, problem func(path, format string, args ...any)) {
	filled := f.address("v1.2.3", "amd64")
	if u, err := url.Parse(filled); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.ContainsAny(filled, "{}") {
		problem(at+".url", "is %q; write an http or https address with {version} and {arch}", f.URL)
	} else if !strings.Contains(f.URL, "{version}") {
		problem(at+".url", "%s is the same for every version; write {version} where it differs", f.URL)
	}
	if archive := strings.HasSuffix(f.URL, ".tar.gz") || strings.HasSuffix(f.URL, ".tgz"); archive != (len(f.Members) > 0) {
		problem(at+".members", "go with a url that ends in .tar.gz or .tgz, and with no other")
	}
	if (f.Signature == "") != (f.Certificate == "") {
		problem(at, "signature and certificate go together; write both, or neither")
	}
	for _, x := range [][2]string{{"sum", f.Sum}, {"signature", f.Signature}, {"certificate", f.Certificate}} {
		if x[1] != "" && !strings.HasPrefix(x[1], ".") {
			problem(at+"."+x[0], "is %q; write what its address adds to the url, such as .sha256", x[1])
		}
	}
	for _, member := range slices.Sorted(maps.Keys(f.Members)) {
		if clean := path.Clean(member); member != clean || !filepath.IsLocal(clean) {
			problem(at+".members", "%q is no path in an archive; write one such as bin/ctr", member)
		}
		if !nameForm.MatchString(f.Members[member]) {
			problem(at+".members."+member, "%q is no name of a file here; write one such as ctr or cni/bridge", f.Members[member])
		}
	}
	if len(f.Versions) == 0 {
		problem(at+".versions", "holds none")
	}
	for _, version := range slices.Sorted(maps.Keys(f.Versions)) {
		if _, err := semver.Parse(strings.TrimPrefix(version, "v")); err != nil || !strings.HasPrefix(version, "v") {
			problem(at+".versions", "%q is not a version; write one such as v1.36.3", version)
		}
		switch archs := f.Versions[version]; {
		case len(archs) == 0:
			problem(at+".versions."+version, "has no digest")
		case len(archs) > 1 && !strings.Contains(f.URL, "{arch}"):
			problem(at+".versions."+version, "is for %s, and the url is the same for all; write {arch} where it differs", sorted(archs))
		}
		for _, arch := range slices.Sorted(maps.Keys(f.Versions[version])) {
			if !platformForm.MatchString("linux/" + arch) {
				problem(at+".versions."+version, "%q is not an architecture; write amd64 or arm64", arch)
			}
			if digest := f.Versions[version][arch]; !digestForm.MatchString(digest) {
				problem(at+".versions."+version+"."+arch, `has digest %q; write "sha256:" and 64 hex digits in lower case`, digest)
			}
		}
	}
}
