package ssh

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The rule that all have: what sudo's own defaults on this machine are should not matter.
const plainSudo = "Defaults:%U !requiretty, timestamp_timeout=0"

func TestSudoTakesThePasswordAndTheProgramNeverSeesIt(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	for kind, rules := range map[string][]string{
		"plain":   {plainSudo, "%U ALL=(ALL) ALL"},
		"usepty":  {plainSudo, "Defaults:%U use_pty", "%U ALL=(ALL) ALL"},
		"lecture": {plainSudo, "Defaults:%U lecture=always", "%U ALL=(ALL) ALL"},
		"cached":  {"Defaults:%U timestamp_type=global, timestamp_timeout=5", "%U ALL=(ALL) ALL"},
	} {
		t.Run(kind, func(t *testing.T) {
			user := testUser(t, kind, "very secret", "/bin/sh", rules...)
			h := server.login(user, Options{SudoPassword: "very secret"})
			for range 2 {
				out, errs, err := shellOutput(t, h, "id -u; echo an error >&2; cat", "input\n")
				if err != nil || out != "0\ninput\n" || errs != "an error\n" {
					t.Errorf("out %q, stderr %q, %v", out, errs, err)
				}
			}
		})
	}
}

// With NOPASSWD no password is sent. Were one sent all the same, to a sudo that has changed its
// mind, the started shell would throw it away.
func TestSudoWithoutPasswordThrowsAwayOneThatWasSent(t *testing.T) {
	sshHome(t)
	user := testUser(t, "nopass", "very secret", "/bin/sh", plainSudo, "%U ALL=(ALL) NOPASSWD: ALL")
	h := startSSHD(t).login(user, Options{SudoPassword: "very secret"})
	pipe, err := h.start(t.Context(), sudoPassword, "cat; echo end", "very secret")
	if err != nil {
		t.Fatal(err)
	}
	pipe.In.Close()
	out := readAll(t, pipe.Out)
	if out != "end\n" {
		t.Errorf("the program read %q", out)
	}
}

func TestSudoIsAskedForItsPasswordOnceForAllHosts(t *testing.T) {
	sshHome(t)
	user := testUser(t, "ask", "very secret", "/bin/sh", plainSudo, "%U ALL=(ALL) ALL")
	server := startSSHD(t)
	var asked []string
	c := newClient(t, Options{KnownHosts: []string{server.knows()}, Ask: func(prompt string) (string, error) {
		asked = append(asked, prompt)
		return "very secret", nil
	}})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			h, err := c.Connect(t.Context(), "one", server.to(user))
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			if out, _, err := shellOutput(t, h, "id -u", ""); err != nil || out != "0\n" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	all.Wait()
	if len(asked) != 1 || !strings.Contains(asked[0], user) {
		t.Errorf("asked %q", asked)
	}
}

func TestSudoRefusesAWrongPasswordOnceForAllHosts(t *testing.T) {
	sshHome(t)
	log := filepath.Join(t.TempDir(), "sudo.log")
	user := testUser(t, "wrong", "very secret", "/bin/sh", plainSudo, "Defaults:%U logfile="+log, "%U ALL=(ALL) ALL")
	server := startSSHD(t)
	c := newClient(t, Options{KnownHosts: []string{server.knows()}, SudoPassword: "mistyped"})
	for _, name := range []string{"one", "two"} {
		h, err := c.Connect(t.Context(), name, server.to(user))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		_, _, err = shellOutput(t, h, "id -u", "")
		wants(t, err, name, user, "sudo refused the password", "not tried again", "Sorry, try again.")
		if strings.Contains(err.Error(), "mistyped") {
			t.Errorf("%v shows the password", err)
		}
	}
	if n := strings.Count(text(t, log), "incorrect password attempt"); n != 1 || !strings.Contains(text(t, log), " 1 incorrect password attempt") {
		t.Errorf("sudo counted more than one attempt:\n%s", text(t, log))
	}
}

func TestSudoErrorsSayWhatToDo(t *testing.T) {
	sshHome(t)
	server := startSSHD(t)
	for kind, c := range map[string]struct {
		rules, want []string
		o           Options
	}{
		"tty":     {[]string{"Defaults:%U requiretty", "%U ALL=(ALL) NOPASSWD: ALL"}, []string{"must have a tty", "requiretty"}, Options{}},
		"nobody":  {[]string{plainSudo, "%U ALL=(ALL) ALL"}, []string{"wants a password", "nobody to ask", "NOPASSWD"}, Options{}},
		"unknown": {nil, []string{"not in the sudoers file", "log in as root"}, Options{SudoPassword: "very secret"}},
		"few":     {[]string{plainSudo, "%U ALL=(ALL) NOPASSWD: /bin/true"}, []string{"not allowed", "add `"}, Options{SudoPassword: "very secret"}},
		"refused": {[]string{plainSudo, "%U ALL=(ALL) ALL"}, []string{"Password of", "no terminal"}, Options{Ask: func(prompt string) (string, error) {
			return "", errors.New(prompt + "no terminal")
		}}},
	} {
		t.Run(kind, func(t *testing.T) {
			h := server.login(testUser(t, kind, "very secret", "/bin/sh", c.rules...), c.o)
			_, _, err := shellOutput(t, h, "id -u", "")
			wants(t, err, append(c.want, "one")...)
		})
	}
}

func TestShellStartsUnderEveryLoginShell(t *testing.T) {
	sshHome(t)
	server := startSSHD(t, "PermitUserEnvironment no")
	for _, shell := range []string{"sh", "bash", "dash", "tcsh", "csh", "fish", "zsh", "ksh"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("needs %s: %v", shell, err)
			}
			user := testUser(t, shell, "very secret", path, plainSudo, "%U ALL=(ALL) ALL")
			h := server.login(user, Options{SudoPassword: "very secret"})
			if out, _, err := shellOutput(t, h, `echo "$((1+1))" '!x' '\'; cat`, "input"); err != nil || out != "2 !x \\\ninput" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

func TestShellSkipsWhatALoginShellPrints(t *testing.T) {
	sshHome(t)
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	greeting := filepath.Join(dir, "shell")
	put(t, greeting, "#!/bin/sh\necho Welcome\nprintf 'no line end'\necho; exec /bin/sh \"$@\"\n", 0o755)
	user := testUser(t, "greeting", "very secret", greeting, plainSudo, "%U ALL=(ALL) NOPASSWD: ALL")
	server := startSSHD(t)
	if out, _, err := shellOutput(t, server.login(user, Options{}), "echo hello", ""); err != nil || out != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	user = testUser(t, "nologin", "very secret", "/usr/sbin/nologin", plainSudo, "%U ALL=(ALL) NOPASSWD: ALL")
	_, _, err := shellOutput(t, server.login(user, Options{}), "echo hello", "")
	wants(t, err, "one", "This account is currently not available")
}
