package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/phases"
)

func describePhases(list []phases.Phase) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintf(&b, "  %-26s %s\n", p.Name, p.Short)
	}
	return b.String()
}

// addPhases gives a command one sub-command for each of its phases: NAME alone, or all of NAME/...
// Args names further arguments, which run receives as far as they are given.
func addPhases(parent *cobra.Command, args string, list []phases.Phase, run func(cmd *cobra.Command, chosen []phases.Phase, args []string) error) {
	phase := &cobra.Command{
		Use:     "phase NAME",
		Short:   "Run one phase of " + parent.Name() + " alone",
		Long:    "Run one phase of " + parent.Name() + " alone. What comes before it is expected to be done.\n\n" + describePhases(list),
		Example: strings.TrimSpace(fmt.Sprintf("  kubewright %s phase %s %s", parent.Name(), list[len(list)-1].Name, args)),
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) < 1 || len(given) > 1+len(strings.Fields(args)) {
				return fmt.Errorf("write %s, and as NAME one of %s", strings.TrimSpace(cmd.CommandPath()+" NAME "+args), strings.Join(groups(list), ", "))
			}
			return nil
		},
		ValidArgs: groups(list),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := phases.Select(list, args[0])
			if len(chosen) == 0 {
				return misuse(fmt.Errorf("there is no phase %q: the phases are %s", args[0], strings.Join(groups(list), ", ")))
			}
			return run(cmd, chosen, args[1:])
		},
	}
	parent.AddCommand(phase)
}

func completePhases(cmd *cobra.Command, list []phases.Phase) {
	must(cmd.RegisterFlagCompletionFunc("skip-phases", cobra.FixedCompletions(groups(list), cobra.ShellCompDirectiveNoFileComp)))
}

// groups are the names that Select understands.
func groups(list []phases.Phase) []string {
	var names []string
	seen := map[string]bool{}
	for _, p := range list {
		if group, _, ok := strings.Cut(p.Name, "/"); ok && !seen[group] {
			seen[group] = true
			names = append(names, group)
		}
		names = append(names, p.Name)
	}
	return names
}
