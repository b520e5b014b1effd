package host

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// WriteFiles asks twice what is there, and sends all that differs in one stream; nothing gets its
// name before all of it is there. Files of which one lies in what another one makes are sent one
// after the other.
func (r *Remote) WriteFiles(ctx context.Context, files ...File) ([]Change, error) {
	var changes []Change
	for len(files) > 0 {
		n := apart(files)
		done, err := r.writeAll(ctx, files[:n])
		changes = append(changes, done...)
		if err != nil {
			return changes, err
		}
		files = files[n:]
	}
	return changes, ctx.Err()
}

// apart is how many of the first files can be compared before any of them is written.
func apart(files []File) int {
	before := map[string]File{}
	for i, f := range files {
		if i == most {
			return i
		}
		if _, again := before[f.Path]; again {
			return i
		}
		for dir := path.Dir(f.Path); dir != "/" && dir != "."; dir = path.Dir(dir) {
			if above, ok := before[dir]; ok && !above.Dir {
				return i
			}
		}
		before[f.Path] = f
	}
	return len(files)
}

func (r *Remote) writeAll(ctx context.Context, files []File) ([]Change, error) {
	actions, err := Compare(ctx, r, files...)
	if err != nil {
		return nil, err
	}
	var differ []File
	var changes []Change
	for i, f := range files {
		if actions[i] == "" {
			continue
		}
		differ = append(differ, f)
		changes = append(changes, Change{Path: f.Path, Action: actions[i]})
	}
	if len(differ) == 0 {
		return nil, nil
	}
	for {
		n, at, err := r.put(ctx, differ, changes)
		if at < 0 || at == 0 || ctx.Err() != nil {
			return clip(changes, n), err
		}
		// A source was wrong, and nothing was written: those before it are right.
		fault := err
		if n, _, err = r.put(ctx, differ[:at], changes[:at]); err != nil {
			return clip(changes, n), err
		}
		return clip(changes, n), fault
	}
}

func clip(changes []Change, n int) []Change {
	if n == 0 {
		return nil
	}
	return changes[:n]
}

// put makes files so, and tells how many it has made; wrong is the index of one whose source did
// not hold what it says, else -1.
func (r *Remote) put(ctx context.Context, files []File, changes []Change) (made, wrong int, err error) {
	s := tarStream{wrong: -1}
	apply := []string{"apply"}
	var sums strings.Builder
	var temporaries []string
	for i, f := range files {
		fail := func(err error) (int, int, error) { return 0, i, fmt.Errorf("write %s: %w", f.Path, err) }
		if strings.ContainsRune(f.Link, 0) {
			return fail(syscall.EINVAL)
		}
		uid, gid := 0, 0
		if f.Owner != "" {
			if uid, gid, err = owner(f.Owner); err != nil {
				return fail(err)
			}
		}
		mode := fmt.Sprintf("%04o", f.Perm())
		switch {
		case changes[i].Action == "delete":
			apply = append(apply, "delete", f.Path, "", "")
		case changes[i].Action == "mode":
			apply = append(apply, "mode", f.Path, mode, f.Owner)
		case f.Dir:
			apply = append(apply, "dir", f.Path, mode, f.Owner)
		case f.Link != "":
			apply = append(apply, "link", f.Path, Temporary(f.Path), f.Link)
		default:
			temporary := Temporary(f.Path)
			temporaries = append(temporaries, temporary)
			apply = append(apply, "place", f.Path, temporary, "")
			fmt.Fprintln(&sums, checkLine(f.Content.Digest(), temporary))
			if err := s.add(i, f.Content, tar.Header{Typeflag: tar.TypeReg, Name: temporary, Mode: int64(f.Perm()), Uid: uid, Gid: gid, Size: f.Content.Size()}); err != nil {
				return fail(err)
			}
		}
	}
	q := &request{}
	if len(temporaries) > 0 {
		q.ask = [][]string{append([]string{"receive", strconv.FormatInt(s.length(), 10), strings.TrimSuffix(sums.String(), "\n")}, temporaries...)}
		q.stream = func(to io.WriteCloser) { s.write(ctx, to) }
	}
	q.ask = append(q.ask, apply)
	err = r.do(ctx, change, q)
	if ctx.Err() != nil && !q.dropped {
		select { // the end of the stream ends it there
		case <-q.done:
		case <-time.After(10 * time.Second):
			return 0, -1, err
		}
	}
	if q.dropped {
		return 0, -1, err
	}
	if len(temporaries) > 0 && (len(q.answers) == 0 || q.answers[0].code != 0) {
		switch {
		case ctx.Err() != nil:
			return 0, -1, ctx.Err()
		case s.fault != nil:
			return 0, s.wrong, fmt.Errorf("write %s: %w", files[s.wrong].Path, s.fault)
		case len(q.answers) == 0:
			return 0, -1, fmt.Errorf("write %s: %w", files[s.first()].Path, q.err)
		}
		f := files[s.first()]
		failure := words(q.answers[0].Output)
		for _, part := range s.parts {
			if strings.Contains(failure.Error(), Temporary(files[part.of].Path)) {
				f = files[part.of]
				break
			}
		}
		return 0, -1, fmt.Errorf("write %s: %w", f.Path, roomy(spacious(failure), f))
	}
	if len(q.answers) < len(q.ask) {
		return 0, -1, fmt.Errorf("write %s: %w", files[0].Path, q.err)
	}
	answer := q.answers[len(q.answers)-1]
	if made = len(answer.Stdout); made < len(files) {
		return made, -1, fmt.Errorf("write %s: %w", files[made].Path, words(Output{Stderr: answer.Stderr}))
	}
	return made, -1, ctx.Err()
}

// spacious finds the full disk in what tar and others say.
func spacious(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "Disk quota exceeded"):
		return syscall.EDQUOT
	case strings.Contains(text, "No space left on device"), strings.Contains(text, "Wrote only"): // the latter is tar's, of a write that came half way
		return syscall.ENOSPC
	}
	return err
}

// checkLine is a line of what sha256sum checks.
func checkLine(digest, path string) string {
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(path)
	line := strings.TrimPrefix(digest, "sha256:") + "  " + escaped
	if escaped != path {
		line = `\` + line
	}
	return line
}

// stream is a tar whose length is known before any source is opened.
type tarStream struct {
	parts []part

	// After write: the source that did not hold what it says.
	wrong int
	fault error
}

type part struct {
	of     int // index of the file
	header []byte
	source Source
}

const block = 512 // of a tar

func (s *tarStream) add(of int, src Source, h tar.Header) error {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		return err
	}
	s.parts = append(s.parts, part{of, b.Bytes(), src})
	return nil
}

func (s *tarStream) first() int { return s.parts[0].of }

func padding(size int64) int64 { return (block - size%block) % block }

func (s *tarStream) length() int64 {
	n := int64(2 * block)
	for _, p := range s.parts {
		n += int64(len(p.header)) + p.source.Size() + padding(p.source.Size())
	}
	return n
}

// write sends the tar and the word that all was right; else it closes to, so that nothing is made
// of what was sent.
func (s *tarStream) write(ctx context.Context, to io.WriteCloser) {
	w := bufio.NewWriterSize(farEnd{to}, 32<<10)
	for _, p := range s.parts {
		err := p.write(ctx, w)
		if err == nil {
			continue
		}
		if _, theirs := errors.AsType[*linkError](err); !theirs && ctx.Err() == nil {
			s.wrong, s.fault = p.of, err
		}
		to.Close()
		return
	}
	w.Write(append(make([]byte, 2*block), "ok\n"...))
	w.Flush() // if it fails, so does the answer
}

// linkError is one of writing to the machine; the answer says more.
type linkError struct{ error }

type farEnd struct{ to io.Writer }

func (l farEnd) Write(b []byte) (int, error) {
	n, err := l.to.Write(b)
	if err != nil {
		return n, &linkError{err}
	}
	return n, nil
}

type cancelled struct {
	ctx context.Context
	io.Reader
}

func (c cancelled) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(b)
}

func (p part) write(ctx context.Context, to io.Writer) error {
	src, err := p.source.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := to.Write(p.header); err != nil {
		return err
	}
	sum := sha256.New()
	size := p.source.Size()
	from := io.TeeReader(cancelled{ctx, src}, sum)
	n, err := io.Copy(to, io.LimitReader(from, size))
	if err != nil {
		return err
	}
	more, err := io.Copy(io.Discard, from)
	if err != nil {
		return err
	}
	if n += more; n != size {
		return fmt.Errorf("%d bytes instead of %d: the source was cut short", n, size)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != p.source.Digest() {
		return fmt.Errorf("the source holds %s instead of %s", got, p.source.Digest())
	}
	_, err = to.Write(make([]byte, padding(size)))
	return err
}
