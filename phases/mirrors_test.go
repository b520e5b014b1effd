package phases

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

const mirrorPassword = "hunter2"

// mirrored is a cluster whose images come from elsewhere.
func mirrored(registries ...config.Registry) *config.Cluster {
	c := cluster()
	c.Spec.Artifacts.Registries = registries
	c.Default(config.Versions{})
	return c
}

func robot(registry string) (user, password string, err error) {
	if registry == "harbor.example.com" {
		return "robot", mirrorPassword, nil
	}
	return "", "", nil
}

// hidden fails where a text holds the password, in any form.
func hidden(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains(text, mirrorPassword) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("robot:"+mirrorPassword))) {
		t.Errorf("the password is in %s:\n%s", what, text)
	}
}

// certs are the files of containerd's folder of registries, with their modes.
func (h *fakeHost) certs() map[string]string {
	files := map[string]string{}
	for p, f := range h.files {
		if rest, ok := strings.CutPrefix(p, manifests.CertsDir+"/"); ok && !f.Dir {
			files[rest] = f.Perm().String()
		}
	}
	return files
}

// withMirrors runs the phase as init does, on a host with a journal.
func withMirrors(h *fakeHost, c *config.Cluster, change func(*Target)) (*Target, error) {
	h.t.Helper()
	j, err := OpenJournal(h.t.Context(), h)
	if err != nil {
		h.t.Fatal(err)
	}
	h.done = nil
	target := h.target(c, config.ControlPlaneRole)
	target.Facts.OwnContainerd, target.Journal, target.Credentials = true, j, robot
	if change != nil {
		change(target)
	}
	return target, Run(h.t.Context(), Select(Init(), "mirrors"), target, nil)
}

func TestMirrorsComeAndGoWithTheDocument(t *testing.T) {
	h := newFakeHost(t)
	theirs := manifests.CertsDir + "/quay.io/hosts.toml"
	h.files[theirs] = text("of an administrator")
	before := maps.Clone(h.files)

	k8s := config.Registry{Host: "registry.k8s.io", Mirrors: []string{"harbor.example.com/k8s"}, CA: "a certificate", Exclusive: true}
	quay := config.Registry{Host: "quay.io", Mirrors: []string{"mirror.example.com"}}
	for _, step := range []struct {
		name        string
		c           *config.Cluster
		credentials func(string) (string, string, error)
		want        map[string]string
		done        []string
	}{
		{"two", mirrored(k8s, quay), robot,
			map[string]string{"registry.k8s.io/ca.crt": "-rw-r--r--", "registry.k8s.io/hosts.toml": "-rw-------", "quay.io/hosts.toml": "-rw-r--r--"},
			[]string{"create " + manifests.CertsDir + "/registry.k8s.io/ca.crt", "create " + manifests.CertsDir + "/registry.k8s.io/hosts.toml", "update " + theirs}},
		{"again", mirrored(k8s, quay), robot,
			map[string]string{"registry.k8s.io/ca.crt": "-rw-r--r--", "registry.k8s.io/hosts.toml": "-rw-------", "quay.io/hosts.toml": "-rw-r--r--"}, nil},
		{"no password any more", mirrored(k8s, quay), nil,
			map[string]string{"registry.k8s.io/ca.crt": "-rw-r--r--", "registry.k8s.io/hosts.toml": "-rw-r--r--", "quay.io/hosts.toml": "-rw-r--r--"},
			[]string{"update " + manifests.CertsDir + "/registry.k8s.io/hosts.toml"}},
		{"a password again", mirrored(k8s, quay), robot,
			map[string]string{"registry.k8s.io/ca.crt": "-rw-r--r--", "registry.k8s.io/hosts.toml": "-rw-------", "quay.io/hosts.toml": "-rw-r--r--"},
			[]string{"update " + manifests.CertsDir + "/registry.k8s.io/hosts.toml"}},
		{"none", mirrored(), robot, map[string]string{"quay.io/hosts.toml": "-rw-r--r--"},
			[]string{"$ mv -- " + host.Temporary(theirs) + " " + theirs, "$ rm -f -- " + manifests.CertsDir + "/registry.k8s.io/hosts.toml", "$ rm -f -- " + manifests.CertsDir + "/registry.k8s.io/ca.crt", "$ rmdir -- " + manifests.CertsDir + "/registry.k8s.io"}},
		{"still none", mirrored(), robot, map[string]string{"quay.io/hosts.toml": "-rw-r--r--"}, nil},
		{"one", mirrored(k8s), robot,
			map[string]string{"registry.k8s.io/ca.crt": "-rw-r--r--", "registry.k8s.io/hosts.toml": "-rw-------", "quay.io/hosts.toml": "-rw-r--r--"},
			[]string{"create " + manifests.CertsDir + "/registry.k8s.io/ca.crt", "create " + manifests.CertsDir + "/registry.k8s.io/hosts.toml"}},
	} {
		// What would be done, first: it shows no password, not even that of a file that has one.
		j, err := OpenJournal(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		planned := h.target(step.c, config.ControlPlaneRole)
		planned.Facts.OwnContainerd, planned.Journal, planned.Credentials = true, j, step.credentials
		plan, err := Plan(t.Context(), Select(Init(), "mirrors"), planned, nil)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		hidden(t, step.name+": the plan", string(shown))
		if (len(plan) == 0) != (step.done == nil) {
			t.Errorf("%s: the plan is %s", step.name, shown)
		}

		var said events
		if _, err := withMirrors(h, step.c, func(target *Target) { target.Credentials, target.Report = step.credentials, said.report }); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, h.certs()); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
		ofOthers := func(s string) bool { return strings.Contains(s, JournalDir) } // where a file of theirs is kept
		if got := slices.DeleteFunc(h.done, ofOthers); !slices.Equal(got, step.done) {
			t.Errorf("%s: it did %q", step.name, got)
		}
		want := 0
		if step.name == "none" { // the files of two registries were there, and go
			want = 2
		}
		if m := said.messages(); len(m) != want || slices.ContainsFunc(m, func(s string) bool { return !strings.HasPrefix(s, "nobody names a mirror of ") }) {
			t.Errorf("%s: it said %q", step.name, m)
		}
		if _, ok := h.files[manifests.CertsDir+"/registry.k8s.io/hosts.toml"]; ok { // a folder, as a real host has it
			h.files[manifests.CertsDir+"/registry.k8s.io"] = host.File{Dir: true}
		}
		hidden(t, "the journal", mustRead(h, journalPath))
	}
	if got := mustRead(h, theirs); got != "of an administrator" {
		t.Errorf("their file holds %q", got)
	}

	target, err := withMirrors(h, mirrored(k8s, quay), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	for p := range h.files {
		if _, ok := before[p]; !ok {
			t.Errorf("reset leaves %s", p)
		}
	}
	if got := mustRead(h, theirs); got != "of an administrator" {
		t.Errorf("after reset, their file holds %q", got)
	}
}

// What somebody has changed in a file of ours is theirs.
func TestMirrorsThatOthersHaveChangedStay(t *testing.T) {
	h := newFakeHost(t)
	if _, err := withMirrors(h, mirrored(config.Registry{Host: "quay.io", Mirrors: []string{"a"}}), nil); err != nil {
		t.Fatal(err)
	}
	path := manifests.CertsDir + "/quay.io/hosts.toml"
	h.files[path] = text("changed since")
	var said events
	if _, err := withMirrors(h, mirrored(), func(target *Target) { target.Report = said.report }); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(h, path); got != "changed since" || len(said.messages()) != 1 || !strings.HasPrefix(said.messages()[0], "kept: "+path) {
		t.Errorf("it holds %q, and was said: %q", got, said.messages())
	}
}

func TestMirrorsOfAJoinAreThoseOfTheCluster(t *testing.T) {
	for name, list := range map[string][]Phase{"worker": Join(), "control plane": JoinControlPlane()} {
		h := newFakeHost(t)
		target := joinTarget(h, cluster(), nil)
		target.Facts.OwnContainerd, target.Credentials = true, robot
		target.Discover = discovered(t, mirrored(config.Registry{Host: "*", Mirrors: []string{"harbor.example.com"}}))
		if err := Run(t.Context(), Select(list, "mirrors"), target, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"_default/hosts.toml": "-rw-------"}, h.certs()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCredentialsThatCannotBeReadAreAnError(t *testing.T) {
	h := newFakeHost(t)
	_, err := withMirrors(h, mirrored(config.Registry{Host: "quay.io", Mirrors: []string{"harbor.example.com"}}), func(target *Target) {
		target.Credentials = func(string) (string, string, error) { return "", "", errors.New("no helper") }
	})
	if err == nil || !strings.Contains(err.Error(), "credentials for harbor.example.com, a mirror of quay.io: no helper") || len(h.certs()) > 0 {
		t.Errorf("got %v and %v", err, h.certs())
	}
}

// A runtime that is somebody else's is left alone, and preflight names the file.
func TestMirrorsOfARuntimeOfOthers(t *testing.T) {
	for socket, want := range map[string]string{
		containerdAt: "in /etc/containerd/certs.d/HOST/hosts.toml, and let config_path",
		criSocket:    "in a file of /etc/containers/registries.conf.d",
		dockerSocket: "in /etc/docker/daemon.json, where Docker knows mirrors of docker.io alone",
		"/run/x":     "where it reads them",
	} {
		h := newFakeHost(t)
		h.files[socket] = text("")
		c := mirrored(config.Registry{Host: "quay.io", Mirrors: []string{"a"}}, config.Registry{Host: "*", Mirrors: []string{"a"}})
		target := h.target(c, config.ControlPlaneRole)
		target.Node.RuntimeSocket = "unix://" + socket
		target.Bundle = testBundle(t, c)
		if err := mirrors(t.Context(), target); err != nil || len(h.certs()) > 0 {
			t.Errorf("%s: %v, %v", socket, err, h.certs())
		}
		found := target.checkMirrors()
		if len(found) != 1 || !found[0].Warning || !strings.Contains(found[0].Message, "the mirrors of quay.io, * yourself, "+want) {
			t.Errorf("%s: %v", socket, found)
		}
		var said events // a host that joins learns of them later
		target.Cluster, target.Report = cluster(), said.report
		if err := (&Target{Cluster: c, Node: target.Node, Facts: target.Facts, Host: h, Report: said.report}).checkJoin(t.Context(), &Discovery{Cluster: c}); err != nil || len(said.messages()) != 1 {
			t.Errorf("%s: %v, %q", socket, err, said.messages())
		}
		if found := target.checkMirrors(); len(found) > 0 {
			t.Errorf("%s, without mirrors: %v", socket, found)
		}
	}
	h := newFakeHost(t)
	target := h.target(mirrored(config.Registry{Host: "quay.io", Mirrors: []string{"a"}}), config.ControlPlaneRole)
	target.Facts.OwnContainerd = true
	if found := target.checkMirrors(); len(found) > 0 {
		t.Errorf("ours: %v", found)
	}
}
