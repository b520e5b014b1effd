package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// refusals wants up to end before anybody is let in, or anything is changed.
func (s *site) refusals() {
	const entered = `journalctl --no-pager --output cat --unit ssh | grep -c Accepted; ls -d /run/kubewright 2>/dev/null; true`
	before, entries := s.now(), s.everywhere(entered)
	refused := func(parts []string, args ...string) {
		s.t.Helper()
		_, said := s.do(3, "up", append([]string{"--bundle", s.Bundle}, args...)...)
		for _, p := range parts {
			if !strings.Contains(said, p) {
				s.t.Errorf("the message lacks %q: %s", p, said)
			}
		}
	}
	unknown := s.file("nobody", "")
	refused([]string{"its host key is not known: ssh-ed25519 SHA256:", "ssh-keygen -lf", "--accept-new-host-keys"}, "--known-hosts", unknown)

	known := s.knownHosts()
	swapped := s.file("swapped", strings.NewReplacer(s.members[0].IP, s.members[1].IP, s.members[1].IP, s.members[0].IP, "up-1", "up-2", "up-2", "up-1").Replace(known))
	refused([]string{"its HOST KEY HAS CHANGED", "ssh-keygen -R"}, "--known-hosts", swapped, "--accept-new-host-keys")

	restore := s.edited("cluster.yaml", "user: ops", "user: nobody")
	refused([]string{"the user nobody was not let in", "authorized_keys"})
	restore()

	restore = s.edited("ssh_config", "IdentitiesOnly yes", "IdentitiesOnly yes\n  ProxyJump 127.0.0.1:1")
	refused([]string{"127.0.0.1:1", "not reachable", "see to the jump host"})
	restore()
	if now := s.everywhere(entered); now != entries {
		s.t.Errorf("somebody was let in: before\n%s\nafter\n%s", entries, now)
	}

	run(s.ctx, s.t, s.members[0].Host, "sh", "-c", "chmod -x /usr/bin/flock /usr/bin/tar")
	refused([]string{"this machine lacks flock tar: install"})
	run(s.ctx, s.t, s.members[0].Host, "chmod", "+x", "/usr/bin/flock", "/usr/bin/tar")
	run(s.ctx, s.t, s.members[0].Host, "sh", "-c", "mv /usr/bin/nproc /usr/bin/.nproc")
	refused([]string{s.members[0].Name, "[FileExisting-nproc]"})
	run(s.ctx, s.t, s.members[0].Host, "sh", "-c", "mv /usr/bin/.nproc /usr/bin/nproc")

	// Who only looks may believe new keys, and finds them noted.
	looked := []string{"--drift=false", "--known-hosts", unknown}
	s.do(1, "status", append(looked, "--accept-new-host-keys")...)
	if b, err := os.ReadFile(unknown); err != nil || bytes.Count(b, []byte("\n")) != len(s.members) {
		s.t.Errorf("the keys were noted as %q: %v", b, err)
	}
	for name, h := range s.status(1, looked...) {
		if !h.Reachable {
			s.t.Errorf("%s is not reached: %s", name, h.Error)
		}
	}
	if done := s.since(before); len(done) > 0 {
		s.t.Errorf("it has done %v", done)
	}
}

func (s *site) knownHosts() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, "ssh_config"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(b), "UserKnownHostsFile ")
	if b, err = os.ReadFile(strings.TrimSpace(path)); err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

const (
	password = "swordfish-7391-marmalade"
	// wrong passwords are counted by sudo, as accounts are locked after a few.
	wrongOnes = "journalctl --no-pager --output cat --identifier sudo | grep -c 'incorrect password' || true"
	// leaks names whatever on a host has the password, which is the first line of standard input.
	leaks = `read -r p
		for f in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do case $(tr '\0' ' ' <$f 2>/dev/null) in *"$p"*) echo $f;; esac; done
		case $(journalctl --no-pager --since -5min --output export | grep -a swordfish) in *"$p"*) echo the journal;; esac
		find /etc /var /run /tmp /root /home -xdev -newer /etc/sudoers.d/ops -type f -size -8M ! -path '/var/lib/containerd/*' -exec grep -lasF -e swordfish {} + || true`
)

// forbidden wants up to name what sshd does not let it do.
func (s *site) forbidden() {
	run(s.ctx, s.t, s.members[0].Host, "sh", "-ec", "echo AllowTcpForwarding no > /etc/ssh/sshd_config.d/no.conf; systemctl restart ssh")
	_, said := s.do(1, "up", "--bundle", s.Bundle)
	if !strings.Contains(said, "set AllowTcpForwarding and AllowStreamLocalForwarding to yes") {
		s.t.Errorf("where nothing is forwarded, up said %s", errorsOf(said))
	}
	run(s.ctx, s.t, s.members[0].Host, "sh", "-ec", "rm /etc/ssh/sshd_config.d/no.conf; systemctl restart ssh")
}

// madeWithPassword makes the cluster as somebody whose sudo wants a password, at a terminal of
// its own. A wrong password is tried once.
func (s *site) madeWithPassword() {
	before := s.now()
	planned, _ := s.plan()
	s.everywhere(`echo ops:` + password + ` | chpasswd
		printf 'Defaults use_pty\nops ALL=(ALL:ALL) ALL\n' > /etc/sudoers.d/ops`)

	up := func(password string) (said string, code int, screen string) {
		cmd := s.Command(s.ctx, "up", "-o", "json", "--bundle", s.Bundle)
		var out, events bytes.Buffer
		cmd.Stdout = &out
		looked := false
		screen, err := atTerminal(cmd, []string{password}, func(line string) {
			s.events.add([]byte(line))
			events.WriteString(line + "\n")
			if !looked && strings.Contains(line, `"phase":"kubelet-start","state":"started"`) {
				looked = true
				s.noLeak("while up runs")
			}
		})
		if strings.Contains(screen+out.String()+events.String(), password) {
			s.t.Errorf("the password was shown: %q %s", screen, out.String())
		}
		return events.String(), codeOf(err), screen
	}
	said, code, screen := up("wrong-" + password[:4])
	if code != 3 || !strings.Contains(said, "sudo refused the password of ops") || !strings.Contains(screen, "Password of ops for sudo") {
		s.t.Errorf("a wrong password: %d, %q, %s", code, screen, errorsOf(said))
	}
	if n := strings.Count(s.everywhere(wrongOnes), "1"); n != 1 {
		s.t.Errorf("the wrong password was tried on %d hosts", n)
	}
	if done := s.since(before); len(done) > 0 {
		s.t.Errorf("with a wrong password it has done %v", done)
	}
	if said, code, _ := up(password); code != 0 {
		s.t.Fatalf("up ended with %d: %s", code, errorsOf(said))
	}
	s.noLeak("after up")
	s.asPlanned(planned, s.since(before))
	s.everywhere("echo 'ops ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops")
}

// noLeak wants nothing on the hosts to hold the password.
func (s *site) noLeak(when string) {
	s.t.Helper()
	for _, m := range s.members {
		out, stderr, err := m.Exec(s.ctx, strings.NewReader(password+"\n"), "sh", "-c", leaks)
		if err != nil || out != "" {
			s.t.Errorf("%s, on %s these have the password: %s %v %s", when, m.Name, out, err, stderr)
		}
	}
}
