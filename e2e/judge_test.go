package e2e

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// The same wish to the real kubeadm and to us, on like hosts: what differs is intended, and
// listed with its reason. Then a worker of ours joins the cluster that kubeadm made.
func TestKubeadmAsJudge(t *testing.T) {
	ctx, _ := needLab(t, 6*time.Minute)
	hosts := preparedHosts(ctx, t, "judge-a", "judge-b", "judge-w")
	explainFailure(t, hosts[0], hosts[2])
	explainFailure(t, hosts[1])
	var theirs, ours *cluster.Cluster
	events := newEventLog(t)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if theirs, err = cluster.Kubeadm(gctx, hosts[0], nil); err == nil {
			err = theirs.WaitReady(gctx)
		}
		return err
	})
	g.Go(func() (err error) {
		const token = "/root/token"
		if err := hosts[1].Write(gctx, token, 0o600, strings.NewReader(cluster.KubeadmToken)); err != nil {
			return err
		}
		o := cluster.Options{Document: cluster.Document(""), Args: append([]string{"--token-file", token}, cluster.Bundle...), Log: events.add}
		if ours, err = cluster.Kubewright(gctx, hosts[1], nil, o); err == nil {
			err = ours.WaitReady(gctx)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	t.Run("differs only where we mean to", func(t *testing.T) {
		kubeadms, mine := filesOf(ctx, t, hosts[0]), filesOf(ctx, t, hosts[1])
		maps.Copy(kubeadms, objectsOf(ctx, t, theirs))
		maps.Copy(mine, objectsOf(ctx, t, ours))
		judge(t, Differences(), kubeadms, mine)
	})
	t.Run("a worker of ours joins kubeadm's cluster", func(t *testing.T) { joinKubeadms(ctx, t, theirs, hosts[2]) })
}

// judge wants all that differs to be listed, and all that is listed to differ.
func judge(t *testing.T, list []Difference, theirs, ours map[string]thing) {
	t.Helper()
	unused := map[int]bool{}
	for i := range list {
		unused[i] = true
	}
	differ := func(where, field, a, b string) {
		found := false
		for i, d := range list {
			if ok, _ := path.Match(d.Where, where); (ok || d.Where == where) && strings.HasPrefix(field, d.Field) {
				delete(unused, i)
				found = true
			}
		}
		if !found {
			t.Errorf("%s: %s: kubeadm %q, ours %q", where, field, a, b)
		}
	}
	for _, where := range union(theirs, ours) {
		a, inTheirs := theirs[where]
		b, inOurs := ours[where]
		if !inTheirs || !inOurs {
			differ(where, "exists", fmt.Sprint(inTheirs), fmt.Sprint(inOurs))
			continue
		}
		for _, field := range union(a, b) {
			if a[field] != b[field] {
				differ(where, field, a[field], b[field])
			}
		}
	}
	for i := range unused {
		t.Errorf("listed as a difference, but is none: %s: %s", list[i].Where, list[i].Field)
	}
}

func union[V any](a, b map[string]V) []string {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// joinKubeadms obeys the command that kubeadm prints, with our join.
func joinKubeadms(ctx context.Context, t *testing.T, c *cluster.Cluster, worker *lab.Host) {
	out := run(ctx, t, c.ControlPlane, cluster.KubeadmPath, "token", "create", "--print-join-command")
	argv := append(strings.Fields(out)[1:], cluster.Bundle...)
	kubewright(ctx, t, worker, argv...)
	c.Workers = []*lab.Host{worker}
	if err := c.WaitReady(ctx); err != nil {
		t.Error(err)
	}
}
