package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cluster"
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
