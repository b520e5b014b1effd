package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
)

func newConfig(out func() output) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print or validate a Cluster document", Example: "  kubewright config print"}
	holdsCommands(cmd)
	var file, dir string
	cmd.PersistentFlags().StringVar(&file, "config", "", "file with a Cluster document; - is standard input")
	cmd.PersistentFlags().StringVar(&dir, "bundle", "", "folder whose versions are the defaults")
	must(cmd.MarkPersistentFlagFilename("config", "yaml", "yml", "json"))
	must(cmd.MarkPersistentFlagDirname("bundle"))
	load := func() (*config.Cluster, error) {
		c := &config.Cluster{}
		if file != "" {
			var err error
			if c, err = config.Load(file); err != nil {
				return nil, err
			}
		}
		var v config.Versions
		if dir != "" {
			b, err := bundle.Open(dir)
			if err != nil {
				return nil, err
			}
			v = b.Versions("")
		}
		c.Default(v)
		return c, c.Validate()
	}
	cmd.AddCommand(&cobra.Command{
		Use: "print", Short: "Print the document with every default filled in", Args: cobra.NoArgs,
		Example: "  kubewright config print > cluster.yaml\n  kubewright config print --config cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(c)
			}
			b, err := c.Print()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}, &cobra.Command{
		Use: "validate", Short: "Say everything that is wrong with a document", Args: cobra.NoArgs,
		Example: "  kubewright config validate --config cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("name the document with --config FILE")
			}
			if _, err := load(); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", file)
			return err
		},
	})
	return cmd
}
