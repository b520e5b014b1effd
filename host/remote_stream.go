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
	"strings"
)

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
type stream struct {
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

func (s *stream) add(of int, src Source, h tar.Header) error {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		return err
	}
	s.parts = append(s.parts, part{of, b.Bytes(), src})
	return nil
}

func (s *stream) first() int { return s.parts[0].of }

func padding(size int64) int64 { return (block - size%block) % block }

func (s *stream) length() int64 {
	n := int64(2 * block)
	for _, p := range s.parts {
		n += int64(len(p.header)) + p.source.Size() + padding(p.source.Size())
	}
	return n
}

// write sends the tar and the word that all was right; else it closes to, so that nothing is made
// of what was sent.
func (s *stream) write(ctx context.Context, to io.WriteCloser) {
	w := bufio.NewWriterSize(link{to}, 32<<10)
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

type link struct{ to io.Writer }

func (l link) Write(b []byte) (int, error) {
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
