package ssh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A channel that was closed on this side still blocks its readers and writers until the server has
// closed it, too, and OpenSSH does not as long as the program runs. So a shell's streams have a
// goroutine each, which ends when the server agrees or the connection ends; whoever waits here goes at once.

// maxQuoted bounds what an error quotes.
const maxQuoted = 2 << 10

// stream is what comes from a shell, or from sudo before.
type stream struct {
	*link
	ctx  context.Context // of the shell
	hold int             // bytes that are read ahead

	mu    sync.Mutex
	moved sync.Cond
	buf   bytes.Buffer
	err   error // what comes after buf

	word  string // heard when it has come for the second time
	heard func()
}

func newStream(l *link, ctx context.Context, r io.Reader, hold int) *stream {
	s := &stream{link: l, ctx: ctx, hold: hold}
	s.moved.L = &s.mu
	go func() {
		b := make([]byte, 4<<10)
		for {
			n, err := r.Read(b)
			if !s.add(b[:n], err) {
				return
			}
		}
	}()
	return s
}

func (s *stream) add(b []byte, err error) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.buf.Write(b)
	if s.heard != nil && bytes.Count(s.buf.Bytes(), []byte(s.word)) > 1 {
		go s.heard()
		s.heard = nil
	}
	s.err = s.ended(s.ctx, err)
	s.moved.Broadcast()
	for s.buf.Len() > s.hold && s.err == nil {
		s.moved.Wait()
	}
	return s.err == nil
}

func (s *stream) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.buf.Len() == 0 && s.err == nil {
		s.moved.Wait()
	}
	if s.buf.Len() == 0 {
		return 0, s.err
	}
	n, _ := s.buf.Read(b)
	if s.buf.Len() == 0 && s.buf.Cap() > 4<<10 { // the next answer is likely to be shorter
		s.buf = bytes.Buffer{}
	}
	s.moved.Broadcast()
	return n, nil
}

// stop ends it for who reads here.
func (s *stream) stop(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.ended(s.ctx, err)
	}
	s.moved.Broadcast()
}

// listen calls f when a word comes for the second time.
func (s *stream) listen(word string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.word, s.heard = word, f
}

// after waits for a text, drops it and what came before, and ends what listen has begun.
func (s *stream) after(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved.Broadcast()
	for {
		if i := bytes.Index(s.buf.Bytes(), []byte(text)); i >= 0 {
			s.word, s.heard = "", nil
			s.buf.Next(i + len(text))
			return nil
		}
		if s.err != nil {
			return s.err
		}
		s.moved.Wait()
	}
}

// rest waits for the end, and returns the beginning of what nobody has read.
func (s *stream) rest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && s.buf.Len() < s.hold {
		s.moved.Wait()
	}
	b := s.buf.Bytes()
	return string(b[:min(len(b), maxQuoted)])
}

// ended is what a reader or writer of a shell returns instead of err: why there is no connection,
// or why it was not wanted any more.
func (l *link) ended(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case l.cause() != nil:
		return l.cause()
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", l.endpoint, context.Cause(ctx))
	}
	return err
}

// output is the program's. What a login shell prints before (a greeting in .bashrc) is left out:
// the program's output begins after a line with the word.
type output struct {
	*stream
	word  string
	way   int
	errs  *stream
	input ssh.Channel
	seen  bool
	early []byte // until the word has come; then what came with it
	err   error
}

func (o *output) Read(b []byte) (int, error) {
	if err := o.await(); err != nil {
		return 0, err
	}
	if len(o.early) > 0 {
		n := copy(b, o.early)
		o.early = o.early[n:]
		return n, nil
	}
	return o.stream.Read(b)
}

// await reads until the program has started.
func (o *output) await() error {
	b := make([]byte, 4<<10)
	for !o.seen && o.err == nil {
		n, err := o.stream.Read(b)
		o.early = append(o.early, b[:n]...)
		if i := bytes.Index(o.early, []byte(o.word+"\n")); i >= 0 {
			o.early, o.seen = o.early[i+len(o.word)+1:], true
		} else if len(o.early) > 1<<20 {
			o.err = fmt.Errorf("%s: its login shell prints without an end: %q", o.endpoint, o.early[:80])
		} else if err == io.EOF {
			o.err = o.refusal()
		} else if err != nil {
			o.err = err
		}
	}
	return o.err
}

// refusal says why the program did not start.
func (o *output) refusal() error {
	text := strings.TrimSpace(strings.ReplaceAll(o.errs.rest(), o.word, ""))
	if text == "" {
		text = strings.TrimSpace(string(o.early)) // "This account is currently not available."
	}
	if o.way == isRoot {
		return fmt.Errorf("%s: sh did not start there: %s", o.endpoint, text)
	}
	return &sudoError{where: o.endpoint, text: text, password: o.way == sudoPassword}
}

// input is the program's.
type input struct {
	*link
	ctx     context.Context
	channel ssh.Channel
	once    sync.Once
	ask     chan []byte
	done    chan error
	stopped chan struct{}
}

func newInput(l *link, ctx context.Context, channel ssh.Channel) *input {
	i := &input{link: l, ctx: ctx, channel: channel, ask: make(chan []byte), done: make(chan error, 1), stopped: make(chan struct{})}
	go func() {
		for {
			select {
			case b := <-i.ask:
				_, err := channel.Write(b)
				i.done <- err
			case <-i.stopped:
				return
			}
		}
	}()
	return i
}

// Write is for one goroutine at a time.
func (i *input) Write(b []byte) (n int, err error) {
	for part := range slices.Chunk(b, 16<<10) { // the library keeps buffers as large as the largest for each connection
		part = bytes.Clone(part) // the caller may use its own again, though this one hangs
		select {
		case i.ask <- part:
		case <-i.stopped:
			return n, i.ended(i.ctx, io.ErrClosedPipe)
		}
		select {
		case err = <-i.done:
		case <-i.stopped:
			err = io.ErrClosedPipe
		}
		if err != nil {
			return n, i.ended(i.ctx, err)
		}
		n += len(part)
	}
	return n, nil
}

func (i *input) stop() { i.once.Do(func() { close(i.stopped) }) }

// Close is the end of the program's input.
func (i *input) Close() error {
	if err := i.channel.CloseWrite(); err != nil && err != io.EOF {
		return i.ended(i.ctx, err)
	}
	return nil
}
