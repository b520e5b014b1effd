package ssh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// testUser makes a user with a password and a rule of sudo, for as long as the test runs. Rules
// have %U for the user's name.
func testUser(t *testing.T, kind, password, shell string, rules ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes users")
	}
	for _, tool := range []string{"sudo", "useradd", "visudo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	removeLeftUsers()
	name := fmt.Sprintf("kwssh%d%s", os.Getpid(), kind)
	rule := filepath.Join("/etc/sudoers.d", name)
	remove := func() {
		os.Remove(rule)
		exec.Command("userdel", "--force", name).Run()
	}
	remove()
	t.Cleanup(remove)
	if out, err := exec.Command("useradd", "--no-create-home", "--home-dir", "/", "--shell", shell, name).CombinedOutput(); err != nil {
		t.Fatalf("useradd: %v: %s", err, out)
	}
	set := exec.Command("chpasswd")
	set.Stdin = strings.NewReader(name + ":" + password + "\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("chpasswd: %v: %s", err, out)
	}
	if len(rules) > 0 {
		put(t, rule, strings.ReplaceAll(strings.Join(rules, "\n"), "%U", name)+"\n", 0o440)
		if out, err := exec.Command("visudo", "-c", "-f", rule).CombinedOutput(); err != nil {
			t.Fatalf("visudo: %v: %s", err, out)
		}
	}
	return name
}

// removeLeftUsers removes those of test processes that were killed.
var removeLeftUsers = sync.OnceFunc(func() {
	users, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(users)) {
		name, _, _ := strings.Cut(line, ":")
		rest, ours := strings.CutPrefix(name, "kwssh")
		pid, err := strconv.Atoi(strings.TrimRight(rest, "abcdefghijklmnopqrstuvwxyz"))
		if !ours || err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
			os.Remove(filepath.Join("/etc/sudoers.d", name))
			exec.Command("userdel", "--force", name).Run()
		}
	}
})
