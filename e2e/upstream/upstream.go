// Package upstream finds what upstream projects publish, and tests compare with, and the repository does not
// hold: a name and a digest go in, the file's bytes come out. Where they are nowhere, the test is skipped.
package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files that tests ask for.
const (
	Calico = "calico-v3.32.1.yaml" // projectcalico/calico, manifests/calico.yaml
	Weave  = "weave-v2.9.0.yaml"   // rajch/weave, prog/weave-kube/weave-daemonset-k8s-1.11.yaml
)

var digests = map[string]string{
	Calico: "a1df919d9721cf667accdc3e72848911b0cb25cfab7d2478ad0c996302c95744",
	Weave:  "259a149a91143a9450280e733aa0e16455a2b268eaa62b5aab1eb7af9bf016ce",
}

// File reads one of them, from the first of these folders that has it: the one that KUBEWRIGHT_TEST_DATA names;
// ../shared/data beside the repository; data in the lab's cache. Other bytes than upstream's fail the test.
func File(t testing.TB, name string) []byte {
	t.Helper()
	folders := folders(t)
	for _, dir := range folders {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != digests[name] {
			t.Fatalf("%s in %s is not upstream's: its sha256 is %x, not %s", name, dir, sum, digests[name])
		}
		return b
	}
	t.Skipf("%s is in none of %s: download it, and name its folder with KUBEWRIGHT_TEST_DATA", name, strings.Join(folders, ", "))
	return nil
}

func folders(t testing.TB) []string {
	t.Helper()
	var all []string
	if dir := os.Getenv("KUBEWRIGHT_TEST_DATA"); dir != "" {
		all = append(all, dir)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir := wd; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			all = append(all, filepath.Join(dir, "..", "shared", "data"))
			break
		}
	}
	cache := os.Getenv("KUBEWRIGHT_CACHE")
	if cache == "" {
		cache, _ = os.UserCacheDir() // without a home there is none
	}
	return append(all, filepath.Join(cache, "kubewright", "lab", "data"))
}
