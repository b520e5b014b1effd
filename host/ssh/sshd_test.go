package ssh

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/kubewright/kubewright/config"
)

const sshdPath = "/usr/sbin/sshd"

// sshd is a real OpenSSH server on a loopback port, with a host key of its own.
type sshd struct {
	t       *testing.T
	dir     string // others may enter it
	address string
	port    int
	hostKey ssh.PublicKey
	keyFile string // lets every user in

	mu  sync.Mutex
	log bytes.Buffer
}

// startSSHD starts a server; lines are added to its configuration, and win.
func startSSHD(t *testing.T, lines ...string) *sshd {
	t.Helper()
	return startSSHDAt(t, "127.0.0.1", 0, lines...)
}

func startSSHDAt(t *testing.T, address string, port int, lines ...string) *sshd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sshd lets in as other users")
	}
	if _, err := os.Stat(sshdPath); err != nil {
		t.Skipf("needs openssh-server: %v", err)
	}
	s := &sshd{t: t, dir: t.TempDir(), address: address, port: port}
	for _, dir := range []string{s.dir, filepath.Dir(s.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if s.port == 0 {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		s.port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	s.hostKey = writeKey(t, filepath.Join(s.dir, "host_key"), "")
	s.keyFile = filepath.Join(s.dir, "id")
	s.allow(writeKey(t, s.keyFile, ""))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	configuration := append(lines,
		"ListenAddress "+net.JoinHostPort(address, strconv.Itoa(s.port)),
		"HostKey "+filepath.Join(s.dir, "host_key"),
		"AuthorizedKeysFile "+filepath.Join(s.dir, "authorized_keys"),
		"PidFile none", "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes", "LogLevel VERBOSE", "MaxStartups 100", "MaxSessions 100")
	put(t, filepath.Join(s.dir, "sshd_config"), strings.Join(configuration, "\n")+"\n", 0o644)
	cmd := exec.Command(sshdPath, "-D", "-e", "-f", filepath.Join(s.dir, "sshd_config"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listens := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if strings.Contains(lines.Text(), "Server listening on") {
				listens <- true
			}
		}
		close(listens)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("sshd said:\n%s", s.logged())
		}
	})
	if !<-listens {
		t.Fatalf("sshd did not start:\n%s", s.logged())
	}
	return s
}

func (s *sshd) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// allow adds a key that lets every user in.
func (s *sshd) allow(key ssh.PublicKey) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, "authorized_keys"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(ssh.MarshalAuthorizedKey(key)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sshd) addr() string { return net.JoinHostPort(s.address, strconv.Itoa(s.port)) }

// knows is a known_hosts file with the server's key.
func (s *sshd) knows() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "known_hosts")
	put(s.t, path, knownLine(s.addr(), s.hostKey), 0o600)
	return path
}

func (s *sshd) to(user string) config.SSH {
	return config.SSH{Address: s.address, Port: int32(s.port), User: user, IdentityFile: s.keyFile}
}

// sshHome is a home without keys, agent and configuration.
func sshHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	return home
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// login connects to a server whose key is known.
func (s *sshd) login(user string, o Options) *Transport {
	s.t.Helper()
	o.KnownHosts = append(o.KnownHosts, s.knows())
	h, err := newClient(s.t, o).Connect(s.t.Context(), "one", s.to(user))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { h.Close() })
	return h
}

// output runs a program and returns what it printed.
func shellOutput(t *testing.T, h *Transport, program, input string) (string, string, error) {
	t.Helper()
	pipe, err := h.Shell(t.Context(), program)
	if err != nil {
		return "", "", err
	}
	defer pipe.Close()
	if _, err := io.WriteString(pipe.In, input); err != nil {
		return "", "", err
	}
	if err := pipe.In.Close(); err != nil {
		return "", "", err
	}
	out, err := io.ReadAll(pipe.Out)
	if err != nil {
		return string(out), "", err
	}
	errs, err := io.ReadAll(pipe.Err)
	return string(out), string(errs), err
}

// echo listens, and sends back what it gets.
func echo(t *testing.T, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
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
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// knownLine is a line of known_hosts.
func knownLine(addr string, key ssh.PublicKey) string {
	return knownhosts.Line([]string{addr}, key) + "\n"
}

// wants is an error with all these words.
func wants(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func put(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
