package phases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// journal is what phases of a test note down, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

// notes is a phase that writes down its name and returns err.
func (j *journal) notes(name string, err error, after ...string) Phase {
	return Phase{Name: name, After: after, Run: func(_ context.Context, t *Target) error {
		j.add(name)
		t.changed(1)
		return err
	}}
}

func TestPhasesRunAfterThoseThatTheyNeed(t *testing.T) {
	for range 50 { // the scheduler has many ways
		var j journal
		list := []Phase{j.notes("a", nil), j.notes("b", nil, "a"), j.notes("c", nil, "a"), j.notes("d", nil, "b", "c")}
		if err := Run(t.Context(), list, &Target{}, nil); err != nil {
			t.Fatal(err)
		}
		if len(j.lines) != 4 || j.lines[0] != "a" || j.lines[3] != "d" {
			t.Fatalf("they ran as %q", j.lines)
		}
	}
}

func TestPhasesRunSideBySide(t *testing.T) {
	meet := make(chan struct{})
	list := []Phase{
		{Name: "gives", Run: func(context.Context, *Target) error { meet <- struct{}{}; return nil }},
		{Name: "takes", Run: func(context.Context, *Target) error { <-meet; return nil }},
	}
	if err := Run(t.Context(), list, &Target{}, nil); err != nil { // or it hangs
		t.Fatal(err)
	}
}

func TestStatesOfPhases(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		list func(j *journal) []Phase
		skip []string
		want map[string]State
		err  string
	}{
		"done and unchanged": {
			list: func(j *journal) []Phase {
				return []Phase{j.notes("a", nil), {Name: "b", Run: func(context.Context, *Target) error { return nil }}}
			},
			want: map[string]State{"a": Done, "b": Unchanged},
		},
		"one that is skipped counts as done": {
			list: func(j *journal) []Phase { return []Phase{j.notes("a", nil), j.notes("b", nil, "a")} },
			skip: []string{"a"},
			want: map[string]State{"a": Skipped, "b": Done},
		},
		"a group is skipped by its name": {
			list: func(j *journal) []Phase {
				return []Phase{j.notes("addon/x", nil), j.notes("addon/y", nil), j.notes("addons", nil)}
			},
			skip: []string{"addon"},
			want: map[string]State{"addon/x": Skipped, "addon/y": Skipped, "addons": Done},
		},
		"one of a group": {
			list: func(j *journal) []Phase { return []Phase{j.notes("addon/x", nil), j.notes("addon/y", nil)} },
			skip: []string{"addon/y"},
			want: map[string]State{"addon/x": Done, "addon/y": Skipped},
		},
		"a failure blocks what needs it, and nothing else": {
			list: func(j *journal) []Phase {
				return []Phase{j.notes("a", broken), j.notes("b", nil, "a"), j.notes("c", nil, "b"), j.notes("d", nil)}
			},
			want: map[string]State{"a": Failed, "b": Blocked, "c": Blocked, "d": Done},
			err:  "phase a: broken",
		},
		"a failure blocks through one that is skipped": {
			list: func(j *journal) []Phase {
				return []Phase{j.notes("a", broken), j.notes("b", nil, "a"), j.notes("c", nil, "b")}
			},
			skip: []string{"b"},
			want: map[string]State{"a": Failed, "b": Skipped, "c": Blocked},
			err:  "phase a: broken",
		},
		"all failures are told, in the order of the list": {
			list: func(j *journal) []Phase {
				return []Phase{j.notes("a", broken), j.notes("b", nil), j.notes("c", broken)}
			},
			want: map[string]State{"a": Failed, "b": Done, "c": Failed},
			err:  "2 problems:\n  - phase a: broken\n  - phase c: broken",
		},
		"a phase that comes after one behind it": {
			list: func(j *journal) []Phase { return []Phase{j.notes("a", nil, "b"), j.notes("b", nil)} },
			want: map[string]State{},
			err:  "phase a comes after b, which is not before it in the list",
		},
		"a phase that comes after none": {
			list: func(j *journal) []Phase { return []Phase{j.notes("a", nil), j.notes("b", nil, "aa")} },
			want: map[string]State{},
			err:  "phase b comes after aa, which is not before it in the list",
		},
		"a name to skip that is none": {
			list: func(j *journal) []Phase { return []Phase{j.notes("a", nil), j.notes("addon/x", nil)} },
			skip: []string{"addon", "add"},
			want: map[string]State{},
			err:  `--skip-phases: there is no phase "add": the phases are a, addon/x`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			var said events
			err := Run(t.Context(), tt.list(&j), &Target{Report: said.report}, tt.skip)
			if got := fmt.Sprint(err); got != tt.err && (err != nil || tt.err != "") {
				t.Errorf("error %s", got)
			}
			if diff := cmp.Diff(tt.want, said.last()); diff != "" {
				t.Error(diff)
			}
			for _, ran := range j.lines {
				if s := tt.want[ran]; s != Done && s != Failed {
					t.Errorf("%s ran, and is %s", ran, s)
				}
			}
		})
	}
}

func TestEventsTellWhoAndHow(t *testing.T) {
	var said events
	target := &Target{Report: said.report}
	target.Node.Name = "cp-1"
	list := []Phase{{Name: "a", Short: "do a", Run: func(_ context.Context, t *Target) error {
		t.notice("look at %s", "this")
		return errors.New("no")
	}}}
	if err := Run(t.Context(), list, target, nil); err == nil {
		t.Fatal("no error")
	}
	var got []string
	for _, e := range said.all {
		if e.Time.IsZero() {
			t.Errorf("%s has no time", e.State)
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", e.Host, e.Phase, e.State, e.Message))
	}
	want := []string{"cp-1 a started do a", "cp-1 a notice look at this", "cp-1 a failed phase a: no"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnInterruptionSaysHowToGoOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var j journal
	list := []Phase{
		{Name: "a", Run: func(ctx context.Context, _ *Target) error {
			cancel()
			return fmt.Errorf("ip: %w", ctx.Err())
		}},
		j.notes("b", nil, "a"),
	}
	err := Run(ctx, list, &Target{}, nil)
	if got, want := fmt.Sprint(err), "phase a: interrupted: run the same command again to finish"; got != want {
		t.Error(got)
	}
	if len(j.lines) > 0 {
		t.Error("b ran after the interruption")
	}
}

func TestSelectTakesNamesAndGroups(t *testing.T) {
	list := []Phase{{Name: "etcd"}, {Name: "addon/x", After: []string{"etcd"}}, {Name: "addon/y"}, {Name: "addons"}}
	for name, want := range map[string][]string{
		"etcd": {"etcd"}, "addon": {"addon/x", "addon/y"}, "addon/y": {"addon/y"}, "add": {}, "": {}, "addon/": {},
	} {
		chosen := Select(list, name)
		if diff := cmp.Diff(want, Names(chosen)); diff != "" {
			t.Errorf("%q: %s", name, diff)
		}
		for _, p := range chosen {
			if p.After != nil {
				t.Errorf("%q: alone, %s waits for %v", name, p.Name, p.After)
			}
		}
	}
	if list[1].After == nil {
		t.Error("the list itself was changed")
	}
}

func TestListsAreSound(t *testing.T) {
	for name, list := range map[string][]Phase{"init": Init(), "join": Join(), "reset": Reset()} {
		if err := check(list, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		seen := map[string]bool{}
		for _, p := range list {
			if p.Short == "" || p.Run == nil || seen[p.Name] {
				t.Errorf("%s: phase %q has no description, does nothing or is there twice", name, p.Name)
			}
			seen[p.Name] = true
		}
	}
}

func TestUntilLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // with a clock of its own
		begin, looks := time.Now(), 0
		err := until(t.Context(), time.Hour, "x", func(context.Context) error {
			if looks++; looks < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || looks != 3 || time.Since(begin) != 2*interval {
			t.Errorf("%d looks in %s, %v", looks, time.Since(begin), err)
		}
	})
}

func TestUntilTellsWhatWasSeenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		err := until(t.Context(), time.Minute, "etcd", func(ctx context.Context) error {
			if looks++; looks < 3 {
				return fmt.Errorf("refused %d", looks)
			}
			<-ctx.Done() // cut off by the deadline, it saw nothing
			return ctx.Err()
		})
		if got := fmt.Sprint(err); got != "etcd: not within 1m0s: refused 2" {
			t.Error(got)
		}
		err = until(t.Context(), time.Minute, "etcd", func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("first: %w", ctx.Err())
		})
		if got := fmt.Sprint(err); got != "etcd: not within 1m0s: first: context deadline exceeded" {
			t.Error(got)
		}
	})
}

func TestUntilEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := until(ctx, time.Hour, "x", func(context.Context) error {
		cancel()
		return errors.New("not yet")
	})
	if err != context.Canceled {
		t.Error(err)
	}
}

func TestUntilFinalStopsAtWhatWaitingDoesNotMend(t *testing.T) {
	looks := 0
	err := untilFinal(t.Context(), time.Hour, "x", func(context.Context) error {
		looks++
		return fmt.Errorf("seen: %w", finalError{errors.New("tampered")})
	})
	if looks != 1 || err == nil || !slices.Contains([]string{"tampered", "seen: tampered"}, err.Error()) {
		t.Errorf("%d looks, %v", looks, err)
	}
}
