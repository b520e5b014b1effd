package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
)

func newConfig(out func() output) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print, validate or migrate documents", Example: "  kubewright config print"}
	holdsCommands(cmd)
	var file, where string
	artifacts := &artifactOptions{}
	cmd.PersistentFlags().StringVarP(&file, "config", "f", "", "file with a Cluster document, or with kubeadm's; - is standard input")
	cmd.PersistentFlags().StringVar(&where, "bundle", "", "bundle whose versions are the defaults: a folder, a file, or an address")
	must(cmd.MarkPersistentFlagFilename("config", "yaml", "yml", "json"))
	versions := func() (config.Versions, error) {
		if where == "" {
			return config.Versions{}, nil
		}
		l, err := artifacts.readLock(cmd.Root().Context(), where)
		return l.Versions(""), err
	}
	load := func(named bool) (*config.Cluster, error) {
		v, err := versions()
		if err != nil {
			return nil, err
		}
		return load(file, v, named)
	}
	cmd.AddCommand(&cobra.Command{
		Use: "print", Short: "Print the document with every default filled in", Args: cobra.NoArgs,
		Example: "  kubewright config print > cluster.yaml\n  kubewright config print --config cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(true)
			if err != nil {
				return misuse(err)
			}
			if c == nil {
				return fmt.Errorf("%s: a JoinConfiguration alone describes no cluster", file)
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
		Example: "  kubewright config validate -f cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return misuse(errors.New("name the document with -f FILE"))
			}
			if _, err := load(false); err != nil {
				return misuse(err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", file)
			return err
		},
	}, newMigrate(out, &file, versions))
	return cmd
}

// load gives the complete document, ours or made of kubeadm's; nil where a JoinConfiguration is alone.
func load(file string, v config.Versions, named bool) (*config.Cluster, error) {
	c := &config.Cluster{}
	theirs := false
	if file != "" {
		b, err := config.Read(file)
		if err != nil {
			return nil, err
		}
		if theirs = kubeadm.Is(b); theirs {
			c, _, err = fromKubeadm(b, named)
		} else {
			c, err = config.Parse(b)
		}
		if err != nil || c == nil {
			return nil, in(file, err)
		}
	}
	if c.Spec.Provider.Name == "aws" {
		if err := c.ForeseeAWS(); err != nil {
			return nil, in(file, err)
		}
		c.DefaultAWS()
	}
	c.Default(v)
	err := c.Validate()
	if err != nil && theirs {
		return nil, fmt.Errorf("%s: %s", file, kubeadm.In(err))
	}
	return c, err
}

func in(file string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", file, err)
}
