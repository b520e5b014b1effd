package e2e

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubewright/kubewright/e2e/lab"
	"github.com/kubewright/kubewright/phases"
)

// Three hosts whose network is broken in four ways: up names each with its hosts, and touches nothing;
// with the commands that it prints, the network is mended. Nothing of the program that looks stays.
func TestReach(t *testing.T) {
	t.Parallel()
	ctx, l := needLab(t, 3*time.Minute)
	three := hosts(ctx, t, lab.HostOptions{}, "reach-1", "reach-2", "reach-3")
	s := newSite(ctx, t, l, "reach", "", three...)
	sh := func(host int, script string) string {
		t.Helper()
		return run(ctx, t, three[host], "sh", "-ec", script)
	}
	before := make([]string, len(three))
	nothingLeft := func() {
		t.Helper()
		for i, h := range three {
			if left := sh(i, "ls -d /run/kubewright-reach* /dev/shm/* /tmp/kubewright-reach* /var/tmp/kubewright-reach* 2>/dev/null || true; pgrep -x reach || true; ls /run/kubewright"); left != "lock\n" {
				t.Errorf("it left on %s: %s", h.Name, left)
			}
		}
	}
	s.do(0, "preflight") // the first sudo of a user, and the first lock of a host, leave something
	for i, h := range three {
		before[i] = listing(ctx, t, h)
	}
	out, _ := s.do(0, "preflight")
	var found struct{ phases.Preflight }
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("preflight printed %q: %v", out, err)
	}
	if len(found.Network.Ways) != 22 || len(found.Network.Packets) != 6 || len(found.Network.Unseen) != 0 {
		t.Errorf("%d ways and %d packets were looked at: %s", len(found.Network.Ways), len(found.Network.Packets), out)
	}
	nothingLeft()

	table := func(host int, rule string) {
		sh(host, "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; policy accept; }; add rule inet t in "+rule+"'")
	}
	table(1, "tcp dport 10250 drop")
	table(2, "udp dport 8472 drop")
	sh(1, "ip link set eth0 mtu 1400")
	sh(2, "ip route add 10.244.64.0/18 dev eth0")
	empty := s.now()
	_, said := s.do(3, "up", "--bundle", s.Bundle)
	for _, part := range []string{
		"reach-2 is not reached from reach-1 at 10250/tcp kubelet (no answer): on reach-2 there is nftables, chain inet t in (a rule that drops): `nft insert rule inet t in tcp dport 10250 accept`",
		"reach-3 is not reached from reach-1 and reach-2 at 8472/udp flannel vxlan (nothing arrived), though the other way they get through: on reach-3 there is nftables, chain inet t in (a rule that drops): `nft insert rule inet t in udp dport 8472 accept`",
		"packets of 1500 bytes from reach-1 and reach-3 do not arrive at reach-2, and those of 1400 do: eth0 of reach-2 has an MTU of 1400",
		"`ip link set eth0 mtu 1500` on reach-2",
		"reach-3: [NetworkOverlap] the pod range 10.244.0.0/16 overlaps the host's route to 10.244.64.0/18",
	} {
		if !strings.Contains(lastWords(said), part) {
			t.Errorf("up did not say %s:\n%s", part, lastWords(said))
		}
	}
	if done := s.since(empty); len(done) > 0 {
		t.Errorf("up has done %v", done)
	}

	// A preflight that is killed while it waits for answers.
	cmd := s.Command(ctx, "preflight")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range three {
		sh(i, "until pgrep -x reach; do sleep 0.05; done")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for i := range three {
		sh(i, "while pgrep -x reach || [ -s /run/kubewright/lock ]; do sleep 0.05; done")
	}

	for _, c := range regexp.MustCompile("`((?:nft|ip) [^`]*)`").FindAllStringSubmatch(lastWords(said), -1) {
		host := 1
		if strings.Contains(c[1], "8472") {
			host = 2
		}
		sh(host, c[1])
	}
	sh(2, "ip route del 10.244.64.0/18")
	stdout, _, err := s.Run(ctx, "preflight")
	if err != nil || !strings.Contains(stdout, "nothing is in the way") {
		t.Errorf("with the commands that up has printed: %v\n%s", err, stdout)
	}
	t.Logf("preflight printed\n%s", stdout)
	sh(1, "nft delete table inet t")
	sh(2, "nft delete table inet t")
	nothingLeft()
	for i, h := range three {
		if diff := cmp.Diff(before[i], listing(ctx, t, h)); diff != "" {
			t.Errorf("it left on %s:\n%s", h.Name, diff)
		}
	}
}

// lastWords are the message of the error that a command ended with, of what it said as JSON.
func lastWords(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	var last struct{ Message string }
	json.Unmarshal([]byte(lines[len(lines)-1]), &last)
	return last.Message
}
