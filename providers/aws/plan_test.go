package aws

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/cloud"
)

func planned(t *testing.T, document string) string {
	t.Helper()
	changes, err := connect(t, parse(t, document)).Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, c := range changes {
		fmt.Fprintln(&b, strings.ReplaceAll(c.String(), os.Getenv("XDG_DATA_HOME"), "~/.local/share"))
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v; got\n%s\nwant\n%s\n(-update writes it)", path, err, got, want)
	}
}

// Each document is planned where there is nothing, and again when it has been made: then there is nothing to do.
func TestPlansEqualGoldens(t *testing.T) {
	for name, d := range map[string]string{
		"small":  "controlPlane: {count: 1}",
		"three":  "controlPlane: {count: 3, instanceType: m6i.large}\npools:\n- {name: workers, count: 3}\n- {name: arm, count: 2, instanceType: m7g.large, spot: true, zones: [eu-west-1b], diskGiB: 100, labels: {a: b}}",
		"zones":  "network: {zones: [eu-west-1a, eu-west-1c], nat: zone, cidr: 172.20.0.0/16}\nloadBalancer: {from: [192.0.2.0/24]}\nssh: {from: [198.51.100.0/24]}",
		"public": "network: {nat: none}\nloadBalancer: {scheme: internal}\npools: [{name: w, count: 1}]",
	} {
		t.Run(name, func(t *testing.T) {
			start(t, cloud.Options{})
			golden(t, "plan-"+name, planned(t, d))
			if _, err := connect(t, parse(t, d)).Create(t.Context()); err != nil {
				t.Fatal(err)
			}
			if again := planned(t, d); again != "nothing\n" {
				t.Errorf("after it was made: %s", again)
			}
		})
	}
}

// What the manual begins with, whoever follows it types.
func TestTheManualsDocumentIsPlanned(t *testing.T) {
	start(t, cloud.Options{})
	b, err := os.ReadFile("../../docs/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if changes, err := connect(t, c).Plan(t.Context()); err != nil || len(changes) == 0 {
		t.Errorf("%v: %v", changes, err)
	}
}
