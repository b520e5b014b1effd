// Command kubewright turns hosts into a Kubernetes cluster.
//
// This package reads flags into a struct of options, makes one call, and shows the
// events that come back: as a live view on a terminal, else as lines, or as JSON.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/kubewright/kubewright/phases"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends us at once
	// sudo's PATH lacks /usr/local on some distributions, and there is what we install.
	os.Setenv("PATH", strings.Join(append(phases.BinDirs, os.Getenv("PATH")), ":"))
	klog.SetLogger(logr.Discard()) // client-go's own words would stand between our lines
	cmd := newRoot()
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
