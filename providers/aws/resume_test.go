package aws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/cloud"
)

// whims are how the real one bites.
func whims() cloud.Options {
	return cloud.Options{Lag: 2, PageSize: 5, Delay: 5 * time.Millisecond}
}

// killedAt gives the calls at which a run is killed: five of them; in a soak, each one.
func killedAt(total int) (all []int) {
	step := max(1, total/5)
	if os.Getenv("KUBEWRIGHT_SOAK") != "" {
		step = 1
	}
	for n := 1 + step/3; n <= total; n += step {
		all = append(all, n)
	}
	return all
}

// kinds are what there is, without ids: two of the same would be one too many.
func kinds(c *cloud.Cloud) (all []string) {
	for _, r := range c.Resources() {
		f := strings.SplitN(r, " ", 3)
		all = append(all, f[0]+" "+f[2])
	}
	slices.Sort(all)
	return all
}

// killed begins to make a cluster, and is ended while call n is under way: after it was done, or before.
func killed(t *testing.T, c *cloud.Cloud, document string, n int, done bool) {
	t.Helper()
	a := connect(t, parse(t, document))
	a.Say = func(string, ...any) {}
	begun := len(c.Calls())
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	kill := func(q cloud.Call) {
		if q.N == begun+n {
			cancel(errors.New("killed"))
		}
	}
	c.Change(func(o *cloud.Options) {
		if done {
			o.After = kill
		} else {
			o.Before = func(q cloud.Call) *cloud.Error { kill(q); return nil }
		}
	})
	_, err := a.Create(ctx)
	c.Change(func(o *cloud.Options) { o.Before, o.After = nil, nil })
	if err == nil && ctx.Err() != nil && n < 40 {
		t.Fatalf("killed at call %d, and nobody noticed", n)
	}
}

func TestARunThatWasKilledIsFinishedByTheNext(t *testing.T) {
	c := start(t, whims())
	a := connect(t, parse(t, small))
	if _, err := a.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	want, total := kinds(c), len(c.Calls())
	t.Logf("%d calls, %d things", total, len(want))
	for _, n := range killedAt(total) {
		for _, done := range []bool{true, false} {
			c := start(t, whims())
			killed(t, c, small, n, done)
			a := connect(t, parse(t, small))
			a.Say = func(string, ...any) {}
			if _, err := a.Create(t.Context()); err != nil {
				t.Fatalf("killed at call %d, and run again: %v", n, err)
			}
			if have := kinds(c); !slices.Equal(have, want) {
				t.Errorf("killed at call %d (done: %v), and run again, there is\n%s\nnot\n%s", n, done, strings.Join(have, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}

func TestDownAfterARunThatWasKilledLeavesNothing(t *testing.T) {
	for _, n := range killedAt(150) {
		for _, done := range []bool{true, false} {
			c := start(t, whims())
			killed(t, c, small, n, done)
			a := connect(t, parse(t, small))
			a.Say = func(string, ...any) {}
			a.Warn = func(f string, args ...any) {
				t.Errorf("killed at call %d (done: %v), down warns: "+f, append([]any{n, done}, args...)...)
			}
			if _, err := a.Delete(t.Context()); err != nil {
				t.Errorf("killed at call %d (done: %v), down: %v", n, done, err)
			}
			if left := c.Resources(); len(left) > 0 {
				t.Errorf("killed at call %d (done: %v), down leaves %s", n, done, strings.Join(left, ", "))
			}
		}
	}
}

// Its gateways are replaced by others, and end.
func TestAChangeOfNATThatWasKilledIsFinishedByTheNext(t *testing.T) {
	const single, zone = "network: {nat: single}", "network: {nat: zone}"
	up := func(document string) {
		t.Helper()
		a := connect(t, parse(t, document))
		a.Say = func(string, ...any) {}
		if _, err := a.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, whims())
	up(single)
	before := len(c.Calls())
	up(zone)
	want, total := kinds(c), len(c.Calls())-before
	for i, n := range killedAt(total) {
		c := start(t, whims())
		up(single)
		killed(t, c, zone, n, i%2 == 0)
		up(zone)
		if have := kinds(c); !slices.Equal(have, want) {
			t.Errorf("killed at call %d of %d, and run again, there is\n%s\nnot\n%s", n, total, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A run that AWS has refused something was not cut short.
func TestARefusalIsNoKill(t *testing.T) {
	for want, refuse := range map[string]bool{"the last run has failed": true, "the last run was cut short": false} {
		c := start(t, cloud.Options{})
		ctx, kill := context.WithCancel(t.Context())
		c.Change(func(o *cloud.Options) {
			o.Before = func(q cloud.Call) *cloud.Error {
				if q.Action != "CreateNatGateway" {
					return nil
				}
				if !refuse {
					kill()
				}
				return &cloud.Error{Status: 400, Code: "NatGatewayLimitExceeded"}
			}
		})
		if _, err := connect(t, parse(t, small)).Create(ctx); err == nil {
			t.Error("it is not refused")
		}
		kill()
		c.Change(func(o *cloud.Options) { o.Before = nil })
		a, said := connect(t, parse(t, small)), ""
		a.Say = func(f string, args ...any) { said += fmt.Sprintf(f, args...) + "\n" }
		if _, err := a.Create(t.Context()); err != nil || !strings.HasPrefix(said, want) {
			t.Errorf("%v; not %q, but %s", err, want, said)
		}
	}
}
