package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersion(out func() output) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of kubewright", Args: cobra.NoArgs,
		Example: "  kubewright version -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kubewright %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
