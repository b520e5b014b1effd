package host

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Remote is a machine behind a [Transport]: a shell there does what it is asked (agent.sh). What
// is asked at the same time goes together, so that many who ask wait for few round trips.
type Remote struct {
	transport Transport
	shell     string // "sh"
	run       string // unlike any other
	trips     atomic.Int64
	commands  atomic.Int64

	mu      sync.Mutex
	idle    []*agent
	queue   [len(shells)][]*request
	serving [len(shells)]int
	ahead   ahead
}

// NewRemote connects nothing yet.
func NewRemote(t Transport) *Remote {
	return &Remote{transport: t, shell: "sh", run: fmt.Sprintf("%d-%d-%s", os.Getpid(), time.Now().UnixNano(), rand.Text())}
}

// RoundTrips is how many times somebody has waited for the machine: once for each frame of
// requests, however many there are in it. Those of the transport, and signs of life, do not count.
func (r *Remote) RoundTrips() int64 { return r.trips.Load() }

// Rest ends the shells that have nothing to do, and forgets what was asked ahead: for a machine of
// many that little will be asked from now on. Whoever asks starts a new one.
func (r *Remote) Rest() {
	r.mu.Lock()
	idle := r.idle
	r.idle = nil
	r.forgetDials()
	r.ahead = ahead{}
	r.mu.Unlock()
	for _, a := range idle {
		a.pipe.Close()
	}
}

// Close ends all that runs there in a shell of this Remote, once it notices.
func (r *Remote) Close() error {
	r.Rest()
	return r.transport.Close()
}

// Start starts a shell program of its own, for who talks with it. It ends with this run: if it listens
// to its input at the latest when that ends, else when somebody takes the machine over. The end of ctx
// closes the Pipe.
func (r *Remote) Start(ctx context.Context, text string) (*Pipe, error) {
	r.trips.Add(1)
	return r.transport.Shell(ctx, program(r.shell, r.run, text))
}

func (r *Remote) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if conn := r.dialled(ctx, network, addr); conn != nil {
		return conn, nil
	}
	return r.transport.Dial(ctx, network, addr)
}

// Run passes standard input from memory: it is read before the command starts, and meant for
// secrets and rules, not for artifacts.
func (r *Remote) Run(ctx context.Context, c Command) (Output, error) {
	id := fmt.Sprintf("%s-%d", r.run, r.commands.Add(1))
	q := &request{}
	length := ""
	if c.Stdin != nil {
		var err error
		if q.payload, err = io.ReadAll(c.Stdin); err != nil {
			return Output{}, fmt.Errorf("%s: %w", c.Argv[0], err)
		}
		length = strconv.Itoa(len(q.payload))
	}
	for _, word := range c.Argv {
		if strings.ContainsRune(word, 0) {
			return Output{}, fmt.Errorf("%s: %w", c.Argv[0], syscall.EINVAL)
		}
	}
	l, verb := change, "run"
	if c.Reads {
		l, verb = query, "query"
	}
	q.ask = [][]string{append([]string{verb, id, length}, c.Argv...)}
	if err := r.do(ctx, l, q); err != nil {
		if ctx.Err() != nil {
			r.kill(ctx, q, id, c.Reads)
		}
		return Output{}, fmt.Errorf("%s: %w", c.Argv[0], err)
	}
	a := q.answers[0]
	switch {
	case a.code == 127 && bytes.HasPrefix(a.Stderr, []byte("env: ")):
		return a.Output, fmt.Errorf("%s: %w", c.Argv[0], &exec.Error{Name: c.Argv[0], Err: exec.ErrNotFound})
	case a.code != 0:
		return a.Output, newExitError(c.Argv, a.code, a.Output)
	}
	return a.Output, nil
}

// kill ends a command with all that it has started, and waits for that; a command that only reads
// is killed if it runs yet. One that is still on its way there starts later than the first look.
func (r *Remote) kill(ctx context.Context, q *request, id string, once bool) {
	if q.dropped {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for {
		end := &request{ask: [][]string{{"end", "KUBEWRIGHT_REQUEST=" + id}}}
		if r.do(ctx, quick, end) != nil || once {
			return
		}
		select {
		case <-q.done:
			return
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *Remote) Append(ctx context.Context, path string, b []byte) error {
	if err := usable("open", path); err != nil {
		return err
	}
	q := &request{ask: [][]string{{"append", path, strconv.Itoa(len(b))}}, payload: b}
	if err := r.do(ctx, quick, q); err != nil {
		return err
	}
	if a := q.answers[0]; a.code != 0 {
		return &fs.PathError{Op: "append", Path: path, Err: words(a.Output)}
	}
	return nil
}

// usable tells whether a path can be one: a shell's words hold no NUL, and relative to what?
func usable(op, path string) error {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return &fs.PathError{Op: op, Path: path, Err: syscall.EINVAL}
	}
	return nil
}

// errnos by the words of the C library.
var errnos = map[string]error{
	"No such file or directory": syscall.ENOENT,
	"Not a directory":           syscall.ENOTDIR,
	"Is a directory":            syscall.EISDIR,
	"Directory not empty":       syscall.ENOTEMPTY,
	"Permission denied":         syscall.EACCES,
	"Operation not permitted":   syscall.EPERM,
	"Read-only file system":     syscall.EROFS,
	"No space left on device":   syscall.ENOSPC,
	"Disk quota exceeded":       syscall.EDQUOT,
	"Invalid argument":          syscall.EINVAL,
}

// quoted is an error in the machine's own words.
type quoted struct {
	words string
	err   error
}

func (q *quoted) Error() string { return q.words }
func (q *quoted) Unwrap() error { return q.err }

// words is what a tool of the machine says went wrong.
func words(out Output) error {
	text := strings.TrimSpace(string(out.Stderr))
	text = cmp.Or(text, strings.TrimSpace(string(out.Stdout)), "failed, and did not say why")
	if len(text) > maxOutput {
		text = text[len(text)-maxOutput:]
	}
	q := &quoted{words: text}
	for name, errno := range errnos {
		if strings.HasSuffix(text, ": "+name) {
			q.err = errno
		}
	}
	return q
}
