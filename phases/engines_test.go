package phases

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// Neither CRI-O nor cri-dockerd can be built where these tests run: stand-ins answer.
func TestTranscriptOfInitOnCRIO(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	healthy(h)
	delete(h.dial, "unix "+containerdAt)
	standIn{name: "cri-o", version: "1.36.1", driver: "systemd"}.listen(h, criSocket)
	h.files[criSocket] = text("")
	b := testBundle(t, c)
	golden(t, "init-crio", "kubewright init --bundle, on a host that runs CRI-O (a stand-in): what each phase does.\n"+transcript(h, Init(), initTarget(h, c, b)))
	nothingOnHost(t, transcript(h, Init(), initTarget(h, c, b)))
	if got := mustRead(h, manifests.KubeletInstance); got != "containerRuntimeEndpoint: \"unix:///var/run/crio/crio.sock\"\n" {
		t.Errorf("the kubelet is led to %s", got)
	}
}

func TestTranscriptOfJoinOnDocker(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	healthy(h)
	h.files["/proc/sys/kernel/hostname"] = text("w-1\n")
	h.files["/usr/bin/kubelet"], h.files["/usr/bin/containerd"] = text(""), text("")
	h.files[dockerSocket], h.files[containerdAt] = text(""), text("") // Docker runs a containerd of its own
	delete(h.dial, "unix "+containerdAt)
	standIn{name: "docker", version: "28.5.0", driver: "cgroupfs"}.listen(h, dockerSocket)
	found := discovered(t, c)
	join := func(socket string) *Target {
		target := joinTarget(h, c, nil)
		target.Node.RuntimeSocket = socket
		target.Discover = found
		return target
	}
	err := Run(t.Context(), Select(Join(), "preflight"), join(""), nil)
	if err == nil || !strings.Contains(err.Error(), "[CRI] several container runtimes are here (unix:///run/containerd/containerd.sock, unix:///var/run/cri-dockerd.sock): name one with --cri-socket") {
		t.Errorf("none is named: %v", err)
	}
	socket := "unix://" + dockerSocket
	golden(t, "join-docker", "kubewright join --cri-socket "+socket+", on a host that runs Docker and cri-dockerd (a stand-in): what each phase does.\n"+transcript(h, Join(), join(socket)))
	nothingOnHost(t, transcript(h, Join(), join(socket)))
	if got := mustRead(h, manifests.KubeletInstance); got != "containerRuntimeEndpoint: \"unix:///var/run/cri-dockerd.sock\"\ncgroupDriver: \"cgroupfs\"\n" {
		t.Errorf("the kubelet is told %s", got)
	}
}

func TestJoinRefusesAnotherRuntimeThanTheDocumentNames(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	c.Spec.Hosts = []config.Node{{Name: "cp-1", RuntimeSocket: "unix://" + criSocket}}
	d, err := discovered(t, c)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target := h.target(cluster(), config.WorkerRole)
	if err := target.checkJoin(t.Context(), d); err == nil || !strings.Contains(err.Error(), "join has prepared unix:///run/containerd/containerd.sock: run it again with --cri-socket unix:///var/run/crio/crio.sock") {
		t.Errorf("got %v", err)
	}
	target.Node.RuntimeSocket = "unix://" + criSocket
	if err := target.checkJoin(t.Context(), d); err != nil {
		t.Error(err)
	}
}

// What others have installed is never replaced, wherever it is.
func TestContainerdIsOursOrTheirs(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(h *fakeHost)
		ours   bool
	}{
		"none":                       {func(*fakeHost) {}, true},
		"of a package":               {func(h *fakeHost) { h.files["/usr/bin/containerd"] = text("") }, false},
		"of somebody, in /usr/local": {func(h *fakeHost) { h.files["/usr/local/bin/containerd"] = text("") }, false},
		"of somebody, with a unit": {func(h *fakeHost) {
			h.files["/usr/local/bin/containerd"], h.files[manifests.ContainerdUnitPath] = text(""), text("[Unit]\nDescription=containerd container runtime\n")
		}, false},
		"listening, from nobody knows where": {func(h *fakeHost) { h.files[containerdAt] = text("") }, false},
		"ours": {func(h *fakeHost) {
			h.files["/usr/local/bin/containerd"], h.files[containerdAt] = text(""), text("")
			h.files[manifests.ContainerdUnitPath] = manifests.ContainerdUnit()
		}, true},
		"ours, cut short": {func(h *fakeHost) { h.files[manifests.ContainerdUnitPath] = manifests.ContainerdUnit() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newFakeHost(t), cluster()
			tt.change(h)
			target := h.target(c, config.WorkerRole)
			target.Bundle = testBundle(t, c)
			var files []string
			for _, a := range target.wantedFiles() {
				files = append(files, target.destination(a.Name))
			}
			if target.ownsContainerd() != tt.ours || slices.Contains(files, "/usr/local/bin/containerd") != tt.ours || slices.Contains(files, "/usr/local/bin/ctr") != tt.ours {
				t.Errorf("ours: %t; files %v", target.ownsContainerd(), files)
			}
			r := &host.Recorder{Host: h}
			target.Host = r
			if err := Run(t.Context(), Select(Join(), "runtime"), target, nil); err != nil {
				t.Fatal(err)
			}
			wrote := slices.ContainsFunc(r.Steps(), func(s host.Step) bool { return s.File != nil && s.File.Path == "/etc/containerd/config.toml" })
			if wrote != tt.ours {
				t.Errorf("config.toml written: %t", wrote)
			}
		})
	}
}

// A host has the runtime that its flag or its entry names, else the document's, else the only one found.
func TestSocketOfAHost(t *testing.T) {
	const a, b, c = "unix:///a.sock", "unix:///b.sock", "unix:///c.sock"
	for name, tt := range map[string]struct {
		host, document string
		found          []string
		want           string
	}{
		"nothing":      {want: config.ContainerdSocket},
		"the only one": {found: []string{a}, want: a},
		"two":          {found: []string{a, b}, want: config.ContainerdSocket}, // preflight says so
		"document":     {document: b, found: []string{a}, want: b},
		"host":         {host: c, document: b, found: []string{a}, want: c},
	} {
		doc := cluster()
		doc.Spec.Runtime.Socket = tt.document
		doc.Spec.Hosts = []config.Node{{Name: "n", RuntimeSocket: tt.host}}
		if got := doc.Socket(doc.Node("n", config.WorkerRole, config.Facts{Sockets: tt.found})); got != tt.want {
			t.Errorf("%s: %s, not %s", name, got, tt.want)
		}
	}
}
