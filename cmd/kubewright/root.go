package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Set with -ldflags "-X main.version=...".
var version = "v0.1.0-dev"

// output is what -o chose.
type output string

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubewright",
		Short: "Make Kubernetes clusters out of hosts",
		Long: `Kubewright makes Kubernetes clusters out of hosts.

Run init on the host that becomes the control plane, then the join command that it
prints on every worker. What kubeadm calls a flag has the same name here. A command that
was cut short, by whatever, is finished by running it again.

Exit codes: 0 done, or nothing to do; 1 something failed: run it again when it is mended;
2 wrong flags, arguments or document; 3 preflight found the host not ready; 4 another run
is at work on the host; 130 interrupted. After 2, 3 and 4 nothing was changed.`,
		Example: `  # a control plane, and a worker
  kubewright init
  kubewright join 192.0.2.11:6443 --token TOKEN --discovery-token-ca-cert-hash sha256:HEX

  # the same without the internet
  kubewright bundle create kubernetes.tar.zst
  kubewright init --bundle kubernetes.tar.zst`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	holdsCommands(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return misuse(fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath()))
	})
	var format string
	root.PersistentFlags().StringVarP(&format, "output", "o", "text", "what to print: text, or json (one event a line on stderr, the result on stdout)")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return misuse(fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath()))
		}
		if !slices.Contains([]string{"text", "json"}, format) {
			return misuse(fmt.Errorf("--output %q: write text or json", format))
		}
		return nil
	}
	out := func() output { return output(format) }
	root.AddCommand(newInit(out), newJoin(out), newReset(out), newUp(out), newPlan(out), newPreflight(out), newStatus(out), newLogs(out), newTimeline(out), newRemove(out), newDown(out), newToken(out), newBundle(out), newBuild(out), newConfig(out), newKubeconfig(out), newVerify(), newVersion(out))
	argumentsAreUsage(root)
	return root
}

// argumentsAreUsage has every command report wrong arguments as such.
func argumentsAreUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil && strings.HasPrefix(err.Error(), "accepts ") { // cobra's own words
				err = fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
			}
			return misuse(err)
		}
	}
	for _, c := range cmd.Commands() {
		argumentsAreUsage(c)
	}
}

// holdsCommands makes a command that does nothing itself show its help, and refuse a name
// that is none of its commands: cobra alone would show the help of a mistyped one, and succeed.
func holdsCommands(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := ""
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			hint = fmt.Sprintf("did you mean %s? ", strings.Join(similar, " or "))
		}
		return fmt.Errorf("%s has no command %q: %ssee `%s --help`", cmd.CommandPath(), args[0], hint, cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// must is for errors that only a mistake in this package can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
