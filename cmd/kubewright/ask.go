package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// confirm asks on the terminal, and refuses where there is none to ask.
func confirm(ctx context.Context, what string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return misuse(errors.New("kubewright asks before it removes anything, and there is no terminal to ask at: pass --yes"))
	}
	fmt.Fprintf(os.Stderr, "%s Go on? [y/N] ", what)
	return agreed(ctx, os.Stdin)
}

// agreed reads the answer. Ctrl-C is one, too.
func agreed(ctx context.Context, in io.Reader) error {
	answered := make(chan string, 1)
	go func() { // which nothing but an answer ends
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			line = ""
		}
		answered <- line
	}()
	select {
	case line := <-answered:
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "y") {
			return nil
		}
		return misuse(errNothingRemoved)
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return errNothingRemoved
	}
}

var errNothingRemoved = errors.New("nothing was removed")

// noEcho has a terminal show nothing of what is typed.
func noEcho(fd int) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, t)
}
