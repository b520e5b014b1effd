package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/e2e/servers"
)

// One lab for what only real hosts can show. It needs root and the artifacts; the first run builds for minutes.
func TestHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("real hosts: not with -short")
	}
	ctx := t.Context()
	l, err := New(ctx, Options{Name: "labtest", Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	image, err := l.Prepared(ctx, "test", "2", func(ctx context.Context, h *Host) error {
		return errors.Join(
			h.Write(ctx, "/etc/prepared", 0o600, strings.NewReader("etc")),
			h.Write(ctx, "/var/lib/prepared", 0o600, strings.NewReader("var")),
			h.Write(ctx, "/"+filepath.Join("var", sharedVar()[0], "blob"), 0o600, strings.NewReader("blob")))
	})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := l.HostsFrom(ctx, HostOptions{Image: image}, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	a, b := hosts[0], hosts[1]
	read := func(h *Host, file string) string {
		t.Helper()
		content, err := h.ReadFile(ctx, file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}

	t.Run("start from what was prepared", func(t *testing.T) {
		for _, h := range hosts {
			if got := read(h, "/etc/prepared") + read(h, "/var/lib/prepared") + read(h, "/"+filepath.Join("var", sharedVar()[0], "blob")); got != "etcvarblob" {
				t.Errorf("%s has %q", h.Name, got)
			}
		}
	})
	t.Run("do not share a disk", func(t *testing.T) {
		if err := a.Write(ctx, "/var/lib/prepared", 0o600, strings.NewReader("mine")); err != nil {
			t.Fatal(err)
		}
		if got := read(b, "/var/lib/prepared"); got != "var" {
			t.Errorf("b has %q", got)
		}
	})
	t.Run("have an identity of their own, which outlives a power cut", func(t *testing.T) {
		id := read(a, "/etc/machine-id")
		if len(strings.TrimSpace(id)) != 32 || id == read(b, "/etc/machine-id") {
			t.Errorf("machine-id of a: %q, of b: %q", id, read(b, "/etc/machine-id"))
		}
		if err := a.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if read(a, "/etc/machine-id") != id || read(a, "/var/lib/prepared") != "mine" {
			t.Error("a lost its machine-id or its disk")
		}
	})
	t.Run("let in whoever has the lab's key, as root and as a user with sudo", func(t *testing.T) {
		s, err := l.SSH(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			for _, user := range []string{"root", SSHUser} {
				argv := append([]string{"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"}, s.Args(user, h)...)
				out, err := exec.CommandContext(ctx, "ssh", append(argv, "id -un; sudo -n id -un; uname -n")...).CombinedOutput()
				if want := user + "\nroot\n" + h.Name + "\n"; err != nil || string(out) != want {
					t.Errorf("%s at %s: %v: %q, want %q", user, h.Name, err, out, want)
				}
			}
		}
	})
	t.Run("know each other by name and address", func(t *testing.T) {
		for _, to := range []string{"b", b.IP} {
			if _, _, err := a.Exec(ctx, nil, "ping", "-c1", "-W5", to); err != nil {
				t.Error(err)
			}
		}
		found, err := l.Find(ctx, "b")
		if err != nil || found.IP != b.IP {
			t.Errorf("found %v, %v", found, err)
		}
	})
	t.Run("reach this machine's servers", func(t *testing.T) {
		if err := servers.Reach(ctx); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := faulty.Serve(dir, faulty.Options{Address: servers.Reachable + ":0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if out, _, err := a.Exec(ctx, nil, "busybox", "wget", "-qO-", s.URL+"/f"); err != nil || out != "hello" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("report a failed command", func(t *testing.T) {
		_, _, err := a.Exec(ctx, nil, "sh", "-c", "echo no >&2; exit 7")
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != 7 || exit.Stderr != "no\n" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("take files with their mode and see the bundle", func(t *testing.T) {
		local := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(local, []byte("x"), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := a.CopyTo(ctx, local, "/opt/new/f"); err != nil {
			t.Fatal(err)
		}
		if out, _, err := a.Exec(ctx, nil, "stat", "-c", "%a %s", "/opt/new/f", BundleDir+"/lock.yaml"); err != nil || !strings.HasPrefix(out, "750 1\n") {
			t.Errorf("got %q, %v", out, err)
		}
		if err := a.Write(ctx, BundleDir+"/new", 0o600, strings.NewReader("")); err == nil {
			t.Error("a host could write to the bundle")
		}
	})
}
