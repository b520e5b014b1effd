package main

import "github.com/spf13/cobra"

func newReset(out func() output) *cobra.Command { return &cobra.Command{Use: "reset"} }
func newToken(out func() output) *cobra.Command { return &cobra.Command{Use: "token"} }
