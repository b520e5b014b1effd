package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/pki"
)

// kills are how a run of up ends before it is done, on whichever host.
var kills = []struct {
	what string
	kill func(s *site, end func(), h *lab.Host)
}{
	{"the operator's process is killed", func(_ *site, end func(), _ *lab.Host) { end() }},
	{"sshd's processes are killed", func(s *site, _ func(), h *lab.Host) {
		run(s.ctx, s.t, h, "sh", "-c", "pkill -KILL -f '^sshd: ops' || true")
	}},
	{"the host loses its power", func(s *site, _ func(), h *lab.Host) {
		if err := h.Restart(s.ctx); err != nil {
			s.t.Fatal(err)
		}
	}},
}

// From bare hosts, on an etcd that is not ours: the line to the control plane is cut in the middle
// of an upload, then each kind of kill comes at random. Running it again makes a cluster like any
// other, with the CA of the first run; after down the hosts are what they were.
func TestUpKilled(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 8*time.Minute)
	hosts := hosts(ctx, t, lab.HostOptions{}, "mid-1", "mid-2")
	explainFailure(t, hosts...)
	s := newSite(ctx, t, l, "mid", "", hosts...)
	s.write(s.externalEtcd(hosts[1]))
	s.plan() // the first login of a user leaves a message of the day
	before := []string{remains(ctx, t, hosts[0]), remains(ctx, t, hosts[1])}
	random := newRandom(t)

	uncut := s.cutInTheMiddle(hosts[0])
	ca := ""
	for i := range kills {
		for !s.killedUp(random, 8*time.Second, i, hosts[i%2]) { // one that came too late, or ended at the lease of before
		}
		ca = sameCA(ctx, t, hosts[0], ca)
	}
	s.converged()
	uncut()
	sameCA(ctx, t, hosts[0], ca)
	s.nothing()
	s.do(0, "down", "--yes")
	for i, h := range hosts {
		if diff := cmp.Diff(before[i], remains(ctx, t, h)); diff != "" {
			t.Errorf("down left on %s, - before, + after:\n%s", h.Name, diff)
		}
	}
	run(ctx, t, hosts[1], "systemctl", "is-active", "etcd") // it was not ours to end
}

// What the lab writes anew when a host boots: times, and ports of its name server. Of /etc/hosts, a
// line came and went.
var (
	atBoot    = regexp.MustCompile(`(?m)^(/etc/hosts|/etc/hostname|/etc/resolv.conf|/home/ops/.ssh/authorized_keys) (.*) \S+$`)
	nameports = regexp.MustCompile(`(127\.0\.0\.11:|sport )\d+`)
)

// remains is the listing of a host that may have lost its power.
func remains(ctx context.Context, t *testing.T, h *lab.Host) string {
	t.Helper()
	return nameports.ReplaceAllString(atBoot.ReplaceAllString(listing(ctx, t, h), "$1 $2"), "${1}PORT")
}

// TestSoakUp kills up at least twenty times, up to five times in the life of a cluster.
func TestSoakUp(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of a quarter of an hour: run it with make soak")
	}
	const wanted, most = 20, 5
	ctx, l := needLab(t, 40*time.Minute)
	hosts := hosts(ctx, t, lab.HostOptions{}, "end-1", "end-2", "end-3")
	explainFailure(t, hosts...)
	s := newSite(ctx, t, l, "end", "", hosts...)
	random := newRandom(t)
	begin := time.Now()
	done, lives, total := map[string]int{}, 0, 0
	for total < wanted {
		if lives++; lives > 4*wanted/most {
			t.Fatalf("after %d lives there were only these kills: %v", lives, done)
		}
		ca := ""
		for range most {
			i, h := random.IntN(len(kills)), hosts[random.IntN(len(hosts))]
			if s.killedUp(random, 25*time.Second, i, h) {
				done[kills[i].what]++
				total++
			}
			ca = sameCA(ctx, t, hosts[0], ca)
		}
		s.converged()
		sameCA(ctx, t, hosts[0], ca)
		s.nothing()
		s.do(0, "down", "--yes")
	}
	t.Logf("soak: up killed at random and run again: %v, in %d lives and %s", done, lives, time.Since(begin).Round(time.Second))
}

// killedUp starts up, and a kill at a random moment. It tells whether that came in time.
func (s *site) killedUp(random *rand.Rand, limit time.Duration, i int, h *lab.Host) (killed bool) {
	s.t.Helper()
	ctx, end := context.WithCancel(s.ctx)
	defer end()
	cmd := s.Command(ctx, "up", "-o", "json", "--bundle", s.Bundle)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	after := time.Duration(random.Int64N(int64(limit)))
	var err error
	select {
	case err = <-ended:
	case <-time.After(after):
		kills[i].kill(s, end, h)
		err, killed = <-ended, true
	}
	s.t.Logf("up, and after %s on %s %s: %v", after.Round(time.Millisecond), h.Name, kills[i].what, err)
	for _, line := range errorsOf(said.String()) {
		s.events.add([]byte(line))
	}
	if code := codeOf(err); code == 2 || bytes.Contains(said.Bytes(), []byte("goroutine ")) {
		s.t.Errorf("a run that was cut short ended with %d: %s", code, &said)
	}
	return killed
}

// converged runs up until it may: a run that was killed may have a lease for 20 s. Nothing of the
// runs of before is left.
func (s *site) converged() {
	s.t.Helper()
	for {
		begin := time.Now()
		_, stderr, err := s.Up(s.ctx, "-o", "json")
		for line := range strings.Lines(stderr) {
			s.events.add([]byte(line))
		}
		s.t.Logf("up again: %v, %.1f s", err != nil, time.Since(begin).Seconds())
		if code := codeOf(err); code == 0 {
			break
		} else if code != 4 || s.ctx.Err() != nil {
			s.t.Fatalf("up ended with %d: %s", code, errorsOf(stderr))
		}
	}
	if err := s.cluster().WaitNodes(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	const left = `find / -xdev -name '.*.kubewright' ! -path '/proc/*'; find /var /run /tmp -xdev -name '.*.kubewright'; find /var/lib/kubewright -name '*.part'
		timeout 20 sh -c 'while grep -lsz ^KUBEWRIGHT_RUN= /proc/[0-9]*/environ >/dev/null; do sleep 0.1; done' || echo processes of a run`
	if out := s.everywhere(left); out != "" {
		s.t.Errorf("of runs that were killed this is left:\n%s", out)
	}
}

// cutInTheMiddle lets no more packets of this run's SSH through to a host as soon as the first file of
// an upload is half there, until uncut is called.
func (s *site) cutInTheMiddle(h *lab.Host) (uncut func()) {
	s.t.Helper()
	const cut = `until ls /usr/local/bin/.*.kubewright >/dev/null 2>&1; do :; done
		for port in $(ss -Htn state established sport = :22 | sed 's/ *$//; s/.*://'); do
			iptables -I INPUT -p tcp --dport 22 --sport $port -j DROP && iptables -I OUTPUT -p tcp --sport 22 --dport $port -j DROP && echo $port
		done`
	ports := make(chan string, 1)
	go func() {
		out, _, err := h.Exec(s.ctx, nil, "sh", "-c", cut)
		if err != nil {
			out = ""
		}
		ports <- out
	}()
	_, said := s.do(1, "up", "--bundle", s.Bundle)
	cutOff := strings.Fields(<-ports)
	if len(cutOff) == 0 || !strings.Contains(said, "connection lost: no answer for") {
		s.t.Errorf("the connections %v were cut, and up said %s", cutOff, errorsOf(said))
	}
	if out := run(s.ctx, s.t, h, "sh", "-c", "ls -A /usr/local/bin | grep -v '^\\.' || true"); out != "" {
		s.t.Errorf("an upload that was cut has put there %s", out)
	}
	return func() { // unless it has lost its power, and the rules with it
		for _, port := range cutOff {
			run(s.ctx, s.t, h, "sh", "-c", "iptables -D INPUT -p tcp --dport 22 --sport "+port+" -j DROP; iptables -D OUTPUT -p tcp --sport 22 --dport "+port+" -j DROP; true")
		}
	}
}

// externalEtcd starts one on a host, as its owner would, gives the control plane what a client of it
// needs, and returns what the document has to say of it.
func (s *site) externalEtcd(h *lab.Host) (spec string) {
	s.t.Helper()
	l, cp := shared, s.members[0].Host
	binary, err := l.Binary(s.ctx, "etcd")
	if err == nil {
		err = h.CopyTo(s.ctx, binary, "/usr/local/sbin/etcd")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	c := &config.Cluster{}
	c.Default(config.Versions{})
	secrets, err := pki.New(c, config.Node{Name: h.Name, Roles: []config.Role{config.ControlPlaneRole}, Address: h.IP}, nil, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	files, err := secrets.Certificates()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range files {
		if f.Content == nil || !strings.Contains(f.Path, "etcd") {
			continue
		}
		r, err := f.Content.Open()
		if err != nil {
			s.t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		r.Close()
		for _, to := range []*lab.Host{h, cp} {
			if err := to.Write(s.ctx, "/etc/etcd/"+path.Base(f.Path), 0o600, bytes.NewReader(content)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	url := "https://" + h.IP + ":2379"
	unit := fmt.Sprintf(`[Service]
ExecStart=/usr/local/sbin/etcd --data-dir /root/etcd --listen-client-urls %[1]s --advertise-client-urls %[1]s --cert-file /etc/etcd/server.crt --key-file /etc/etcd/server.key --trusted-ca-file /etc/etcd/ca.crt --client-cert-auth
Restart=always
[Install]
WantedBy=multi-user.target
`, url)
	if err := h.Write(s.ctx, "/etc/systemd/system/etcd.service", 0o644, strings.NewReader(unit)); err != nil {
		s.t.Fatal(err)
	}
	run(s.ctx, s.t, h, "systemctl", "enable", "--quiet", "--now", "etcd")
	run(s.ctx, s.t, h, "timeout", "60", "sh", "-c", "until ss -ltn sport = :2379 | grep -q LISTEN; do sleep 0.1; done")
	return "etcd: {external: {endpoints: [" + url + "], caFile: /etc/etcd/ca.crt, certFile: /etc/etcd/apiserver-etcd-client.crt, keyFile: /etc/etcd/apiserver-etcd-client.key}}"
}
