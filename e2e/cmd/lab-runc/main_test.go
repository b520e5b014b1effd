package main

import (
	"testing"
)

const withoutSysResource = 0x000001fffeffffff

func TestCapabilitiesThatTheMachineLacksAreTakenOut(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"config.json", `{"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE"]}}}`, `{"process":{"capabilities":{"bounding":["CAP_CHOWN"]}}}`},
		{"process.json", `{"capabilities":{"effective":["CAP_SYS_RESOURCE"],"bounding":["CAP_BPF"]}}`, `{"capabilities":{"bounding":["CAP_BPF"],"effective":[]}}`},
		{"big numbers stay exact", `{"capabilities":{"bounding":["CAP_SYS_RESOURCE"]},"n":18446744073709551615}`, `{"capabilities":{"bounding":[]},"n":18446744073709551615}`},
		{"nothing missing: byte for byte", `{ "capabilities": {"bounding": ["CAP_CHOWN"]} }`, `{ "capabilities": {"bounding": ["CAP_CHOWN"]} }`},
		{"unknown to us: left to runc", `{"capabilities":{"bounding":["CAP_NEW"]}}`, `{"capabilities":{"bounding":["CAP_NEW"]}}`},
		{"no capabilities", `{"process":{}}`, `{"process":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := filter([]byte(c.in), withoutSysResource)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestConfigIsFoundInTheArgumentsThatContainerdGives(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--root", "/r", "create", "--bundle", "/b", "id"}, "/b/config.json"},
		{[]string{"run", "--bundle=/b", "id"}, "/b/config.json"},
		{[]string{"create", "id"}, "config.json"},
		{[]string{"exec", "--process", "/p.json", "id"}, "/p.json"},
		{[]string{"delete", "id"}, ""},
	} {
		if got := configOf(c.args); got != c.want {
			t.Errorf("%v: got %q, want %q", c.args, got, c.want)
		}
	}
}

func TestBoundingSetIsReadFromStatus(t *testing.T) {
	got, err := boundingSet("Name:\tx\nCapEff:\t0\nCapBnd:\t000001fffeffffff\n")
	if err != nil || got != withoutSysResource {
		t.Errorf("got %x, %v", got, err)
	}
	if _, err := boundingSet("Name:\tx\n"); err == nil {
		t.Error("no CapBnd: want an error")
	}
}
