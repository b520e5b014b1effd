// Command kubewright turns hosts into a Kubernetes cluster.
//
// This package reads flags into a struct of options, makes one call, and shows the
// events that come back: as a live view on a terminal, else as lines, or as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/verify/probe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends us at once
	// sudo's PATH lacks /usr/local on some distributions. What the user's own finds goes first: which docker is meant, say.
	os.Setenv("PATH", os.Getenv("PATH")+":"+strings.Join(phases.BinDirs, ":"))
	klog.SetLogger(logr.Discard())                    // client-go's own words would stand between our lines
	if len(os.Args) > 1 && os.Args[1] == probe.Word { // in pods, some eighty times a run of verify: what all commands need would cost more than most answers
		os.Exit(runProbe(ctx, os.Args[2:]))
	}
	if ran, err := newRoot().ExecuteContextC(ctx); err != nil {
		code := exitCode(ctx, err)
		words := inWords(code, err)
		if ran.Flag("output").Value.String() == "json" { // verify has one of its own
			must(json.NewEncoder(os.Stderr).Encode(struct {
				Kind     string `json:"kind"`
				ExitCode int    `json:"exitCode"`
				Message  string `json:"message"`
			}{"Error", code, words}))
		} else {
			fmt.Fprintln(os.Stderr, "error:", words)
		}
		os.Exit(code)
	}
}

// inWords says of an error, too, what to do after Ctrl-C.
func inWords(code int, err error) string {
	words, next := err.Error(), "interrupted: run the same command again to finish"
	switch {
	case code != interrupted, errors.Is(err, errNothingRemoved), strings.Contains(words, "run the same command again"):
		return words
	case strings.HasSuffix(words, context.Canceled.Error()) && !strings.Contains(words, "\n"): // whatever heard of it first
		return next
	}
	return words + "\n" + next
}

// The exit codes, as the help of the root command has them.
const (
	failed      = 1
	misused     = 2
	notReady    = 3
	locked      = 4
	interrupted = 130 // as a shell has it for Ctrl-C
)

func exitCode(ctx context.Context, err error) int {
	var use usageError
	var unready *phases.NotReadyError
	var other *host.LockedError
	switch {
	case errors.As(err, &other):
		return locked
	case errors.As(err, &use):
		return misused
	case ctx.Err() != nil: // a preflight that was cut short finds that nothing answers
		return interrupted
	case errors.As(err, &unready):
		return notReady
	}
	return failed
}

// usageError is a mistake in what a user wrote: flags, arguments or a document.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// misuse is nobody's where something does not answer, the cloud does not do as it is asked, or Ctrl-C came.
func misuse(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, new(*host.UnreachableError)) || errors.As(err, new(cloudError)) {
		return err
	}
	return usageError{err}
}
