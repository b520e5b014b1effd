package phases

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/pki"
)

// internal is a cluster that only its own hosts know by name.
func internal() *config.Cluster {
	c := &config.Cluster{}
	c.Spec.ControlPlane.Endpoint = "prod" + config.InternalDomain
	c.Spec.Hosts = []config.Node{
		{Name: "cp-1", Roles: []config.Role{config.ControlPlaneRole}, Address: "192.0.2.11"},
		{Name: "cp-2", Roles: []config.Role{config.ControlPlaneRole}, Address: "192.0.2.12"},
	}
	c.Default(config.Versions{})
	return c
}

// lineFile is a file of this machine, and a journal about it.
type lineFile struct {
	*Target
	t     *testing.T
	path  string
	inode uint64
	said  events
}

func newLineFile(t *testing.T, content string) *lineFile {
	t.Helper()
	f := &lineFile{t: t, path: filepath.Join(t.TempDir(), "hosts")}
	if content != "none" {
		f.write(content)
		f.inode = f.stat()
	}
	f.Target = &Target{Host: host.Local{}, Report: f.said.report}
	f.reopen(newFakeHost(t))
	return f
}

// reopen is what the next run does, which knows only what was written down.
func (f *lineFile) reopen(h host.Host) {
	f.t.Helper()
	var err error
	if f.Journal, err = OpenJournal(f.t.Context(), h); err != nil {
		f.t.Fatal(err)
	}
}

func (f *lineFile) write(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(content), 0o640); err != nil {
		f.t.Fatal(err)
	}
}

func (f *lineFile) stat() uint64 {
	f.t.Helper()
	info, err := os.Stat(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// is checks the content, and that the file is the one that it was.
func (f *lineFile) is(want string) {
	f.t.Helper()
	b, err := os.ReadFile(f.path)
	if want == "none" && errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil || string(b) != want {
		f.t.Errorf("it holds %q, not %q: %v", b, want, err)
	}
	if f.inode != 0 && f.stat() != f.inode {
		f.t.Error("the file was replaced")
	}
}

func (f *lineFile) want(lines ...string) {
	f.t.Helper()
	if err := f.writeLines(f.t.Context(), f.path, manifests.HostsMark, lines); err != nil {
		f.t.Fatal(err)
	}
}

func (f *lineFile) restore() {
	f.t.Helper()
	f.reopen(f.Journal.host)
	if err := f.restoreLines(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

func TestLinesComeAndGoInPlaceAndNothingElseDoes(t *testing.T) {
	for name, before := range map[string]string{
		"as usual":         "127.0.0.1 localhost\n# a comment\n\n",
		"no last newline":  "127.0.0.1 localhost",
		"empty":            "",
		"no file":          "none",
		"blank lines":      "127.0.0.1 localhost\n\n\n",
		"Windows":          "127.0.0.1 localhost\r\n",
		"large":            strings.Repeat("192.0.2.1 a\n", 200_000),
		"with a like mark": "192.0.2.1 a # not kubewright's\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newLineFile(t, before)
			has := strings.TrimSuffix(before, "none")
			if has != "" && !strings.HasSuffix(has, "\n") {
				has += "\n"
			}
			f.want("127.0.0.1 x # kubewright", "192.0.2.11 x # kubewright", "192.0.2.12 x # kubewright")
			f.is(has + "127.0.0.1 x # kubewright\n192.0.2.11 x # kubewright\n192.0.2.12 x # kubewright\n")
			n := f.Journal.seq
			f.want("127.0.0.1 x # kubewright", "192.0.2.11 x # kubewright", "192.0.2.12 x # kubewright")
			if f.Journal.seq != n {
				t.Error("what was right was written again")
			}
			f.want("127.0.0.1 x # kubewright", "192.0.2.12 x # kubewright") // a control plane has gone
			f.is(has + "127.0.0.1 x # kubewright\n192.0.2.12 x # kubewright\n")
			f.restore()
			f.is(before)
			f.restore()
			f.is(before)
		})
	}
}

func TestLinesOfOthersStay(t *testing.T) {
	f := newLineFile(t, "127.0.0.1 localhost\n")
	f.want("127.0.0.1 x # kubewright", "192.0.2.11 x # kubewright")
	f.write("127.0.0.1 localhost\n127.0.0.1 x # kubewright\n192.0.2.99 x # kubewright\n192.0.2.1 theirs\n")
	f.restore()
	f.is("127.0.0.1 localhost\n192.0.2.99 x # kubewright\n192.0.2.1 theirs\n")
	if m := strings.Join(f.said.messages(), "\n"); !strings.Contains(m, "192.0.2.99") {
		t.Errorf("it said %q", m)
	}
	// The next run makes them right, where they stand among others.
	f.want("127.0.0.1 x # kubewright")
	f.is("127.0.0.1 localhost\n192.0.2.1 theirs\n127.0.0.1 x # kubewright\n")
}

// A run can be killed after each of the two steps that shorten a file.
func TestLinesOfAKilledRunAreWholeAndGo(t *testing.T) {
	f := newLineFile(t, "127.0.0.1 localhost\n")
	f.want("127.0.0.1 x # kubewright", "192.0.2.11 x # kubewright")
	f.write("127.0.0.1 localhost\n127.0.0.1 x # kubewright\n" + strings.Repeat("\n", len("192.0.2.11 x # kubewright\n")))
	f.restore()
	f.is("127.0.0.1 localhost\n")
}

func TestTranscriptOfJoinWithAnInternalEndpoint(t *testing.T) {
	h, c := newFakeHost(t), internal()
	healthy(h)
	h.files["/proc/sys/kernel/hostname"] = text("w-1\n")
	h.files["/etc/hosts"] = text("127.0.0.1 localhost\n")
	b := testBundle(t, c)
	plain := cluster() // all that the host knows before it finds the cluster
	found := discovered(t, c)
	join := func() *Target {
		target := joinTarget(h, plain, b)
		target.Discover = found
		return target
	}
	golden(t, "join-internal", "kubewright join --bundle, on a new Debian host, of a cluster with an internal endpoint: what each phase does.\n"+transcript(h, Join(), join()))
	if got := mustRead(h, "/etc/hosts"); !strings.HasPrefix(got, "127.0.0.1 localhost\n127.0.0.1 prod.kubewright.internal # kubewright\n192.0.2.1") {
		t.Errorf("/etc/hosts is %q", got)
	}
	nothingOnHost(t, transcript(h, Join(), join()))

	target := join()
	target.BindPort = 7443
	if err := Run(t.Context(), Select(Join(), "endpoint"), target, nil); err == nil || !strings.Contains(err.Error(), "7443") {
		t.Errorf("an API server at another port than all others: %v", err)
	}
}

// A host that joins cannot resolve the name of the API yet.
func TestDiscoveryStaysWhereItFoundAnInternalCluster(t *testing.T) {
	c := internal()
	secrets, err := pki.New(c, c.Spec.Hosts[0], nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := secrets.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	pair := map[string][]byte{}
	for _, f := range files {
		if pair[filepath.Base(f.Path)], err = bytesOf(f.Content); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := tls.X509KeyPair(pair["apiserver.crt"], pair["apiserver.key"])
	if err != nil {
		t.Fatal(err)
	}
	a := &fakeAPI{objects: map[string]addons.Object{}, bearer: tokenText}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	a.StartTLS()
	t.Cleanup(a.Close)
	a.cluster(t, c, true)
	info, err := addons.ClusterInfo("https://prod.kubewright.internal:6443", secrets.CACert(), []addons.Token{token(t)})
	if err != nil {
		t.Fatal(err)
	}
	a.put(info...)
	d, err := Discover(host.Local{}, DiscoverOptions{Endpoint: a.Listener.Addr().String(), Token: token(t), Pins: secrets.CAHashes(), Timeout: 10 * time.Second})(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if name, _ := d.Cluster.InternalEndpoint(); d.Server != "https://prod.kubewright.internal:6443" || name != "prod.kubewright.internal" {
		t.Errorf("%+v", d)
	}
	join, hosts, err := ClusterJoinCommand(t.Context(), d.API, token(t))
	if err != nil || !strings.HasPrefix(join, "kubewright join 192.0.2.11:6443 --token ") {
		t.Errorf("a host that is yet to join is told %q, %v", join, err)
	}
	if want := []string{"192.0.2.12 prod.kubewright.internal # kubewright", "192.0.2.11 prod.kubewright.internal # kubewright"}; !slices.Equal(hosts, want) {
		t.Errorf("kubeadm's hosts are to know %q, want %q", hosts, want)
	}
}
