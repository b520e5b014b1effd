package ssh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubewright/kubewright/host"
	"golang.org/x/crypto/ssh"
)

// How a shell becomes root's is found out by the first one of a connection.
const (
	unknownRoot  = iota
	isRoot       // the user is root
	sudoFree     // sudo -n
	sudoPassword // sudo -S
)

// starting is how long sudo may take, with a password server that answers slowly.
const starting = time.Minute

type root struct {
	way      int
	deciding chan struct{} // holds one: a mutex that a context can leave
}

func newRoot() root { return root{deciding: make(chan struct{}, 1)} }

// Shell starts sh as root. What goes to In arrives to the byte after the program's text. Out and
// Err share a window of 2 MiB: who does not read one of them stops the program in the end, and
// the other with it. A lost connection is an error on all three, never a plain end of file.
//
// The end of ctx closes the Pipe, also long after Shell has returned.
func (s *Transport) Shell(ctx context.Context, program string) (*host.Pipe, error) {
	if s.user == "root" {
		return s.start(ctx, isRoot, program, "")
	}
	select {
	case s.root.deciding <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", s.endpoint, context.Cause(ctx))
	}
	way := s.root.way
	if way != unknownRoot {
		<-s.root.deciding
	} else {
		defer func() { <-s.root.deciding }()
	}
	if way == unknownRoot {
		// The program goes along: where sudo wants no password, finding out costs nothing.
		pipe, err := s.start(ctx, sudoFree, program, "")
		if err != nil {
			return nil, err
		}
		err = pipe.Out.(*output).await()
		if err == nil {
			s.root.way = sudoFree
			return pipe, nil
		}
		pipe.Close()
		var refused *sudoError
		if !errors.As(err, &refused) || !refused.wantsPassword() {
			return nil, err
		}
	}
	if way == sudoFree {
		return s.start(ctx, sudoFree, program, "")
	}
	pipe, err := s.startWithPassword(ctx, program)
	if err == nil {
		s.root.way = sudoPassword
	}
	return pipe, err
}

// startWithPassword lets the first host prove a password before the others send it: a wrong one
// is tried once, not once per host, as accounts of a directory are locked after a few.
func (s *Transport) startWithPassword(ctx context.Context, program string) (*host.Pipe, error) {
	p, proving, err := s.shared.password(ctx, s.endpoint)
	if err != nil {
		return nil, err
	}
	if proving {
		defer p.release()
	}
	pipe, err := s.start(ctx, sudoPassword, program, p.text)
	var refused *sudoError
	switch {
	case !proving:
	case err == nil:
		p.proven = true
	case errors.As(err, &refused) && refused.wrongPassword():
		p.err = fmt.Errorf("not tried, as another host has refused it: %w", err)
	}
	return pipe, err
}

// start opens a channel and starts sh. The remote command line is fixed but for a number and a
// random word; it is in single quotes without any of the characters that sh, csh and fish treat
// differently there. The program's text comes over standard input.
func (s *Transport) start(ctx context.Context, way int, program, password string) (*host.Pipe, error) {
	nonce := rand.Text()
	word := "kubewright-" + nonce
	script := fmt.Sprintf(`echo %s; eval "$(%s)"`, word, host.ProgramFrom(program))
	command := "env LC_ALL=C sh -c '" + script + "'"
	switch way {
	case sudoFree:
		command = "env LC_ALL=C sudo -n sh -c '" + script + "'"
	case sudoPassword:
		// Whatever sudo did with the password's line, and said: what comes before these words is thrown away.
		script = fmt.Sprintf(`echo %s >&2; echo %s; while read -r l; do [ "$l" = BEGIN-%s ] && break; done; `, nonce, word, word) + script[strings.Index(script, "eval"):]
		command = "env LC_ALL=C sudo -k -S -p " + word + " sh -c '" + script + "'"
	}
	channel, requests, err := s.open(ctx, "session", nil)
	var full *ssh.OpenChannelError
	if errors.As(err, &full) {
		err = fmt.Errorf("the server opened no further session (%s): see MaxSessions in its sshd_config, and how many are open", full.Message)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: start a shell: %w", s.endpoint, err)
	}
	go ssh.DiscardRequests(requests)
	in, errs := newInput(s.link, ctx, channel), newStream(s.link, ctx, channel.Stderr(), 1<<20)
	out := &output{stream: newStream(s.link, ctx, channel, 64<<10), word: word, way: way, errs: errs, input: channel}
	end := func(why error) {
		in.stop()
		out.stop(why)
		errs.stop(why)
		channel.Close()
	}
	stop := context.AfterFunc(ctx, func() { end(context.Canceled) })
	closing := func() error {
		stop()
		end(io.ErrClosedPipe)
		return nil
	}
	failed := func(err error) (*host.Pipe, error) {
		closing()
		return nil, fmt.Errorf("%s: start a shell: %w", s.endpoint, err)
	}
	ok, err := wait(ctx, func() (bool, error) {
		return channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{command}))
	}, nil)
	if err == nil && !ok {
		err = errors.New("the server does not let this user run commands (ForceCommand, or a restricted key)")
	}
	if err != nil {
		return failed(s.ended(ctx, err))
	}
	if program == "" {
		program = "\n"
	}
	if way == sudoPassword {
		if err := s.enterPassword(ctx, in, out, password, nonce); err != nil {
			closing()
			return nil, err
		}
		program = "BEGIN-" + word + "\n" + program
	}
	if _, err := io.WriteString(in, program); err != nil && (s.cause() != nil || ctx.Err() != nil) {
		closing()
		return nil, err
	} // else sudo has ended, and Out says why
	return &host.Pipe{In: in, Out: out, Err: errs, Close: closing}, nil
}

// enterPassword returns when sudo has started the shell, which says nonce among its errors first.
func (s *Transport) enterPassword(ctx context.Context, in io.Writer, out *output, password, nonce string) error {
	// A second prompt says that the password was wrong, and that sudo waits for another.
	out.errs.listen(out.word, func() { out.input.CloseWrite() })
	slow := time.AfterFunc(starting, func() {
		out.stop(fmt.Errorf("%s: sudo did not go on for %s: see what it waits for with `sudo -k -S true` there", s.endpoint, starting))
	})
	defer slow.Stop()
	if _, err := io.WriteString(in, password+"\n"); err != nil && (s.cause() != nil || ctx.Err() != nil) {
		return err
	}
	if err := out.await(); err != nil {
		return err
	}
	return out.errs.after(nonce + "\n") // sudo's prompt may come late, though it was written before
}

// open is OpenChannel that a context can leave.
func (l *link) open(ctx context.Context, kind string, data []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type session struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
	}
	o, err := opened(ctx, l, func() (session, error) {
		channel, requests, err := l.client.OpenChannel(kind, data)
		return session{channel, requests}, err
	}, func(o session) {
		go ssh.DiscardRequests(o.requests)
		o.channel.Close()
	})
	if err != nil && ctx.Err() == nil {
		err = l.lost(err)
	}
	return o.channel, o.requests, err
}

// lost is the reason for an error that a dead connection causes; err itself otherwise.
func (l *link) lost(err error) error {
	if cause := l.cause(); cause != nil {
		return cause
	}
	return err
}
