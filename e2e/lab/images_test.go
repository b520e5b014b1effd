package lab

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClosureFollowsDependsOfInstalledPackages(t *testing.T) {
	depends := parseStatus(`Package: iptables
Status: install ok installed
Depends: libxtables12 (= 1.8), libc6 (>= 2.34) | libc6-alt, missing
Pre-Depends: dpkg:any (>= 1)
Description: firewall
 Depends: not-a-field

Package: libxtables12
Status: install ok installed
Depends: libc6, iptables

Package: libc6
Status: install ok installed

Package: dpkg
Status: install ok installed
Depends: tar

Package: tar
Status: install ok installed

Package: removed
Status: deinstall ok config-files
Depends: libc6
`)
	got, err := closure(depends, []string{"dpkg"}, "iptables")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"iptables", "libc6", "libxtables12"}, got); d != "" {
		t.Error(d)
	}
	if _, err := closure(depends, nil, "removed"); err == nil {
		t.Error("a package that is not installed was found")
	}
}

// A Debian in which /bin is a link and dpkg does not know.
func testRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{
		"usr/bin/sh":                            "sh",
		"usr/sbin/iptables-nft":                 "nft",
		"usr/share/doc/dash/README":             "read me",
		"var/lib/dpkg/info/dash.list":           "/.\n/bin\n/bin/sh\n/usr/share/doc/dash/README\n/gone\n",
		"var/lib/dpkg/info/iptables:amd64.list": "/usr/sbin/iptables-nft\n",
	} {
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "etc/alternatives"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin",
		"usr/sbin/iptables":         "/etc/alternatives/iptables",
		"etc/alternatives/iptables": "/usr/sbin/iptables-nft",
		"usr/bin/awk":               "/etc/alternatives/awk", // of no package that is wanted
		"etc/alternatives/awk":      "/usr/bin/mawk",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPackageFilesAreWhereTheyReallyAre(t *testing.T) {
	got, err := packageFiles(testRoot(t), []string{"dash", "iptables"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bin", "etc/alternatives/iptables", "sbin", "usr/bin/sh", "usr/sbin/iptables", "usr/sbin/iptables-nft"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLayersOfTheSameFilesAreTheSame(t *testing.T) {
	root, out := testRoot(t), t.TempDir()
	a := entry{path: "usr/bin/sh", from: filepath.Join(root, "usr/bin/sh")}
	b := entry{path: "bin", link: "usr/bin"}
	first, err := writeLayer(filepath.Join(out, "1"), []entry{a, b})
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(a.from, later, later); err != nil {
		t.Fatal(err)
	}
	second, err := writeLayer(filepath.Join(out, "2"), []entry{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if first.hash != second.hash {
		t.Error("another order and another time made another layer")
	}
	r, err := second.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if d := cmp.Diff([]string{"bin", "usr/", "usr/bin/", "usr/bin/sh"}, names); d != "" {
		t.Error(d)
	}
}
