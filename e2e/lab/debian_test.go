package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAptSourcesInTheOneLineFormat(t *testing.T) {
	got := parseList(`# deb http://old.example/debian bookworm main
deb http://a.example/debian bookworm main contrib # comment
deb [arch=amd64 signed-by=/usr/share/k.gpg] http://b.example/debian bookworm-updates main
deb-src http://a.example/debian bookworm main

deb http://short.example/debian
`)
	want := []aptSource{
		{"http://a.example/debian", []string{"bookworm"}, []string{"main", "contrib"}},
		{"http://b.example/debian", []string{"bookworm-updates"}, []string{"main"}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(aptSource{})); d != "" {
		t.Error(d)
	}
}

func TestAptSourcesInDeb822(t *testing.T) {
	got := parseSources(`Types: deb deb-src
# a comment inside
URIs: http://a.example/debian
  http://b.example/debian
Suites: bookworm
 bookworm-updates
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main`)
	suites := []string{"bookworm", "bookworm-updates"}
	want := []aptSource{
		{"http://a.example/debian", suites, []string{"main"}},
		{"http://b.example/debian", suites, []string{"main"}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(aptSource{})); d != "" {
		t.Error(d)
	}
}

func TestMirrorHasTheSuiteAndMain(t *testing.T) {
	vendor := aptSource{"http://vendor.example", []string{"cloud-bookworm"}, []string{"main"}}
	contrib := aptSource{"http://contrib.example", []string{"bookworm"}, []string{"contrib"}}
	trixie := aptSource{"http://trixie.example", []string{"trixie"}, []string{"main"}}
	bookworm := aptSource{"http://bookworm.example", []string{"bookworm"}, []string{"main"}}
	for _, c := range []struct {
		name    string
		sources []aptSource
		want    string
	}{
		{"the hosts' own release", []aptSource{vendor, contrib, trixie, bookworm}, bookworm.uri},
		{"a machine of another release", []aptSource{vendor, trixie}, trixie.uri},
		{"none", []aptSource{vendor, contrib}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mirrorOf(c.sources, "bookworm", "trixie")
			if got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
