package phases

import (
	"context"
	"fmt"
	"slices"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// hookKind tells whether the hooks of a machine are those of init or of join. What began as one
// stays that; a host that was a node before it had hooks has none to run.
func (u *Up) hookKind(m *Machine) string {
	for _, kind := range []string{"init", "join"} {
		if m.Journal.has(hookMark(kind)) {
			return kind
		}
	}
	switch {
	case m.node != "":
		return ""
	case m == u.leader && len(u.members) == 0:
		return "init"
	}
	return "join"
}

func hookMark(kind string) Step { return Step{Kind: aHook, Name: "those of " + kind} }

// hooked is a list with the user's commands as its first phase after preflight, on which all
// others wait, and as its last.
func hooked(list []Phase, kind string, h config.Hooks) []Phase {
	before, after := h.BeforeJoin, h.AfterJoin
	switch kind {
	case "":
		return list
	case "init":
		before, after = h.BeforeInit, h.AfterInit
	case "reset":
		before, after = h.BeforeReset, h.AfterReset
	}
	if len(before)+len(after) == 0 {
		return list
	}
	first := Phase{Name: "hooks/before-" + kind, Short: "run your commands", Run: hooks(kind, before)}
	i := 0
	if list[0].Name == "preflight" {
		first.After, i = []string{"preflight"}, 1
	}
	out := append(slices.Clone(list[:i]), first)
	for _, p := range list[i:] {
		p.After = append(slices.Clone(p.After), first.Name)
		out = append(out, p)
	}
	return append(out, Phase{Name: "hooks/after-" + kind, Short: "run your commands", After: Names(out), Run: hooks(kind, after)})
}

// hooks runs each command that has not succeeded before, and shows what it prints.
func hooks(kind string, commands []string) func(context.Context, *Target) error {
	return func(ctx context.Context, t *Target) error {
		h := t.Host
		if j, ok := h.(journaled); ok && kind == "reset" { // at whose end there is no journal
			h = j.Host
		}
		if kind != "reset" && !t.Journal.has(hookMark(kind)) {
			if err := t.note(ctx, hookMark(kind)); err != nil {
				return err
			}
		}
		for _, c := range commands {
			done := Step{Kind: aHook, Name: c}
			if kind != "reset" && t.Journal.has(done) {
				continue
			}
			t.changed(1)
			out, err := h.Run(ctx, host.Cmd("sh", "-c", c))
			if err != nil {
				return fmt.Errorf("your hook: %w", err)
			}
			for _, text := range [][]byte{out.Stdout, out.Stderr} {
				if len(text) > 0 {
					t.notice("%s", text)
				}
			}
			if kind != "reset" {
				if err := t.note(ctx, done); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// has tells whether a step of that kind and name was written down.
func (j *Journal) has(s Step) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.latest[string(s.Kind)+" "+s.Name]
	return ok
}
