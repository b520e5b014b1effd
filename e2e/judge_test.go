package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
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
	t.Parallel()
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
		// Controllers finish their work some time after the node is Ready.
		var problems []string
		for deadline := time.Now().Add(30 * time.Second); ; {
			kubeadms, mine := filesOf(ctx, t, hosts[0]), filesOf(ctx, t, hosts[1])
			maps.Copy(kubeadms, objectsOf(ctx, t, theirs))
			maps.Copy(mine, objectsOf(ctx, t, ours))
			if problems = judge(Differences(), kubeadms, mine); len(problems) == 0 || time.Now().After(deadline) {
				break
			}
		}
		for _, p := range problems {
			t.Error(p)
		}
	})
	t.Run("a worker of ours joins kubeadm's cluster", func(t *testing.T) { joinKubeadms(ctx, t, theirs, hosts[2]) })
}

// judge finds what differs and is not listed, and what is listed and does not differ.
func judge(list []Difference, theirs, ours map[string]thing) (problems []string) {
	occurred := make([]bool, len(list))
	differ := func(where, field, a, b string) {
		listed := false
		for i, d := range list {
			if d.covers(where, field, a, b) {
				occurred[i], listed = true, true
			}
		}
		if !listed {
			problems = append(problems, fmt.Sprintf("%s: %s: kubeadm %q, ours %q", where, field, a, b))
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
	for i, d := range list {
		if !occurred[i] {
			problems = append(problems, fmt.Sprintf("listed as a difference, but there is none: %s: %s", d.Where, d.Field))
		}
	}
	return problems
}

// covers tells whether a difference is this one.
func (d Difference) covers(where, field, kubeadm, ours string) bool {
	anyValue := d.Kubeadm == "" && d.Ours == ""
	return pattern(d.Where, "$").MatchString(where) && pattern(d.Field, `($|[.\[])`).MatchString(field) &&
		(anyValue || d.Kubeadm == kubeadm && d.Ours == ours)
}

func pattern(s, end string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, ".*") + end)
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

func TestJudge(t *testing.T) {
	same := map[string]thing{"a": {"x.y": "1"}}
	listed := []Difference{{Where: "a*", Field: "x", Why: "of a reason"}}
	valued := []Difference{{Where: "a", Field: "*y", Kubeadm: "1", Ours: "2"}}
	for name, tt := range map[string]struct {
		list []Difference
		ours map[string]thing
		want []string
	}{
		"alike":                    {nil, same, nil},
		"unlisted":                 {nil, map[string]thing{"a": {"x.y": "2"}}, []string{`a: x.y: kubeadm "1", ours "2"`}},
		"unlisted field":           {nil, map[string]thing{"a": {"x.y": "1", "z": "3"}}, []string{`a: z: kubeadm "", ours "3"`}},
		"only theirs":              {nil, nil, []string{`a: exists: kubeadm "true", ours "false"`}},
		"only ours":                {nil, map[string]thing{"a": same["a"], "b": {}}, []string{`b: exists: kubeadm "false", ours "true"`}},
		"listed":                   {listed, map[string]thing{"a": {"x.y": "2"}}, nil},
		"listed, but none":         {listed, same, []string{"listed as a difference, but there is none: a*: x"}},
		"listed values":            {valued, map[string]thing{"a": {"x.y": "2"}}, nil},
		"other values":             {valued, map[string]thing{"a": {"x.y": "3"}}, []string{`a: x.y: kubeadm "1", ours "3"`, "listed as a difference, but there is none: a: *y"}},
		"a field that only begins": {listed, map[string]thing{"a": {"x.y": "1", "xy": "2"}}, []string{`a: xy: kubeadm "", ours "2"`, "listed as a difference, but there is none: a*: x"}},
	} {
		if got := judge(tt.list, same, tt.ours); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestEveryDifferenceHasAReason(t *testing.T) {
	for _, d := range Differences() {
		if d.Where == "" || d.Field == "" || d.Why == "" {
			t.Errorf("%+v", d)
		}
	}
}
