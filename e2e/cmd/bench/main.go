// Command bench measures kubewright beside its peers: see package bench.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/kubewright/kubewright/e2e/bench"
	"github.com/kubewright/kubewright/e2e/lab"
)

func main() {
	only := flag.String("only", "", "figures, separated by commas: "+strings.Join(bench.Names(), ", "))
	runs := flag.Int("runs", 5, "runs of each side")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, runs int) error {
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	l, err := lab.New(ctx, lab.Options{Name: "bench", Log: log})
	if err != nil {
		return err
	}
	defer l.Close(context.WithoutCancel(ctx))
	if _, err := l.Kubewright(ctx); err != nil {
		return err
	}
	o := bench.Options{Runs: runs, Out: os.Stdout, Detail: log}
	if only != "" {
		o.Only = strings.Split(only, ",")
	}
	return bench.Run(ctx, l, o)
}
