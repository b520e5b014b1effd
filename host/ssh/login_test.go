package ssh

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/kubewright/kubewright/config"
)

func TestUnknownHostKeysAreRefusedBeforeAnyKeyIsUsed(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	path := filepath.Join(t.TempDir(), ".ssh", "known_hosts")
	_, err := newClient(t, Options{KnownHosts: []string{path}}).Connect(t.Context(), "one", server.to("root"))
	wants(t, err, "one", server.addr(), "not known", ssh.FingerprintSHA256(server.hostKey), "--accept-new-host-keys", "ssh-keyscan -p "+strconv.Itoa(server.port))
	if strings.Contains(server.logged(), "publickey") {
		t.Errorf("a key was used:\n%s", server.logged())
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the key was stored without having been asked to")
	}
}

func TestUnknownHostKeysAreStoredOnDemand(t *testing.T) {
	sshHome(t)
	path := filepath.Join(t.TempDir(), ".ssh", "known_hosts")
	c := newClient(t, Options{KnownHosts: []string{path}, AcceptNew: true})
	servers := []*sshd{startSSHD(t), startSSHD(t), startSSHDAt(t, "::1", 0)}
	var all sync.WaitGroup
	for _, s := range append(servers, servers...) {
		all.Go(func() {
			h, err := c.Connect(t.Context(), "one", s.to("root"))
			if err != nil {
				t.Error(err)
				return
			}
			h.Close()
		})
	}
	all.Wait()
	if n := strings.Count(text(t, path), "\n"); n != len(servers) {
		t.Errorf("%d lines for %d servers:\n%s", n, len(servers), text(t, path))
	}
	for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", p, fi.Mode(), err)
		}
	}
	strict := newClient(t, Options{KnownHosts: []string{path}})
	for _, s := range servers {
		h, err := strict.Connect(t.Context(), "one", s.to("root"))
		if err != nil {
			t.Error(err)
			continue
		}
		h.Close()
	}
}

func TestChangedHostKeysAreRefusedWhateverTheFlags(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	other := writeKey(t, filepath.Join(t.TempDir(), "key"), "")
	for name, line := range map[string]string{
		"plain":  knownLine(server.addr(), other),
		"hashed": knownhosts.HashHostname(knownhosts.Normalize(server.addr())) + " " + strings.SplitN(knownLine(server.addr(), other), " ", 2)[1],
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "known_hosts")
			put(t, path, "# mine\n"+line, 0o600)
			_, err := newClient(t, Options{KnownHosts: []string{path}, AcceptNew: true}).Connect(t.Context(), "one", server.to("root"))
			wants(t, err, "one", "HAS CHANGED", path+", line 2", ssh.FingerprintSHA256(server.hostKey), ssh.FingerprintSHA256(other), "ssh-keygen -R")
			if got := text(t, path); got != "# mine\n"+line {
				t.Errorf("the file was changed:\n%s", got)
			}
		})
	}
	if strings.Contains(server.logged(), "publickey") {
		t.Errorf("a key was used:\n%s", server.logged())
	}
}

func TestALineWithoutEndIsNotGluedToTheNext(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	path := filepath.Join(t.TempDir(), "known_hosts")
	put(t, path, strings.TrimSpace(knownLine("192.0.2.1:22", server.hostKey)), 0o600)
	h, err := newClient(t, Options{KnownHosts: []string{path}, AcceptNew: true}).Connect(t.Context(), "one", server.to("root"))
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	if want := knownLine("192.0.2.1:22", server.hostKey) + knownLine(server.addr(), server.hostKey); text(t, path) != want {
		t.Errorf("%s\nwant\n%s", text(t, path), want)
	}
}

// The server has two keys; the one that known_hosts has is asked for.
func TestTheKnownKindOfHostKeyIsAskedFor(t *testing.T) {
	sshHome(t)
	second := filepath.Join(t.TempDir(), "ecdsa")
	other := writeECDSA(t, second)
	server := startSSHD(t, "HostKey "+second)
	for _, key := range []ssh.PublicKey{server.hostKey, other} {
		path := filepath.Join(t.TempDir(), "known_hosts")
		put(t, path, knownLine(server.addr(), key), 0o600)
		h, err := newClient(t, Options{KnownHosts: []string{path}}).Connect(t.Context(), "one", server.to("root"))
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	path := filepath.Join(t.TempDir(), "known_hosts")
	put(t, path, knownLine(server.addr(), rsaKey(t)), 0o600)
	_, err := newClient(t, Options{KnownHosts: []string{path}, AcceptNew: true}).Connect(t.Context(), "one", server.to("root"))
	wants(t, err, "one", "no host key of the kinds", "ssh-rsa", "refused")
}

func TestAPassphraseIsAskedForOnce(t *testing.T) {
	home := sshHome(t)
	server := startSSHD(t)
	path := filepath.Join(home, ".ssh", "id_ed25519")
	server.allow(writeKey(t, path, "open sesame"))
	var asked atomic.Int32
	c := newClient(t, Options{KnownHosts: []string{server.knows()}, Ask: func(prompt string) (string, error) {
		if !strings.Contains(prompt, path) {
			t.Errorf("prompt %q", prompt)
		}
		if asked.Add(1) == 1 {
			return "mistyped", nil
		}
		return "open sesame", nil
	}})
	to := server.to("root")
	to.IdentityFile = "" // the default one is found
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			h, err := c.Connect(t.Context(), fmt.Sprint("host-", i), to)
			if err != nil {
				t.Error(err)
				return
			}
			h.Close()
		})
	}
	all.Wait()
	if asked.Load() != 2 {
		t.Errorf("asked %d times, want one mistyped and one right", asked.Load())
	}
}

func TestAPassphraseThatNobodyKnows(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	path := filepath.Join(t.TempDir(), "key")
	server.allow(writeKey(t, path, "open sesame"))
	to := server.to("root")
	to.IdentityFile = path
	for want, ask := range map[string]func(string) (string, error){
		"nobody to ask":          nil,
		"three wrong passphrase": func(string) (string, error) { return "mistyped", nil },
		"no terminal":            func(string) (string, error) { return "", errors.New("no terminal") },
	} {
		_, err := newClient(t, Options{KnownHosts: []string{server.knows()}, Ask: ask}).Connect(t.Context(), "one", to)
		wants(t, err, "one", path, want)
		if strings.Contains(err.Error(), "mistyped") {
			t.Errorf("%v shows what was typed", err)
		}
	}
	// A key that the server does not want is never opened.
	other := filepath.Join(t.TempDir(), "other")
	writeKey(t, other, "open sesame")
	to.IdentityFile = other
	_, err := newClient(t, Options{KnownHosts: []string{server.knows()}, Ask: func(string) (string, error) {
		t.Error("asked for a key that the server does not know")
		return "", nil
	}}).Connect(t.Context(), "one", to)
	wants(t, err, "not let in", other)
}

func TestTheAgentSignsForAKeyWithPassphrase(t *testing.T) {
	home := sshHome(t)
	server := startSSHD(t)
	path := filepath.Join(home, "key")
	server.allow(writeKey(t, path, "open sesame"))
	private, err := ssh.ParseRawPrivateKeyWithPassphrase([]byte(text(t, path)), []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", startAgent(t, private))
	to := server.to("root")
	for _, identity := range []string{path, ""} {
		to.IdentityFile = identity
		h, err := newClient(t, Options{KnownHosts: []string{server.knows()}}).Connect(t.Context(), "one", to)
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	// IdentitiesOnly leaves the agent's other keys alone.
	put(t, filepath.Join(home, ".ssh", "config"), "Host *\n IdentitiesOnly yes\n", 0o600)
	other := filepath.Join(home, "other")
	writeKey(t, other, "")
	to.IdentityFile = other
	_, err = newClient(t, Options{KnownHosts: []string{server.knows()}}).Connect(t.Context(), "one", to)
	wants(t, err, "one", "the user root was not let in", other)
	put(t, filepath.Join(home, ".ssh", "config"), "Host *\n IdentityAgent none\n", 0o600)
	_, err = newClient(t, Options{KnownHosts: []string{server.knows()}}).Connect(t.Context(), "one", to)
	wants(t, err, "one", "the user root was not let in", other)
}

func startAgent(t *testing.T, private any) string {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				agent.ServeAgent(ring, conn)
				conn.Close()
			}()
		}
	}()
	return path
}

func TestACertificateBesideItsKeyIsUsed(t *testing.T) {
	sshHome(t)
	dir := t.TempDir()
	ca := writeKey(t, filepath.Join(dir, "ca"), "")
	put(t, filepath.Join(dir, "ca.pub"), string(ssh.MarshalAuthorizedKey(ca)), 0o644)
	server := startSSHD(t, "TrustedUserCAKeys "+filepath.Join(dir, "ca.pub"))
	path := filepath.Join(dir, "key")
	public := writeKey(t, path, "")
	to := server.to("root")
	to.IdentityFile = path
	_, err := newClient(t, Options{KnownHosts: []string{server.knows()}}).Connect(t.Context(), "one", to)
	wants(t, err, "not let in", path)
	cert := &ssh.Certificate{Key: public, CertType: ssh.UserCert, ValidPrincipals: []string{"root"}, ValidBefore: ssh.CertTimeInfinity,
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	signer, err := ssh.ParsePrivateKey([]byte(text(t, filepath.Join(dir, "ca"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	put(t, path+"-cert.pub", string(ssh.MarshalAuthorizedKey(cert)), 0o644)
	h, err := newClient(t, Options{KnownHosts: []string{server.knows()}}).Connect(t.Context(), "one", to)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
}

func TestErrorsOfALoginSayWhatWasTried(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	c := newClient(t, Options{KnownHosts: []string{server.knows()}})
	_, err := c.Connect(t.Context(), "one", server.to("nobody-of-that-name"))
	wants(t, err, "one", "nobody-of-that-name", "was not let in", server.keyFile, "authorized_keys")
	to := server.to("root")
	to.IdentityFile = "/absent/key"
	_, err = c.Connect(t.Context(), "one", to)
	wants(t, err, "/absent/key", "no such file")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = c.Connect(t.Context(), "one", config.SSH{Address: "127.0.0.1", Port: int32(l.Addr().(*net.TCPAddr).Port)})
	wants(t, err, "one", l.Addr().String(), "not reachable", "refused", "sshd")
}
