package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func TestCtrlCIsAnAnswer(t *testing.T) {
	keyboard, typing := io.Pipe()
	defer typing.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := agreed(ctx, keyboard) // who typed nothing
	if code := exitCode(ctx, err); code != interrupted || inWords(code, err) != "nothing was removed" {
		t.Errorf("%d: %v", code, err)
	}
	for line, want := range map[string]int{"y\n": 0, "Yes\n": 0, "n\n": misused, "\n": misused, "y": misused} {
		code := 0
		if err := agreed(t.Context(), strings.NewReader(line)); err != nil {
			code = exitCode(t.Context(), err)
		}
		if code != want {
			t.Errorf("%q: %d", line, code)
		}
	}
}

func TestWhoIsInterruptedIsToldToRunItAgain(t *testing.T) {
	for _, tt := range []struct {
		code int
		err  error
		want string
	}{
		{interrupted, context.Canceled, "interrupted: run the same command again to finish"},
		{interrupted, fmt.Errorf("docker ps: %w", context.Canceled), "interrupted: run the same command again to finish"},
		{interrupted, fmt.Errorf("%w\n%w", os.ErrNotExist, errInterruptedAndRemoved), "file does not exist\n" + errInterruptedAndRemoved.Error()},
		{interrupted, os.ErrNotExist, "file does not exist\ninterrupted: run the same command again to finish"},
		{interrupted, errors.New("interrupted: run the same command again to finish"), "interrupted: run the same command again to finish"},
		{failed, os.ErrNotExist, "file does not exist"},
	} {
		if got := inWords(tt.code, tt.err); got != tt.want {
			t.Errorf("%q, not %q", got, tt.want)
		}
	}
}
