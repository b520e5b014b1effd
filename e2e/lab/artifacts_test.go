package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// The versions in artifacts.go name images and fill the bundle's lock; go.mod decides what is built.
func TestVersionsAreThoseOfGoMod(t *testing.T) {
	for _, m := range slices.Concat(modules(), cloudModules(), testServers()) {
		mod, err := os.ReadFile(filepath.Join("artifacts", m.name, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`(?m)^\t` + regexp.QuoteMeta(m.of) + ` ` + regexp.QuoteMeta(m.version) + `( |$)`)
		if !line.Match(mod) {
			t.Errorf("artifacts/%s/go.mod does not require %s %s", m.name, m.of, m.version)
		}
	}
}

func TestEveryBinaryOfABundleAndOfAnImageIsBuilt(t *testing.T) {
	names := bundledFiles()
	for _, i := range slices.Concat(images(), cloudImages()) {
		for _, b := range i.binaries {
			if b != pauseBinary {
				names = append(names, b)
			}
		}
	}
	for _, name := range names {
		if _, err := moduleOf(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := moduleOf("nonsense"); err == nil {
		t.Error("nonsense is built")
	}
}

func TestGoNamesBinariesLikeTheGoCommand(t *testing.T) {
	for pkg, want := range map[string]string{
		"go.etcd.io/etcd/server/v3":         "server",
		"k8s.io/kubernetes/cmd/kubelet":     "kubelet",
		"example.org/v":                     "v",
		"example.org/cmd/v8engine":          "v8engine",
		"github.com/flannel-io/flannel/cmd": "cmd",
	} {
		if got := goName(pkg); got != want {
			t.Errorf("%s: got %s, want %s", pkg, got, want)
		}
	}
}
