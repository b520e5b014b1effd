package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ask asks a person at the terminal, who sees nothing of what they type. Ctrl-C ends it.
func ask(ctx context.Context, prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%s there is no terminal to ask at", strings.TrimSpace(prompt))
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	// Not ReadPassword, after the prompt: somebody, or something, may type at once.
	if err := noEcho(fd); err != nil {
		return "", err
	}
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	fmt.Fprint(tty, prompt)
	go func() { // which nothing but an answer ends
		text, err := term.ReadPassword(fd)
		fmt.Fprintln(tty)
		answered <- answer{text, err}
	}()
	select {
	case a := <-answered:
		return string(a.text), errors.Join(a.err, term.Restore(fd, before), tty.Close())
	case <-ctx.Done():
		fmt.Fprintln(tty)
		return "", errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

// noEcho has a terminal show nothing of what is typed.
func noEcho(fd int) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, t)
}
