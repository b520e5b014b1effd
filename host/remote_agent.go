package host

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

//go:embed agent.sh
var agentProgram string

// program is a text for the shell with its environment: whatever it starts has the run's variable, so
// that whoever takes the machine over finds it, and the shell too.
func program(shell, run, text string) string {
	return "exec env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin " +
		runVariable + "=" + quote(run) + " " + quote(shell) + " -c " + quote(text)
}

// agent is a shell on the machine that does what it is asked.
type agent struct {
	pipe     *Pipe
	out, err *answers
	broken   bool // its input or output is out of step
}

// answer is what an operation printed on one of the outputs.
type answer struct {
	printed []byte
	code    int
	err     error // the output has ended; printed is the rest
}

func startAgent(ctx context.Context, t Transport, shell, run string) (*agent, error) {
	pipe, err := t.Shell(ctx, program(shell, run, agentProgram))
	if err != nil {
		return nil, err
	}
	nonce := rand.Text()
	a := &agent{pipe: pipe, out: newAnswers(pipe.Out, nonce), err: newAnswers(pipe.Err, nonce)}
	if _, err := io.WriteString(pipe.In, nonce+"\n"); err != nil {
		pipe.Close()
		return nil, a.ended(err)
	}
	return a, nil
}

// answers are those on one output.
type answers struct {
	from   io.Reader
	mark   []byte // what ends each, before the exit code
	buffer []byte // what comes after the last one
	ended  error
}

func newAnswers(r io.Reader, nonce string) *answers {
	return &answers{from: r, mark: []byte("\n" + nonce + " ")}
}

// next waits for the next one.
func (a *answers) next() answer {
	buffer := a.buffer
	a.buffer = nil
	for looked := 0; ; {
		if i := bytes.Index(buffer[looked:], a.mark); i >= 0 {
			looked += i
			if line, next, whole := bytes.Cut(buffer[looked+len(a.mark):], []byte("\n")); whole {
				if len(next) > 0 {
					a.buffer = bytes.Clone(next)
				}
				code, err := strconv.Atoi(string(line))
				return answer{bytes.Clone(buffer[:looked]), code, err}
			}
		} else {
			looked = max(0, len(buffer)-len(a.mark)+1)
		}
		if a.ended != nil {
			return answer{buffer, 0, a.ended}
		}
		if len(buffer) == cap(buffer) { // most answers are short
			buffer = append(make([]byte, 0, 4*len(buffer)+2<<10), buffer...)
		}
		var n int
		n, a.ended = a.from.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
	}
}

// next waits for the answer to the next operation.
func (a *agent) next() (Output, int, error) {
	asides := make(chan answer, 1)
	go func() { asides <- a.err.next() }()
	out := a.out.next()
	aside := <-asides
	if out.err != nil || aside.err != nil {
		a.broken = true
		err := out.err
		if err == nil || err == io.EOF && aside.err != nil {
			err = aside.err
		}
		if words := strings.TrimSpace(string(aside.printed)); words != "" {
			return Output{}, 0, fmt.Errorf("the shell on the machine has ended: %s", words)
		}
		return Output{}, 0, a.ended(err)
	}
	return Output{Stdout: out.printed, Stderr: aside.printed}, out.code, nil
}

func (a *agent) ended(err error) error {
	a.broken = true
	if err == nil || errors.Is(err, io.EOF) {
		return errors.New("the shell on the machine has ended, or the connection to it")
	}
	return err
}
