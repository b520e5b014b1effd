package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kubewright/kubewright/phases"
)

// runOrPlan runs a list of phases, or with --dry-run shows what they would do. Only when it
// has run them it says done.
func (o *hostOptions) runOrPlan(ctx context.Context, list []phases.Phase, t *phases.Target, view *view) (done bool, err error) {
	if !o.dryRun {
		return true, phases.Run(ctx, list, t, o.skip)
	}
	plan, err := phases.Plan(ctx, list, t, o.skip)
	if err != nil {
		return false, err
	}
	view.close()
	if o.out() == "json" {
		view.result(struct {
			Kind   string           `json:"kind"`
			Phases []phases.Planned `json:"phases"`
		}{"Plan", plan})
		return false, nil
	}
	printPlan(os.Stdout, plan)
	return false, nil
}

func printPlan(w io.Writer, plan []phases.Planned) {
	printPhases(w, plan)
	fmt.Fprintln(w, planSummary(plan))
}

func printPhases(w io.Writer, plan []phases.Planned) {
	for _, p := range plan {
		fmt.Fprintf(w, "# %s\n", p.Phase)
		for _, c := range p.Steps {
			switch c.Kind {
			case "command":
				fmt.Fprintf(w, "$ %s\n", c.Name)
			case "etcd":
				fmt.Fprintf(w, "etcd: %s\n", c.Name)
			case "file":
				fmt.Fprintf(w, "%s %s %s\n%s", c.Action, c.Name, c.Mode, c.Diff)
			default:
				fmt.Fprintf(w, "%s %s\n%s", c.Action, c.Name, c.Diff)
			}
		}
		fmt.Fprintln(w)
	}
}

func planSummary(plan []phases.Planned) string {
	counts := map[string]int{}
	for _, p := range plan {
		for _, c := range p.Steps {
			counts[c.Kind]++
		}
	}
	var all []string
	for _, kind := range []string{"file", "command", "image", "object", "etcd"} {
		if n := counts[kind]; n > 0 {
			word := map[string]string{"etcd": "change of etcd's members"}[kind]
			all = append(all, fmt.Sprintf("%d %s", n, plural(cmp.Or(word, kind), n)))
		}
	}
	if all == nil {
		return "Nothing would change."
	}
	return fmt.Sprintf("That would be %s. Nothing was changed.", strings.Join(all, ", "))
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	noun, rest, _ := strings.Cut(word, " ")
	return strings.TrimSpace(noun + "s " + rest)
}
