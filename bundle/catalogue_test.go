package bundle

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// find gives the download of that name.
func find(t *testing.T, ds []Download, name string) Download {
	t.Helper()
	for _, d := range ds {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no download of %s", name)
	return Download{}
}

func TestTheBuiltInCatalogueHasWhatANodeNeeds(t *testing.T) {
	want := strings.Fields(`cni/bandwidth cni/bridge cni/dhcp cni/dummy cni/firewall cni/host-device cni/host-local cni/ipvlan cni/loopback cni/macvlan
		cni/portmap cni/ptp cni/sbr cni/static cni/tap cni/tuning cni/vlan cni/vrf containerd containerd-shim-runc-v2 crictl ctr kubectl kubelet runc`)
	for _, kubernetes := range []string{"v1.34.0", "v1.35.4", "1.36.3"} {
		for _, platform := range []string{"linux/amd64", "linux/arm64"} {
			ds, err := BuiltIn().Downloads(kubernetes, platform, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range ds {
				if d.Platform != platform || !digestForm.MatchString(d.Digest) {
					t.Errorf("%s %s: %+v", kubernetes, platform, d)
				}
				if d.Members == nil {
					got = append(got, d.Name)
				}
				got = slices.AppendSeq(got, maps.Values(d.Members))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: %s", kubernetes, platform, diff)
			}
		}
	}
}

func TestDefaultsAreTheNewestOfTheCatalogue(t *testing.T) {
	c := BuiltIn()
	for minor, defaults := range c.Defaults {
		for name, version := range defaults {
			those := maps.Clone(c.Files[name].Versions)
			maps.DeleteFunc(those, func(v string, _ map[string]string) bool {
				return name == "crictl" && !strings.HasPrefix(v, minor+".") // goes with Kubernetes
			})
			all := sorted(those)
			if !strings.HasSuffix(", "+all, ", "+version) {
				t.Errorf("%s of Kubernetes %s is %s, of %s", name, minor, version, all)
			}
		}
	}
}

func TestADownloadSaysWhereAndWhat(t *testing.T) {
	ds, err := BuiltIn().Downloads("v1.36.3", "linux/arm64", map[string]string{"containerd": "2.2.7", "runc": ""})
	if err != nil {
		t.Fatal(err)
	}
	const kubelet = "https://dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet"
	for _, want := range []Download{{
		Name: "kubelet", Version: "v1.36.3", Platform: "linux/arm64", URL: kubelet,
		Digest: "sha256:57205a5daf5883873d87b4914e1e00bdd7707acd075714788cfb0fc1f60bc414",
		SumURL: kubelet + ".sha256", SignatureURL: kubelet + ".sig", CertificateURL: kubelet + ".cert",
	}, {
		Name: "containerd", Version: "v2.2.7", Platform: "linux/arm64",
		URL:     "https://github.com/containerd/containerd/releases/download/v2.2.7/containerd-2.2.7-linux-arm64.tar.gz",
		Digest:  "sha256:84eb0a161e20ad45465202fa2d6d93b3d9b74666c363e9908706d590a86e2618",
		Members: map[string]string{"bin/containerd": "containerd", "bin/containerd-shim-runc-v2": "containerd-shim-runc-v2", "bin/ctr": "ctr"},
	}, {
		Name: "runc", Version: "v1.4.3", Platform: "linux/arm64",
		URL:    "https://github.com/opencontainers/runc/releases/download/v1.4.3/runc.arm64",
		Digest: "sha256:633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4",
	}} {
		if diff := cmp.Diff(want, find(t, ds, want.Name)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAPatchReleaseThatTheCatalogueDoesNotKnowIsHeldToWhatIsPublished(t *testing.T) {
	ds, err := BuiltIn().Downloads("v1.36.99", "linux/amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := find(t, ds, "kubectl")
	if d.Digest != "" || d.SumURL != "https://dl.k8s.io/release/v1.36.99/bin/linux/amd64/kubectl.sha256" {
		t.Errorf("%+v", d)
	}
}

func TestWhatTheCatalogueDoesNotHoldIsAnErrorThatSaysWhatItHolds(t *testing.T) {
	for _, test := range []struct {
		kubernetes, platform string
		versions             map[string]string
		want                 []string
	}{
		{"v1.37.0", "linux/amd64", nil, []string{"does not hold Kubernetes v1.37, only v1.34, v1.35, v1.36"}},
		{"latest", "linux/amd64", nil, []string{`"latest" is not a version`}},
		{"v1.36.3", "windows/amd64", nil, []string{"nodes run Linux"}},
		{"v1.36.3", "linux/s390x", nil, []string{"the catalogue holds runc v1.4.3 for amd64, arm64 only, not for s390x", "containerd v2.3.4"}},
		{"v1.36.3", "linux/amd64", map[string]string{"runc": "v1.2.3", "kubelet": "v1.36.4", "containrd": "v2.3.4"}, []string{
			`no version can be chosen for "containrd", only for containerd, runc, crictl, cni-plugins`,
			`no version can be chosen for "kubelet"`,
			"does not hold runc v1.2.3, only v1.3.0, v1.3.1, v1.3.2, v1.3.3, v1.3.4, v1.3.5, v1.3.6, v1.4.0, v1.4.1, v1.4.2, v1.4.3",
		}},
	} {
		_, err := BuiltIn().Downloads(test.kubernetes, test.platform, test.versions)
		if err == nil {
			t.Errorf("%s %s %v: no error", test.kubernetes, test.platform, test.versions)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s %v:\n%v\nlacks %q", test.kubernetes, test.platform, test.versions, err, want)
			}
		}
	}
}

// own is a catalogue as somebody might write it for one version and one architecture.
const own = `
apiVersion: kubewright.dev/v1alpha1
kind: Catalogue
defaults:
  v1.36: {containerd: v2.3.4, runc: v1.4.3, crictl: v1.36.0, cni-plugins: v1.9.1}
files:
  kubelet: {url: "http://files.example.org/{version}/kubelet", versions: {v1.36.4: {amd64: DIGEST}}}
  kubectl: {url: "http://files.example.org/{version}/kubectl", versions: {v1.36.4: {amd64: DIGEST}}}
  runc: {url: "http://files.example.org/runc-{version}", versions: {v1.4.3: {amd64: DIGEST}}}
  containerd: {url: "http://files.example.org/containerd-{version}.tgz", members: {bin/containerd: containerd}, versions: {v2.3.4: {amd64: DIGEST}}}
  crictl: {url: "http://files.example.org/crictl-{version}.tgz", members: {crictl: crictl}, versions: {v1.36.0: {amd64: DIGEST}}}
  cni-plugins: {url: "http://files.example.org/cni-{version}.tgz", members: {bridge: cni/bridge}, versions: {v1.9.1: {amd64: DIGEST}}}
`

func TestAnOwnCatalogueIsAllThereIs(t *testing.T) {
	c, err := ParseCatalogue([]byte(strings.ReplaceAll(own, "DIGEST", "sha256:"+strings.Repeat("a", 64))))
	if err != nil {
		t.Fatal(err)
	}
	ds, err := c.Downloads("v1.36.4", "linux/amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Download{Name: "kubelet", Version: "v1.36.4", Platform: "linux/amd64", URL: "http://files.example.org/1.36.4/kubelet", Digest: "sha256:" + strings.Repeat("a", 64)}
	if diff := cmp.Diff(want, ds[0]); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Downloads("v1.36.3", "linux/amd64", nil); err == nil || !strings.Contains(err.Error(), "does not hold kubelet v1.36.3, only v1.36.4") {
		t.Errorf("a version of which it says nothing: %v", err)
	}
	if _, err := c.Downloads("v1.35.8", "linux/amd64", nil); err == nil || !strings.Contains(err.Error(), "only v1.36") {
		t.Errorf("a minor of which it says nothing: %v", err)
	}
}

func TestParseCatalogueReportsEveryProblemWithItsPath(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	good := strings.ReplaceAll(own, "DIGEST", digest)
	for _, test := range []struct {
		old, new string
		want     []string
	}{
		{"kind: Catalogue", "kind: Cluster", []string{`kind: is "Cluster"; write "Catalogue"`}},
		{"runc-{version}", "runc", []string{"files.runc.url: http://files.example.org/runc is the same for every version"}},
		{"runc-{version}", "runc-{vers}", []string{"files.runc.url: is"}},
		{"http://files.example.org/runc", "ftp://files.example.org/runc", []string{"files.runc.url: is"}},
		{"v1.4.3: {amd64: " + digest, "1.4.3: {amd64: " + digest, []string{`files.runc.versions: "1.4.3" is not a version; write one such as v1.36.3`, "defaults.v1.36.runc: v1.4.3 is not one of files.runc.versions"}},
		{"v1.4.3: {amd64: " + digest, "v1.4.3: {amd64: " + digest + ", arm64: " + digest, []string{"files.runc.versions.v1.4.3: is for amd64, arm64, and the url is the same"}},
		{"v1.4.3: {amd64: " + digest, "v1.4.3: {amd64: abc", []string{`files.runc.versions.v1.4.3.amd64: has digest "abc"`}},
		{"  runc: ", "  rnc: ", []string{"files.runc: is missing", "files.rnc: is not one of"}},
		{"runc: v1.4.3, ", "", []string{"defaults.v1.36.runc: is missing"}},
		{"v1.36: ", `"1.36": `, []string{"defaults.1.36: is not a minor version"}},
		{"members: {crictl: crictl}, ", "", []string{"files.crictl.members: go with a url that ends in"}},
		{"members: {crictl: crictl}", "members: {./crictl: crictl}", []string{`files.crictl.members: "./crictl" is no path`}},
		{"members: {crictl: crictl}", "members: {../crictl: crictl}", []string{`files.crictl.members: "../crictl" is no path`}},
		{"members: {crictl: crictl}", "members: {crictl: cni/../../crictl}", []string{`files.crictl.members.crictl: "cni/../../crictl" is no name`}},
		{"members: {crictl: crictl}", "members: {crictl: kubelet}", []string{`gives "kubelet", and so does files.crictl`}},
		{"members: {crictl: crictl}", "mambers: {crictl: crictl}", []string{"files.crictl.mambers: unknown field"}},
		{`kubelet", versions`, `kubelet", sum: kubelet.sha256, signature: .sig, versions`, []string{`files.kubelet.sum: is "kubelet.sha256"`, "files.kubelet: signature and certificate go together"}},
	} {
		data := bytes.Replace([]byte(good), []byte(test.old), []byte(test.new), 1)
		_, err := ParseCatalogue(data)
		if err == nil {
			t.Errorf("%q for %q: no error", test.new, test.old)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q for %q:\n%v\nlacks %q", test.new, test.old, err, want)
			}
		}
	}
}
