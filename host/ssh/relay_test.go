package ssh

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Relays need a host whose systemd runs, and a user there who may use sudo.
func TestASudoUserReachesSocketsOfRoot(t *testing.T) {
	at, key, ok := strings.Cut(os.Getenv("KUBEWRIGHT_TEST_SSH"), " ")
	if !ok {
		t.Skip(`needs a host with systemd and a user with sudo: KUBEWRIGHT_TEST_SSH="USER@HOST[:PORT] KEYFILE"`)
	}
	sshHome(t)
	name, to, err := parseJump(at)
	if err != nil {
		t.Fatal(err)
	}
	to.IdentityFile = key
	known := t.TempDir() + "/known_hosts"
	connect := func() *Transport {
		h, err := newClient(t, Options{KnownHosts: []string{known}, AcceptNew: true, SudoPassword: os.Getenv("KUBEWRIGHT_TEST_SUDO")}).Connect(t.Context(), name, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	h := connect()
	const socket = "/run/systemd/private" // root's alone, and it speaks D-Bus
	talk := func(h *Transport) {
		conn, err := h.Dial(t.Context(), "unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "\x00AUTH EXTERNAL 30\r\n"); err != nil {
			t.Error(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
			t.Errorf("%q, %v", line, err)
		}
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { talk(h) })
	}
	all.Wait()
	const left = "systemctl list-units --all --plain --no-legend 'kubewright-relay-*'; ls -A /run/kubewright-$SUDO_UID; stat -c '%a %u' /run/kubewright-$SUDO_UID/*; id -u $SUDO_USER"
	units, _, err := shellOutput(t, h, left, "")
	if err != nil || strings.Count(units, ".socket") != 1 || strings.Count(units, ".service") != 1 || !strings.Contains(units, "600 ") {
		t.Errorf("%s%v", units, err)
	}

	// A run that was killed leaves its relay; the next one replaces it.
	h.close(errors.New("killed"))
	h = connect()
	talk(h)
	if _, err := h.Dial(t.Context(), "unix", "/run/absent"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a missing socket: %v", err)
	}
	if _, _, err := shellOutput(t, h, "systemctl stop 'kubewright-relay-*'", ""); err != nil {
		t.Error(err)
	}
	talk(h) // it is made anew
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	h = connect()
	if units, _, err := shellOutput(t, h, left, ""); err != nil || strings.Contains(units, "relay") || strings.Contains(units, ".sock") {
		t.Errorf("left behind: %s%v", units, err)
	}
}
