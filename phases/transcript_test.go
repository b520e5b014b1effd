package phases

import (
	"context"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

var update = flag.Bool("update", false, "write testdata anew; review it like code")

const tokenText = "abcdef.0123456789abcdef"

// transcript runs a list phase by phase behind recorders and writes down what each would
// do; then it is done to the fake host, so that the next phase finds it.
func transcript(h *fakeHost, list []Phase, target *Target) string {
	var out strings.Builder
	etcd, _ := target.Etcd.(*EtcdRecorder)
	told := 0 // of etcd's steps
	for _, p := range list {
		fmt.Fprintf(&out, "\n%s: %s\n", p.Name, p.Short)
		if len(p.After) > 0 {
			fmt.Fprintf(&out, "  (after %s)\n", strings.Join(p.After, ", "))
		}
		onHost, inAPI := &host.Recorder{Host: h}, &APIRecorder{}
		var said events
		own := *target
		own.Host, own.Report = onHost, said.report
		if own.API != nil {
			own.API = inAPI
		}
		if admit := own.Admit; admit != nil {
			own.Admit = func(ctx context.Context, t *Target) (*Admission, error) {
				a, err := admit(ctx, t)
				if err != nil {
					return nil, err
				}
				return &Admission{Secrets: a.Secrets, API: inAPI, Local: inAPI, Etcd: etcd}, nil
			}
		}
		if p.Name == "images" && own.Bundle != nil {
			// A containerd to talk to is what bundle's own tests and e2e have.
			for _, a := range own.wantedImages() {
				fmt.Fprintf(&out, "  import %s\n", a.Name)
			}
			continue
		}
		if err := Run(h.t.Context(), Select(list, p.Name), &own, nil); err != nil {
			h.t.Fatal(err)
		}
		for _, m := range said.messages() {
			fmt.Fprintf(&out, "  ! %s\n", m)
		}
		if etcd != nil {
			for _, s := range etcd.Steps()[told:] {
				fmt.Fprintf(&out, "  %s\n", s)
				told++
			}
		}
		for _, s := range onHost.Steps() {
			fmt.Fprintf(&out, "  %s\n", describeStep(s))
		}
		for _, s := range inAPI.Steps() {
			fmt.Fprintf(&out, "  %s\n", s)
		}
		noSecrets(h.t, onHost.Steps(), out.String())
		if err := h.apply(onHost.Steps()); err != nil {
			h.t.Fatal(err)
		}
	}
	return rotated.ReplaceAllString(out.String(), "kubelet-client-DATE.pem")
}

// rotated is the name of a kubelet's certificate, with the second of its making.
var rotated = regexp.MustCompile(`kubelet-client-[0-9-]+\.pem`)

func describeStep(s host.Step) string {
	f := s.File
	switch {
	case s.Note != "":
		return "import " + s.Note
	case f == nil:
		return "$ " + strings.Join(s.Argv, " ")
	case f.Absent:
		return s.Action + " " + f.Path
	case f.Link != "":
		return fmt.Sprintf("%s %s -> %s", s.Action, f.Path, f.Link)
	case f.Dir:
		return fmt.Sprintf("%s %s/ %04o", s.Action, f.Path, f.Perm())
	}
	line := fmt.Sprintf("%s %s %04o", s.Action, f.Path, f.Perm())
	if f.Secret {
		line += " secret"
	}
	return line
}

// noSecrets checks that private keys and the token's secret are in files alone that say so
// and that nobody but root can read, and in no command and no line of the transcript.
func noSecrets(t *testing.T, steps []host.Step, transcript string) {
	t.Helper()
	_, secret, _ := strings.Cut(tokenText, ".")
	held := func(s string) bool { return strings.Contains(s, "PRIVATE KEY") || strings.Contains(s, secret) }
	if held(transcript) {
		t.Errorf("a secret in the transcript:\n%s", transcript)
	}
	for _, s := range steps {
		if held(strings.Join(s.Argv, " ")) {
			t.Errorf("a secret in the argv of %s", s.Argv[0])
		}
		if s.File == nil || s.File.Content == nil {
			continue
		}
		b, err := bytesOf(s.File.Content)
		if err != nil {
			t.Fatal(err)
		}
		// In a kubeconfig, keys are encoded once more.
		if !held(string(b)) && !strings.Contains(string(b), "client-key-data") {
			continue
		}
		if !s.File.Secret || s.File.Perm() != 0o600 {
			t.Errorf("%s holds a secret, and has mode %04o, Secret %t", s.File.Path, s.File.Perm(), s.File.Secret)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, - golden, + now (go test -update writes it anew):\n%s", path, diff)
	}
}

// testBundle holds an artifact of each name that a node needs, with next to nothing in it.
func testBundle(t *testing.T, c *config.Cluster) *bundle.Bundle {
	t.Helper()
	return testBundleIn(t, c, t.TempDir())
}

func testBundleIn(t *testing.T, c *config.Cluster, dir string) *bundle.Bundle {
	t.Helper()
	w, err := bundle.Create(filepath.Join(dir, "bundle"), bundle.Built)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	for name, version := range map[string]string{"kubelet": "v1.36.3", "kubectl": "v1.36.3", "crictl": "v1.36.0", "containerd": "v2.3.7", "containerd-shim-runc-v2": "v2.3.7",
		"ctr": "v2.3.7", "runc": "v1.4.0", "cni/bridge": "v1.9.0"} {
		if err := os.WriteFile(file, []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := w.AddFile(t.Context(), bundle.Artifact{Name: name, Version: version, Platform: "linux/amd64"}, file); err != nil {
			t.Fatal(err)
		}
	}
	base, err := empty.Image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	platform := base.DeepCopy()
	platform.OS, platform.Architecture = "linux", "amd64"
	img, err := mutate.ConfigFile(empty.Image, platform)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Images(c) {
		if err := w.AddImage(t.Context(), name, img); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(filepath.Join(dir, "bundle"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func token(t *testing.T) addons.Token {
	t.Helper()
	tok, err := addons.ParseToken(tokenText)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// healthy serves the health endpoints of controller manager, scheduler and kubelet.
func healthy(h *fakeHost) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	secure, plain := httptest.NewTLSServer(ok), httptest.NewServer(ok)
	h.t.Cleanup(secure.Close)
	h.t.Cleanup(plain.Close)
	h.dial["tcp 127.0.0.1:10257"] = to(secure.Listener.Addr())
	h.dial["tcp 127.0.0.1:10259"] = to(secure.Listener.Addr())
	h.dial["tcp "+kubeletHealth] = to(plain.Listener.Addr())
}

// initTarget is what `init` makes of a fake host, as often as it is run there.
func initTarget(h *fakeHost, c *config.Cluster, b *bundle.Bundle) *Target {
	h.t.Helper()
	target := h.target(c, config.ControlPlaneRole)
	existing := map[string][]byte{}
	for _, p := range pki.Paths(target.Node) {
		if content, err := h.ReadFile(h.t.Context(), p); err == nil {
			existing[p] = content
		}
	}
	secrets, err := pki.New(c, target.Node, existing, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	target.Secrets, target.Bundle, target.API, target.TTL = secrets, b, &APIRecorder{}, 24*time.Hour
	target.JoinToken = JoinToken(target.API, token(h.t), true)
	return target
}

// nothingOnHost fails for everything that a transcript does to a host.
func nothingOnHost(t *testing.T, transcript string) {
	t.Helper()
	for line := range strings.Lines(transcript) {
		for _, verb := range []string{"$ ", "create ", "update ", "mode ", "delete "} {
			if strings.HasPrefix(line, "  "+verb) && !strings.HasPrefix(line, "  update Node ") {
				t.Errorf("a second run would %s", strings.TrimSpace(line))
			}
		}
	}
}

func TestTranscriptOfInit(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	healthy(h)
	b := testBundle(t, c)
	golden(t, "init", "kubewright init --bundle, on a new Debian host: what each phase does.\n"+transcript(h, Init(), initTarget(h, c, b)))
	nothingOnHost(t, transcript(h, Init(), initTarget(h, c, b)))
}

func TestTranscriptOfJoin(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	healthy(h)
	h.files["/proc/sys/kernel/hostname"] = text("w-1\n")
	h.after["systemctl start kubelet"] = func(h *fakeHost) { // it asks for a certificate, and gets it
		h.files[pki.KubeletConf] = text("kubeconfig")
		h.files[pki.KubeletClientCurrent] = text("certificate")
	}
	b := testBundle(t, c)
	found := discovered(t, c)
	join := func() *Target {
		target := joinTarget(h, c, b)
		target.Discover = found
		return target
	}
	golden(t, "join", "kubewright join --bundle, on a new Debian host: what each phase does.\n"+transcript(h, Join(), join()))
	nothingOnHost(t, transcript(h, Join(), join()))
	if _, ok := h.files[pki.BootstrapKubeletConf]; ok {
		t.Error("the token is still on the host")
	}
}

// joinTarget is what `join` makes of a fake host, but for the cluster that is to be found.
func joinTarget(h *fakeHost, c *config.Cluster, b *bundle.Bundle) *Target {
	h.t.Helper()
	target := h.target(c, config.WorkerRole)
	target.Bundle = b
	return target
}

// discovered is a cluster that has been found.
func discovered(t *testing.T, c *config.Cluster) func(context.Context) (*Discovery, error) {
	t.Helper()
	kubelet, err := manifests.KubeletConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	d := &Discovery{Server: "https://192.0.2.11:6443", CA: testCA(t), Cluster: c, KubeletConfiguration: kubelet, API: &APIRecorder{}}
	return func(context.Context) (*Discovery, error) { return d, nil }
}

// testCA is a certificate authority (PEM) that httptest's servers do not use.
func testCA(t *testing.T) []byte {
	t.Helper()
	secrets, err := pki.New(cluster(), config.Node{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}, Address: "192.0.2.11"}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return secrets.CACert()
}

// Once with a journal, and once without: a node that kubeadm made.
func TestTranscriptOfReset(t *testing.T) {
	for name, withJournal := range map[string]bool{"reset": true, "reset-kubeadm": false} {
		t.Run(name, func(t *testing.T) {
			h, c := newFakeHost(t), cluster()
			healthy(h)
			h.files["/usr/bin/nft"] = text("")
			h.files["/etc/crictl.yaml"] = text("of somebody else")
			h.files["/sys/class/net/eth0/x"] = text("")
			bystanders := []string{"/etc/kubernetes/tmp/backup", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/theirs", "/var/lib/etcd/theirs"}
			if withJournal { // as kubeadm, which has none
				bystanders = append(bystanders, pki.Dir+"/theirs.pem", manifests.KubeletDir+"/theirs", "/etc/kubernetes/audit.yaml")
			}
			for _, p := range bystanders {
				h.files[p] = text("theirs")
			}
			before := maps.Clone(h.files)
			open := func() *Journal {
				j, err := OpenJournal(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				return j
			}
			target := initTarget(h, c, testBundle(t, c))
			if withJournal {
				target.Journal = open()
			}
			transcript(h, Init(), target)
			for path, content := range map[string]string{
				"/sys/class/net/cni0/x": "", "/sys/class/net/flannel.1/x": "",
				"/proc/mounts":                       "proc /proc proc rw 0 0\ntmpfs /var/lib/kubelet/pods/1/volumes/a tmpfs rw 0 0\n",
				"/var/lib/etcd/member/wal":           "",
				"/var/lib/containerd/x":              "",
				"/opt/cni/bin/somebody":              "else's",
				"/etc/sysctl.d/99-kubewright.conf":   "changed since",
				"/etc/cni/net.d/10-flannel.conflist": "",
			} {
				h.files[path] = text(content)
			}
			h.answers["crictl --runtime-endpoint unix:///run/containerd/containerd.sock --timeout 2m pods --quiet"] = "pod1\npod2\n"
			h.answers["iptables-save"] = "# by iptables\n*nat\n:KUBE-SERVICES - [0:0]\n-A INPUT -j ACCEPT\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
			h.answers["ip6tables-save"] = "*nat\nCOMMIT\n"
			h.answers["nft list ruleset"] = "table ip kube-proxy {\n\tset x {\n\t}\n}\ntable ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
			reset := h.target(c, config.WorkerRole)
			reset.API = &APIRecorder{}
			reset.Etcd = &EtcdRecorder{Live: EtcdMembers{1, []EtcdMember{{ID: 2, Name: "cp-1", PeerURL: "https://192.0.2.11:2380"}}}}
			if withJournal {
				reset.Journal = open()
			}
			golden(t, name, "kubewright reset, on the control plane of init.golden"+map[bool]string{true: "", false: ", without its journal"}[withJournal]+": what each phase does.\n"+transcript(h, Reset(), reset))
			for _, p := range append(bystanders, "/etc/crictl.yaml") {
				if f, ok := h.files[p]; !ok || withJournal && f.Content.Digest() != before[p].Content.Digest() {
					t.Errorf("%s is not what it was", p)
				}
			}
			for path, f := range h.files {
				if slices.ContainsFunc(bystanders, func(p string) bool { return p == path || f.Dir && strings.HasPrefix(p, path+"/") }) {
					continue
				}
				if f.Dir && !withJournal {
					continue // stays, empty
				}
				if strings.HasPrefix(path, "/etc/kubernetes/") || strings.HasPrefix(path, "/var/lib/etcd/") || strings.HasPrefix(path, "/var/lib/kubelet/") {
					t.Errorf("%s is left", path)
				}
				if _, ok := before[path]; withJournal && !ok && path != "/opt/cni/bin/somebody" && path != "/etc/sysctl.d/99-kubewright.conf" &&
					!strings.HasPrefix(path, "/sys/") && !strings.HasPrefix(path, "/proc/") {
					t.Errorf("%s is left", path)
				}
			}
			if _, ok := h.files["/usr/local/bin/kubelet"]; ok == withJournal {
				t.Errorf("the kubelet is there: %t", ok)
			}
		})
	}
}

// A host may run an etcd that has nothing to do with Kubernetes, or one that Kubernetes only uses.
func TestResetLeavesAnEtcdThatItHasNotMadeAlone(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	h.files[pki.KubeletConf] = text("")
	h.files["/var/lib/etcd/member/wal/0.wal"] = text("")
	h.answers["crictl --runtime-endpoint unix:///run/containerd/containerd.sock --timeout 2m pods --quiet"] = ""
	h.answers["iptables-save"], h.answers["ip6tables-save"] = "", ""
	target := h.target(c, config.WorkerRole)
	var err error
	if target.Journal, err = OpenJournal(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Reset(), target, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := h.files["/var/lib/etcd/member/wal/0.wal"]; !ok {
		t.Errorf("it did %q", h.done)
	}
	if _, ok := h.files[pki.KubeletConf]; ok {
		t.Error("it did nothing")
	}
}

// TestInitRunsWholeAndTwice runs all phases at once, as a user does: here the runner's
// order counts, and the race detector sees them side by side.
func TestInitRunsWholeAndTwice(t *testing.T) {
	h, c := newFakeHost(t), cluster()
	healthy(h)
	for _, b := range []string{"kubelet", "kubectl", "containerd", "crictl"} { // from the distribution's packages
		h.files["/usr/bin/"+b] = text("")
	}
	for i, want := range []State{Done, Unchanged} {
		h.done = nil
		var said events
		target := initTarget(h, c, nil)
		target.Report = said.report
		if err := Run(t.Context(), Init(), target, nil); err != nil {
			t.Fatal(err)
		}
		states := said.last()
		for _, name := range []string{"kernel", "install", "certs", "kubeconfig", "kubelet-start", "etcd", "control-plane/apiserver", "control-plane/controllers"} {
			if states[name] != want {
				t.Errorf("run %d: %s is %s, not %s", i+1, name, states[name], want)
			}
		}
		if len(states) != len(Init()) {
			t.Errorf("%d of %d phases were heard of", len(states), len(Init()))
		}
		if want == Unchanged && len(h.done) > 0 {
			t.Errorf("the second run did %q", h.done)
		}
		for _, m := range said.all {
			if strings.Contains(m.Message, "0123456789abcdef") {
				t.Errorf("the token's secret in an event: %s", m.Message)
			}
		}
	}
	if _, rest := pem.Decode([]byte(mustRead(h, pki.CA+".crt"))); len(rest) > 0 {
		t.Error("more than one certificate in ca.crt")
	}
}

func mustRead(h *fakeHost, path string) string {
	h.t.Helper()
	b, err := h.ReadFile(h.t.Context(), path)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}
