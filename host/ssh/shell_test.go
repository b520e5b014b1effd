package ssh

import (
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
