package ssh

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestSSHDialTellsRefusedFromForbidden(t *testing.T) {
	sshHome(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	h := startSSHD(t).login("root", Options{})
	if _, err := h.Dial(t.Context(), "tcp", closed.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		t.Errorf("a closed port: %v", err)
	}
	dir := t.TempDir()
	if _, err := h.Dial(t.Context(), "unix", dir+"/absent"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a missing socket: %v", err)
	}
	l, err := net.Listen("unix", dir+"/silent")
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := h.Dial(t.Context(), "unix", dir+"/silent"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a socket that nobody listens at: %v", err)
	}

	open := echo(t, "tcp", "127.0.0.1:0")
	h = startSSHD(t, "AllowTcpForwarding no", "AllowStreamLocalForwarding no").login("root", Options{})
	conn, err := h.Dial(t.Context(), "tcp", "127.0.0.1:"+portOf(open)) // goes directly
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_, err = h.Dial(t.Context(), "tcp", closed.Addr().String())
	wants(t, err, "one", "AllowTcpForwarding", "refused")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v is no ECONNREFUSED", err)
	}
	_, err = h.Dial(t.Context(), "unix", echo(t, "unix", dir+"/open"))
	wants(t, err, "one", "AllowStreamLocalForwarding")
	_, err = h.Dial(t.Context(), "unix", dir+"/absent")
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v is no ENOENT", err)
	}
}

func TestSSHDialReachesWhatListensThere(t *testing.T) {
	sshHome(t)
	h := startSSHD(t).login("root", Options{})
	for _, addr := range []string{echo(t, "tcp", "127.0.0.1:0"), echo(t, "unix", t.TempDir()+"/socket")} {
		network := "tcp"
		if strings.HasPrefix(addr, "/") {
			network = "unix"
		}
		conn, err := h.Dial(t.Context(), network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
	}
}
