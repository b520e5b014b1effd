package host

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// Close ends all that runs there in a shell of this Remote, once it notices.
func (r *Remote) Close() error {
	r.mu.Lock()
	idle := r.idle
	r.idle = nil
	r.forgetDials()
	r.mu.Unlock()
	for _, a := range idle {
		a.pipe.Close()
	}
	return r.transport.Close()
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

func (r *Remote) ReadFile(ctx context.Context, path string) ([]byte, error) {
	out, err := r.read(ctx, "open", path, "read", path)
	return out.Stdout, err
}

func (r *Remote) List(ctx context.Context, dir string) ([]string, error) {
	out, err := r.read(ctx, "open", dir, "list", dir)
	if err != nil {
		return nil, err
	}
	names := records(out.Stdout)
	slices.Sort(names)
	return names, nil
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

func (r *Remote) read(ctx context.Context, op, path string, ask ...string) (Output, error) {
	if err := usable(op, path); err != nil {
		return Output{}, err
	}
	q := &request{ask: [][]string{ask}}
	if err := r.do(ctx, quick, q); err != nil {
		return Output{}, err
	}
	if a := q.answers[0]; a.code != 0 {
		return Output{}, &fs.PathError{Op: op, Path: path, Err: words(a.Output)}
	}
	return q.answers[0].Output, nil
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

// most paths of an operation: all are arguments of one process.
const most = 500

// each asks the same of many paths, in one frame, and returns what was printed for those that exist.
func (r *Remote) each(ctx context.Context, l lane, verb string, paths []string) (string, error) {
	q := &request{}
	for chunk := range slices.Chunk(paths, most) {
		for _, path := range chunk {
			if err := usable(verb, path); err != nil {
				return "", err
			}
		}
		q.ask = append(q.ask, append([]string{verb}, chunk...))
	}
	if len(q.ask) == 0 {
		return "", ctx.Err()
	}
	if err := r.do(ctx, l, q); err != nil {
		return "", err
	}
	var printed strings.Builder
	for _, a := range q.answers {
		for line := range strings.Lines(string(a.Stderr)) {
			err := words(Output{Stderr: []byte(line)})
			if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
				return "", err
			}
		}
		if a.code != 0 && len(a.Stderr) == 0 {
			return "", fmt.Errorf("%s: exit code %d", verb, a.code)
		}
		printed.Write(a.Stdout)
	}
	return printed.String(), nil
}

func records(b []byte) []string {
	if len(b) == 0 {
		return []string{}
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

func (r *Remote) Digest(ctx context.Context, paths ...string) (map[string]string, error) {
	printed, err := r.each(ctx, digest, "sum", paths)
	if err != nil {
		return nil, err
	}
	digests := make(map[string]string, len(paths))
	for _, record := range records([]byte(printed)) {
		sum, path, ok := strings.Cut(record, "  ")
		if !ok {
			return nil, fmt.Errorf("sha256sum printed %q", record)
		}
		digests[path] = "sha256:" + sum
	}
	return digests, nil
}

func (r *Remote) Stat(ctx context.Context, paths ...string) (map[string]Info, error) {
	printed, err := r.each(ctx, quick, "stat", paths)
	if err != nil {
		return nil, err
	}
	infos := make(map[string]Info, len(paths))
	printedOf := records([]byte(printed))
	for i := 0; i+1 < len(printedOf); i += 2 {
		fields, path, _ := strings.Cut(printedOf[i], "  ")
		f := strings.Fields(fields)
		if len(f) < 8 {
			return nil, fmt.Errorf("stat printed %q", printedOf[i])
		}
		raw, bad := strconv.ParseUint(f[0], 16, 32)
		size, err := strconv.ParseInt(f[3], 10, 64)
		if bad != nil || err != nil {
			return nil, fmt.Errorf("stat printed %q", printedOf[i])
		}
		info := Info{Mode: fileMode(uint32(raw)), Size: size, Owner: f[1] + ":" + f[2],
			Stamp: strings.Join([]string{f[4], f[5], f[3], strings.Replace(f[6], ".", "", 1), strings.Replace(f[7], ".", "", 1)}, ".")}
		if info.Mode&fs.ModeSymlink != 0 {
			info.Link = strings.TrimPrefix(printedOf[i+1], path+" -> ")
		}
		infos[path] = info
	}
	return infos, nil
}

// fileMode is what the kernel's mode is in Go.
func fileMode(raw uint32) fs.FileMode {
	m := fs.FileMode(raw & 0o777)
	for bit, is := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if raw&bit != 0 {
			m |= is
		}
	}
	return m | map[uint32]fs.FileMode{0o140000: fs.ModeSocket, 0o120000: fs.ModeSymlink, 0o060000: fs.ModeDevice,
		0o040000: fs.ModeDir, 0o020000: fs.ModeDevice | fs.ModeCharDevice, 0o010000: fs.ModeNamedPipe}[raw&0o170000]
}
