package ssh

import (
	"io"
	"strings"
	"testing"
)

func TestShellRunsAsRootAndItsInputArrivesToTheByte(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	input := "BEGIN \x00\xff\r\n$(id) 'quoted'\n" + strings.Repeat("x", 1<<20)
	for _, user := range []string{"root", testUser(t, "free", "secret", "/bin/sh", "%U ALL=(ALL) NOPASSWD: ALL")} {
		h := server.login(user, Options{})
		for range 2 { // the first shell finds out about sudo
			out, errs, err := shellOutput(t, h, "id -u; echo it\\'s; echo 'an error' >&2; exec cat\n", input)
			if err != nil {
				t.Fatal(err)
			}
			if want := "0\nit's\n" + input; out != want {
				t.Errorf("%s: out is %.80q of %d bytes, want %d", user, out, len(out), len(want))
			}
			if errs != "an error\n" {
				t.Errorf("%s: stderr is %q", user, errs)
			}
		}
	}
}

func TestShellTakesALongProgram(t *testing.T) {
	sshHome(t)
	h := startSSHD(t).login("root", Options{})
	out, _, err := shellOutput(t, h, "# "+strings.Repeat("long ", 100_000)+"\necho end; cat", "input")
	if err != nil || out != "end\ninput" {
		t.Errorf("%q, %v", out, err)
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
