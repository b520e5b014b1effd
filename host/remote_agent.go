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

// program is the agent with its environment: whatever it starts has the run's variable, so that
// whoever takes the machine over finds it, and the agent too.
func program(shell, run string) string {
	return "exec env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin " +
		runVariable + "=" + quote(run) + " " + quote(shell) + " -c " + quote(agentProgram)
}

// agent is a shell on the machine that does what it is asked.
type agent struct {
	pipe     *Pipe
	out, err <-chan answer
	broken   bool // its input or output is out of step
}

// answer is what an operation printed on one of the outputs.
type answer struct {
	printed []byte
	code    int
	err     error // the output has ended; printed is the rest
}

func startAgent(ctx context.Context, t Transport, shell, run string) (*agent, error) {
	pipe, err := t.Shell(ctx, program(shell, run))
	if err != nil {
		return nil, err
	}
	nonce := rand.Text()
	a := &agent{pipe: pipe, out: answers(pipe.Out, nonce), err: answers(pipe.Err, nonce)}
	if _, err := io.WriteString(pipe.In, nonce+"\n"); err != nil {
		pipe.Close()
		return nil, a.ended(err)
	}
	return a, nil
}

// answers reads until the output ends.
func answers(r io.Reader, nonce string) <-chan answer {
	to := make(chan answer, 2)
	go func() {
		defer close(to)
		mark := []byte("\n" + nonce + " ")
		var buffer []byte
		var ended error
		for looked := 0; ; {
			if i := bytes.Index(buffer[looked:], mark); i >= 0 {
				looked += i
				if line, next, whole := bytes.Cut(buffer[looked+len(mark):], []byte("\n")); whole {
					code, err := strconv.Atoi(string(line))
					to <- answer{bytes.Clone(buffer[:looked]), code, err}
					buffer, looked = bytes.Clone(next), 0
					continue
				}
			} else {
				looked = max(0, len(buffer)-len(mark)+1)
			}
			if ended != nil {
				to <- answer{buffer, 0, ended}
				return
			}
			if len(buffer) == cap(buffer) { // most answers are short, and many machines may be asked
				buffer = append(make([]byte, 0, 4*len(buffer)+2<<10), buffer...)
			}
			var n int
			n, ended = r.Read(buffer[len(buffer):cap(buffer)])
			buffer = buffer[:len(buffer)+n]
		}
	}()
	return to
}

// next waits for the answer to the next operation.
func (a *agent) next() (Output, int, error) {
	out, more := <-a.out
	aside := <-a.err
	switch {
	case !more:
		return Output{}, 0, a.ended(io.EOF)
	case out.err != nil || aside.err != nil:
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
