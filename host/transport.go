package host

import (
	"context"
	"fmt"
	"io"
	"net"
)

// Transport is a way to another machine: over SSH, or into a container.
type Transport interface {
	// Shell starts "sh" there as root, with a POSIX shell program of any length. What is written to
	// In afterwards is the program's standard input, to the byte.
	Shell(ctx context.Context, program string) (*Pipe, error)
	// Dial connects from the machine's own view of the network: "unix" and "tcp".
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	// Close ends all shells and connections.
	Close() error
}

// ProgramFrom is a shell command that prints a program's text, which comes first on standard input: nobody sees it in a list of
// processes, and it may be longer than an argument. dd takes what it was told and no byte more, which not every head does.
func ProgramFrom(program string) string {
	return fmt.Sprintf("dd bs=%d count=1 iflag=fullblock 2>/dev/null", max(len(program), 1))
}

// Pipe is a program that runs on another machine.
type Pipe struct {
	In       io.WriteCloser
	Out, Err io.Reader
	// Close ends the connection to the program, which sees the end of its input; it does not wait for it.
	Close func() error
}

// UnreachableError is a machine that does not answer: it may be down, or something lies between.
// Every other error of connecting is a refusal, by it or by us.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string { return e.Err.Error() }
func (e *UnreachableError) Unwrap() error { return e.Err }

// BehindError is of a host to whose jump host there is no way.
type BehindError struct {
	Host string
	Err  error // the jump host's, and so that of all who are behind it
}

func (e *BehindError) Error() string { return e.Host + ": jump host: " + e.Err.Error() }
func (e *BehindError) Unwrap() error { return e.Err }

// ForbiddenError is what the way to a machine does not do, however long one waits.
type ForbiddenError struct{ Err error }

func (e *ForbiddenError) Error() string { return e.Err.Error() }
func (e *ForbiddenError) Unwrap() error { return e.Err }
