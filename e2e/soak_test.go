package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/bench"
	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// TestSoak makes, looks at, unmakes and makes again: clusters from bare hosts, each reset
// host by host and made a second time on what reset left. One host's wrong leftovers show
// in the second life. It prints the line that docs/soak.md wants.
func TestSoak(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of a quarter of an hour: run it with make soak")
	}
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("KUBEWRIGHT_SOAK_ROUNDS")); err == nil {
		rounds = n
	}
	begin := time.Now()
	lives := 0
	for i := range rounds {
		t.Run(fmt.Sprint("round ", i+1), func(t *testing.T) {
			ctx, l := needLab(t, 15*time.Minute)
			hosts, err := l.Hosts(ctx, "soak-1", "soak-2", "soak-3")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				for _, h := range hosts {
					if err := h.Remove(ctx); err != nil {
						t.Error(err)
					}
				}
			}()
			explainFailure(t, hosts...)
			for _, document := range []string{cluster.Document(""), otherDocument()} {
				o := cluster.Options{Document: document, Args: cluster.Bundle, Log: newEventLog(t).add}
				c, err := cluster.Kubewright(ctx, hosts[0], hosts[1:], o)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
				verified(ctx, t, c)
				for _, h := range hosts {
					kubewright(ctx, t, h, "reset", "--yes")
				}
				lives++
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("soak: %d rounds, %d clusters made, verified and reset in %s", rounds, lives, time.Since(begin).Round(time.Second))
}

// otherDocument takes the other choice wherever there is one: flannel's host-gw, kube-proxy's nftables, RSA keys.
func otherDocument() string {
	doc := cluster.Document("network: {cni: {name: flannel, flannel: {backend: host-gw}}}\npki: {algorithm: RSA-2048}")
	return strings.Replace(doc, "  kubeProxy:\n", "  kubeProxy:\n    mode: nftables\n", 1)
}

// TestSoakKills kills init, join and the join of a control plane at least twenty times each,
// at random, up to five times in a life. Each life ends in a cluster like any other, and with reset.
func TestSoakKills(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of a quarter of an hour: run it with make soak")
	}
	const wanted, kills = 20, 5
	ctx, _ := needLab(t, 40*time.Minute)
	hosts := preparedHosts(ctx, t, "mortal-1", "mortal-2", "mortal-3")
	explainFailure(t, hosts...)
	first, second, worker := hosts[0], hosts[1], hosts[2]
	random := newRandom(t)
	begin := time.Now()
	done := map[string]int{}
	again := func(h *lab.Host, limit time.Duration, argv []string, after func()) {
		for range kills {
			if killedWithin(ctx, t, h, random, limit, argv) {
				done[argv[1]+map[bool]string{true: " --control-plane"}[slices.Contains(argv, "--control-plane")]]++
			}
			after()
		}
		run(ctx, t, h, argv...)
		after()
	}
	document := cluster.Document("controlPlane: {endpoint: " + first.IP + "}")
	if err := first.Write(ctx, "/root/ha.yaml", 0o600, strings.NewReader(document)); err != nil {
		t.Fatal(err)
	}
	init := append([]string{tool, "init", "-o", "json", "--config", "/root/ha.yaml"}, cluster.Bundle...)
	lives := 0
	for done["init"] < wanted || done["join"] < wanted || done["join --control-plane"] < wanted {
		if lives++; lives > 4*wanted/kills {
			t.Fatalf("after %d lives there were only these kills: %v", lives, done)
		}
		ca := ""
		again(first, 2500*time.Millisecond, init, func() { ca = sameCA(ctx, t, first, ca) })
		again(worker, 1200*time.Millisecond, joinArgv(ctx, t, first), func() {})
		again(second, 3*time.Second, controlPlaneJoin(ctx, t, first), func() {})
		if got := sameCA(ctx, t, second, ca); got != ca {
			t.Fatal("the keys of the two control planes are not the same")
		}
		voters(ctx, t, second, first.Name, second.Name)
		c, err := cluster.WaitAPI(ctx, first, hosts[1:])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*lab.Host{worker, second, first} {
			kubewright(ctx, t, h, "reset", "--yes")
		}
	}
	t.Logf("soak: killed at random and run again: %v, in %d lives and %s", done, lives, time.Since(begin).Round(time.Second))
}

// TestSoakBundle makes, verifies and unpacks a bundle that is larger by 3 GB than a cluster's: the
// memory that it takes has the limit of the figure all the same.
func TestSoakBundle(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("it writes 12 GB: run it with make soak")
	}
	ctx, l := needLab(t, 20*time.Minute)
	peak, err := bench.BundleMemory(ctx, l, 3e9, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("soak: a bundle with 3 GB more: at most %.0f MB of memory", peak)
	if peak > bench.BundleLimit {
		t.Errorf("the limit is %d MB", bench.BundleLimit)
	}
}
