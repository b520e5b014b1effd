package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kubewright/kubewright/verify/probe"
)

// runProbe is what verify runs in its pods, and no command for people: --help does not know it. It returns the exit code.
func runProbe(ctx context.Context, args []string) int {
	err := probe.Run(ctx, probe.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, args)
	var plain probe.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &plain): // every word counts
		return int(plain)
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return failed
}
