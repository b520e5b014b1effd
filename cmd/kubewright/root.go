package main

import (
	"fmt"
	"slices"

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
prints on every worker. What kubeadm calls a flag has the same name here.`,
		Example: `  # a control plane, from a folder with everything that it needs
  kubewright init --bundle /mnt/bundle

  # a worker
  kubewright join 192.0.2.11:6443 --bundle /mnt/bundle --token TOKEN --discovery-token-ca-cert-hash sha256:HEX`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	var format string
	root.PersistentFlags().StringVarP(&format, "output", "o", "text", "what to print: text, or json (one event a line on stderr, the result on stdout)")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains([]string{"text", "json"}, format) {
			return fmt.Errorf("--output %q: write text or json", format)
		}
		return nil
	}
	out := func() output { return output(format) }
	root.AddCommand(newInit(out), newJoin(out), newReset(out), newToken(out), newConfig(out), newVerify(out), newVersion(out))
	return root
}

// must is for errors that only a mistake in this package can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
