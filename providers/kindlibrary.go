package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	kindexec "sigs.k8s.io/kind/pkg/exec"
	"sigs.k8s.io/kind/pkg/log"

	"github.com/kubewright/kubewright/host/container"
)

// within bounds what hears of no context: kind's library. What does not end then is left behind.
func within(ctx context.Context, limit time.Duration, what string, do func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("kind's library did not %s within %s: the engine has too much to do, or hangs: see its log", what, limit))
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }() // also if a leaver ends it
		err = do()
	}()
	select {
	case err := <-done:
		return plain(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leaver is a logger that ends the goroutine in which kind's library makes containers, once they are made: what would follow,
// some twenty commands of the engine, writes a configuration for kubeadm, which nobody reads.
type leaver struct{ log.NoopLogger }

func (leaver) V(log.Level) log.InfoLogger { return leaverInfo{} }

type leaverInfo struct{ log.NoopInfoLogger }

func (leaverInfo) Infof(format string, args ...any) {
	if said := fmt.Sprintf(format, args...); strings.Contains(said, "✓ Preparing nodes") {
		runtime.Goexit()
	}
}

// plain is an error of kind's with what the engine said, and without the whole command.
func plain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if run := kindexec.RunErrorForError(err); run != nil {
		before, _, _ := strings.Cut(text, `command "`)
		said := cmp.Or(spoken(string(run.Output)), run.Inner.Error())
		text = fmt.Sprintf("%s%s: %s", before, strings.Join(run.Command[:min(2, len(run.Command))], " "), said)
	}
	if strings.Contains(text, exists) {
		return fmt.Errorf("kind: %s: somebody has made it meanwhile: choose another name with --name, or run this again to go on with it", text)
	}
	if do := container.Advice(text); do != "" {
		return fmt.Errorf("kind: %s: %s", text, do)
	}
	return errors.New("kind: " + text)
}

// taken tells whether kind has made nothing, as there is a cluster of that name.
func taken(err error) bool { return err != nil && strings.Contains(err.Error(), exists) }

const exists = "already exist for a cluster with the name"

// container IDs, and where help is to be had, are no part of what went wrong.
var noise = regexp.MustCompile(`^([0-9a-f]{64}|(Run|See) '.*)?$`)

func spoken(output string) string {
	lines := strings.Split(output, "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return noise.MatchString(strings.TrimSpace(l)) })
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
