package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/reach/probe"
)

// Relay connects from a host's own view of the network, by the program that runs there meanwhile.
type Relay struct {
	pipe    *host.Pipe
	session *yamux.Session
}

// patience is how long a program may take to come to a host and to answer, and how long it may take to connect.
const patience = 30 * time.Second

// NewRelay starts the program with what starts shells on a host. It ends with ctx.
func NewRelay(ctx context.Context, shell func(ctx context.Context, program string) (*host.Pipe, error)) (*Relay, error) {
	return newRelay(ctx, shell, patience)
}

func newRelay(ctx context.Context, shell func(ctx context.Context, program string) (*host.Pipe, error), patience time.Duration) (*Relay, error) {
	text, err := relayProgram()
	if err != nil {
		return nil, err
	}
	pipe, err := shell(ctx, text)
	if err != nil {
		return nil, err
	}
	return converse(ctx, pipe, patience)
}

// converse sends the program through a pipe, once the machine has said of what kind it is, and has it answer.
func converse(ctx context.Context, pipe *host.Pipe, patience time.Duration) (*Relay, error) {
	late := time.AfterFunc(patience, func() { pipe.Close() })
	said := &printed{done: make(chan struct{})}
	go func() {
		defer close(said.done)
		said.text, _ = io.ReadAll(io.LimitReader(pipe.Err, 4<<10))
	}()
	var packed []byte
	machine, err := firstLine(pipe.Out)
	if err == nil {
		packed, err = program(machines[machine])
	}
	if err == nil {
		_, err = pipe.In.Write(packed)
	}
	var session *yamux.Session
	if err == nil {
		session, err = yamux.Client(conn{pipe}, probe.Session())
	}
	if err == nil {
		if _, err = session.Ping(); err != nil {
			session.Close()
		}
	}
	inTime := late.Stop()
	if inTime && err == nil {
		go func() { <-said.done; io.Copy(io.Discard, pipe.Err) }()
		return &Relay{pipe, session}, nil
	}
	pipe.Close()
	<-said.done
	switch words := strings.TrimSpace(string(said.text)); {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case words != "":
		return nil, errors.New(words)
	case inTime:
		return nil, errors.New("the program that connects from there has ended, and did not say why: run this again")
	}
	return nil, &host.UnreachableError{Err: fmt.Errorf("the program that connects from there did not answer within %s: the machine, or its engine, has too much to do, or hangs: run this again", patience)}
}

// conn is a Pipe as yamux wants it.
type conn struct{ *host.Pipe }

func (c conn) Read(b []byte) (int, error)  { return c.Out.Read(b) }
func (c conn) Write(b []byte) (int, error) { return c.In.Write(b) }
func (c conn) Close() error                { return c.Pipe.Close() }

// Dial connects to "tcp" or "unix" there. What is missing is ENOENT, what nobody listens at ECONNREFUSED; a
// relay that has ended is [io.ErrClosedPipe].
func (r *Relay) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	stream, err := r.session.Open()
	if err != nil {
		return nil, io.ErrClosedPipe
	}
	stream.SetDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) })
	line, err := "", error(nil)
	if _, err = fmt.Fprintf(stream, "%s %s\n", network, addr); err == nil {
		line, err = firstLine(stream)
	}
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrSessionShutdown):
		err = io.ErrClosedPipe
	case err != nil:
	case line == probe.OK:
		stream.SetDeadline(time.Time{})
		return stream, nil
	case line == probe.Absent:
		err = syscall.ENOENT
	case line == probe.Refused:
		err = syscall.ECONNREFUSED
	default:
		err = errors.New(line)
	}
	stream.Close()
	return nil, err
}

// firstLine reads no byte more than that.
func firstLine(r io.Reader) (string, error) {
	var line strings.Builder
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return line.String(), nil
		}
		line.WriteByte(b[0])
	}
}

// Close ends the program.
func (r *Relay) Close() error {
	r.session.Close()
	return r.pipe.Close()
}
