package phases

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Whatever a finding says of itself may be ignored by that name.
func TestEveryCheckCanBeIgnored(t *testing.T) {
	named := regexp.MustCompile(`(?:Finding|Problem)\{Name: (?:fmt\.Sprintf\()?"([\w.-]+)|\b(?:add|warn)\((?:true, |false, )?"([A-Z][\w.-]+)|\bsame\("(\w+)`)
	n := 0
	for _, folder := range []string{".", "../reach"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			for _, m := range named.FindAllStringSubmatch(string(b), -1) {
				n++
				name := m[1] + m[2] + m[3]
				if strings.HasSuffix(name, "-") {
					name += "10250"
				}
				if err := CheckIgnore([]string{name}); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d findings were seen", n)
	}
	for name, known := range map[string]bool{"all": true, "swap": true, "Port-10250": true, "ImagePull": true, "Swop": false, "Port": false, "Port-": false, "Kernel-": false, "": false} {
		if err := CheckIgnore([]string{name}); known != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
