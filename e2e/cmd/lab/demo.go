package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/e2e/cluster"
	"github.com/kubewright/kubewright/e2e/lab"
)

// demoCommand makes a cluster of containers in the lab's engine, by the commands that a person would type.
func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Make a real cluster of containers, and leave it running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context()) },
	}
}

func demo(ctx context.Context) error {
	l, err := lab.New(ctx, lab.Options{Name: "demo", Log: progress})
	if err != nil {
		return err
	}
	dir, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	k, err := cluster.NewKind(ctx, l, dir)
	if err != nil {
		return err
	}
	kubectl, err := l.Binary(ctx, "kubectl")
	if err != nil {
		return err
	}
	progress("")
	for _, env := range append(l.Engine.Env(), "KUBECONFIG="+k.Kubeconfig()) {
		progress("$ export %s", env)
	}
	for _, argv := range [][]string{
		{k.Binary, "up", "--provider", "kind", "--name", "demo", "--workers", "2", "--image", k.Image},
		{kubectl, "get", "nodes", "-o", "wide"},
		{kubectl, "get", "pods", "-A", "-o", "wide"},
	} {
		progress("\n$ %s", shellescape.QuoteCommand(argv))
		c := k.Command(ctx, argv[0], argv[1:]...)
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return err
		}
	}
	progress("\nIt is there until: %s", strings.Join([]string{k.Binary, "down", "--name", "demo"}, " "))
	return nil
}
