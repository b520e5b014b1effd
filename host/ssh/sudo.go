package ssh

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// password is that of a user for sudo, on all hosts.
type password struct {
	alone  chan struct{} // a mutex that a context can leave
	text   string
	proven bool  // a host has taken it
	err    error // it could not be had, or the first host that was asked has refused it
}

// password gives the user's, and asks for it once. Its mutex is held if it has not been proven:
// then the caller proves it, and releases it.
func (c *Client) password(ctx context.Context, e endpoint) (p *password, proving bool, err error) {
	c.mu.Lock()
	if p = c.passwords[e.user]; p == nil {
		p = &password{alone: make(chan struct{}, 1), text: c.SudoPassword}
		c.passwords[e.user] = p
	}
	c.mu.Unlock()
	select {
	case p.alone <- struct{}{}:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%s: %w", e, context.Cause(ctx))
	}
	if p.text == "" && p.err == nil {
		p.text, err = c.askPassword(ctx, e)
		if ctx.Err() == nil {
			p.err = err
		}
	}
	if p.err != nil {
		err = fmt.Errorf("%s: sudo wants a password there: %w", e, p.err)
	}
	if err != nil || p.proven {
		p.release()
	}
	return p, !p.proven, err
}

func (p *password) release() { <-p.alone }

func (c *Client) askPassword(ctx context.Context, e endpoint) (string, error) {
	ask := c.ask()
	if ask == nil {
		return "", errors.New("there is nobody to ask for it: run this in a terminal, or let the user do without (NOPASSWD: in sudoers), or log in as root")
	}
	text, err := wait(ctx, func() (string, error) {
		return ask(fmt.Sprintf("Password of %s for sudo (the same on all hosts): ", e.user))
	}, nil)
	switch {
	case err != nil:
		return "", err
	case text == "":
		return "", errors.New("none was given")
	case strings.ContainsAny(text, "\n\r\x00"):
		return "", errors.New("it has a line break, which sudo cannot read")
	}
	return text, nil
}

// sudoError is a program that sudo did not start.
type sudoError struct {
	where    endpoint
	text     string // sudo's words
	password bool   // one was sent
}

// wantsPassword: sudo's words under LC_ALL=C, and those of sudo-rs.
func (e *sudoError) wantsPassword() bool {
	return strings.Contains(e.text, "a password is required") || strings.Contains(e.text, "authentication is required")
}

// wrongPassword tells of a password that was refused, not of a user who may not.
func (e *sudoError) wrongPassword() bool {
	if !e.password {
		return false
	}
	for _, words := range []string{"try again", "incorrect password", "no password was provided", "incorrect authentication"} {
		if strings.Contains(strings.ToLower(e.text), words) {
			return true
		}
	}
	return false
}

func (e *sudoError) Error() string {
	next := "see that this user may run sh with sudo, or log in as root"
	switch text := strings.ToLower(e.text); {
	case e.wrongPassword():
		return fmt.Sprintf("%s: sudo refused the password of %s; it was not tried again: %s", e.where, e.where.user, e.text)
	case strings.Contains(text, "must have a tty"):
		next = fmt.Sprintf("sudoers has requiretty: add `Defaults:%s !requiretty` there, or log in as root", e.where.user)
	case strings.Contains(text, "not in the sudoers"), strings.Contains(text, "not allowed"), strings.Contains(text, "may not run"):
		next = fmt.Sprintf("add `%s ALL=(ALL) ALL` to sudoers there, or log in as root or another user", e.where.user)
	case strings.Contains(text, "not found"), strings.Contains(text, "no such file"):
		next = "install sudo there, or log in as root"
	}
	return fmt.Sprintf("%s: sudo did not start a shell there: %s: %s", e.where, e.text, next)
}
