package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

type input struct {
	*link
	ctx context.Context // of the program: it ends all
	w   ssh.Channel
}

func (i *input) Write(b []byte) (int, error) {
	n, err := i.w.Write(b)
	return n, i.ended(i.ctx, err)
}

func (i *input) Close() error {
	if err := i.w.CloseWrite(); err != nil && !errors.Is(err, io.EOF) {
		return i.ended(i.ctx, err)
	}
	return nil
}

// output is the program's. What a login shell prints before (a greeting in .bashrc) is left out:
// the program's output begins after a line with the word.
type output struct {
	*link
	ctx   context.Context
	r     io.Reader
	word  string
	way   int
	errs  *stderr
	seen  bool
	early []byte // read until the word has come, then what came with it
	err   error
}

func (o *output) Read(b []byte) (int, error) {
	if err := o.await(o.ctx); err != nil {
		return 0, err
	}
	if len(o.early) > 0 {
		n := copy(b, o.early)
		o.early = o.early[n:]
		return n, nil
	}
	n, err := o.r.Read(b)
	return n, o.ended(o.ctx, err)
}

// await reads until the program has started. The end of ctx closes the channel, by whoever made it.
func (o *output) await(ctx context.Context) error {
	b := make([]byte, 4<<10)
	for !o.seen && o.err == nil {
		n, err := o.r.Read(b)
		o.early = append(o.early, b[:n]...)
		if i := bytes.Index(o.early, []byte(o.word+"\n")); i >= 0 {
			o.early, o.seen = o.early[i+len(o.word)+1:], true
		} else if len(o.early) > 1<<20 {
			o.err = fmt.Errorf("%s: its login shell prints without an end: %q", o.endpoint, o.early[:80])
		} else if err != nil {
			o.err = o.ended(ctx, o.refusal())
		}
	}
	return o.err
}

// refusal says why the program did not start.
func (o *output) refusal() error {
	text := strings.TrimSpace(strings.ReplaceAll(o.errs.finish(), o.word, ""))
	if text == "" {
		text = strings.TrimSpace(string(o.early)) // "This account is currently not available."
	}
	if o.way == isRoot {
		return fmt.Errorf("%s: sh did not start there: %s", o.endpoint, text)
	}
	return &sudoError{where: o.endpoint, text: text, password: o.way == sudoPassword}
}

// stderr is what sudo says, then the program's. A goroutine reads it from the start, so that both
// streams can be watched while sudo makes up its mind.
type stderr struct {
	*link
	ctx context.Context
	r   io.Reader

	mu      sync.Mutex
	moved   *sync.Cond
	buf     []byte
	err     error // the end
	discard bool

	word   string
	times  int
	listen func()
}

const stderrHeld = 1 << 20

func newStderr(l *link, ctx context.Context, r io.Reader) *stderr {
	e := &stderr{link: l, ctx: ctx, r: r}
	e.moved = sync.NewCond(&e.mu)
	go e.pump()
	return e
}

func (e *stderr) pump() {
	b := make([]byte, 16<<10)
	for {
		n, err := e.r.Read(b)
		e.mu.Lock()
		e.buf = append(e.buf, b[:n]...)
		if e.listen != nil && bytes.Count(e.buf, []byte(e.word)) >= e.times {
			go e.listen()
			e.listen = nil
		}
		if err != nil {
			e.err = e.ended(e.ctx, err)
		}
		e.moved.Broadcast()
		for len(e.buf) > stderrHeld && !e.discard && e.err == nil {
			e.moved.Wait()
		}
		over := e.err != nil
		e.mu.Unlock()
		if over {
			return
		}
	}
}

func (e *stderr) Read(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.buf) == 0 && e.err == nil {
		e.moved.Wait()
	}
	if len(e.buf) == 0 {
		return 0, e.err
	}
	n := copy(b, e.buf)
	e.buf = e.buf[n:]
	e.moved.Broadcast()
	return n, nil
}

// watch calls f when a word has come so many times.
func (e *stderr) watch(word string, times int, f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.word, e.times, e.listen = word, times, f
}

// forget drops what sudo said.
func (e *stderr) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf, e.listen = nil, nil
}

// finish waits for the end, and returns what has not been read.
func (e *stderr) finish() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.discard = true
	e.moved.Broadcast()
	for e.err == nil {
		e.moved.Wait()
	}
	return string(e.buf[:min(len(e.buf), maxOutput)])
}

// abandon lets the pump end though nobody reads.
func (e *stderr) abandon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.discard = true
	e.moved.Broadcast()
}
