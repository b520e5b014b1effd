// Package probe is the half of verify that runs inside pods: the commands of a hidden part of this
// very binary, which is all that its image holds. There is no shell.
//
// A command gets one JSON document as its argument, a type of this package, and writes one to
// stdout. What has to become true it looks at again and again by itself, as every command in a
// pod costs its node more than the look.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Binary is where its image has it.
const Binary = "/kubewright"

// Word makes the binary a probe, as its first argument.
const Word = "probe"

// Port is where serve listens: for HTTP, and for datagrams, which it sends back.
const Port = 8080

// Argv runs a command in a container; question may be nil.
func Argv(command string, question any) []string {
	argv := []string{Binary, Word, command}
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			panic(err) // types of this package always marshal
		}
		argv = append(argv, string(b))
	}
	return argv
}

// Streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExitError asks for an exit code.
type ExitError int

func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Run runs a command with its arguments, until it is done or ctx is.
func Run(ctx context.Context, s Streams, args []string) error {
	commands := map[string]func(context.Context, Streams, string) error{
		"serve":   serve,
		"wait":    wait,
		"set":     set,
		"get":     answers(get),
		"look-up": answers(lookUp),
		"paths":   answers(paths),
		"files":   answers(files),
		"write":   answers(write),
		"routes":  answers(func(context.Context, struct{}) ([]Route, error) { return routes() }),
		"etcd":    answers(etcd),
		"connect": connect,
		"echo":    echo,
		"twice":   twice,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("probe: this runs in the pods of kubewright verify, and has no command for people")
	}
	question := ""
	if len(args) > 1 {
		question = args[1]
	}
	return commands[args[0]](ctx, s, question)
}

// answers is a command that takes a question and writes its answer.
func answers[Q, A any](f func(context.Context, Q) (A, error)) func(context.Context, Streams, string) error {
	return func(ctx context.Context, s Streams, argument string) error {
		var q Q
		if argument != "" {
			if err := json.Unmarshal([]byte(argument), &q); err != nil {
				return fmt.Errorf("question: %w", err)
			}
		}
		a, err := f(ctx, q)
		if err != nil {
			return err
		}
		return json.NewEncoder(s.Out).Encode(a)
	}
}

// until looks again and again until look says that all is well, for as long as within.
func until(ctx context.Context, within time.Duration, look func(context.Context) bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for first := true; (first || ctx.Err() == nil) && !look(context.WithoutCancel(ctx)); first = false {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// wait does nothing until it is told to end.
func wait(ctx context.Context, s Streams, _ string) error {
	fmt.Fprintln(s.Out, "probe", os.Getenv("POD"))
	<-ctx.Done()
	return nil
}

// echo gives back what it gets, complains, and ends with code 3.
func echo(_ context.Context, s Streams, _ string) error {
	if _, err := io.Copy(s.Out, s.In); err != nil {
		return err
	}
	fmt.Fprintln(s.Err, "complained")
	return ExitError(3)
}
