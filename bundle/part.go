package bundle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
)

// part is a blob of which some is here.
type part struct {
	f       *os.File
	path    string
	want    blob
	size    int64
	hash    hash.Hash
	resumed bool   // some of it is from an earlier run
	whole   bool   // the server has no more, where nobody knows the size
	total   int64  // as the server says, if nobody else does; less than 1: unknown
	wrong   string // the digest that the last attempt had
}

func openPart(dir string, want blob) (*part, error) {
	path := partialPath(dir, want.digest)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p := &part{f: f, path: path, want: want, hash: sha256.New()}
	if p.size, err = io.Copy(p.hash, f); err != nil {
		f.Close()
		return nil, err
	}
	p.resumed = p.size > 0
	if want.size != unknown && p.size > want.size {
		if err := p.restart(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return p, nil
}

func (p *part) Close() error { return p.f.Close() }

func (p *part) restart() error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	p.size, p.resumed, p.whole = 0, false, false
	p.hash.Reset()
	return err
}

// discard leaves nothing of it.
func (p *part) discard() error { return errors.Join(p.restart(), os.Remove(p.path)) }

// add writes what came. What is too long is wrong, whatever else comes.
func (p *part) add(b []byte) error {
	limit := p.want.size
	if limit == unknown {
		limit = maxBlob
	}
	if p.size+int64(len(b)) > limit {
		if err := p.discard(); err != nil {
			return err
		}
		return finalError{fmt.Errorf("has more than %d bytes, which are what %s should have: %w", limit, p.want.digest, errWrong)}
	}
	n, err := p.f.Write(b)
	p.hash.Write(b[:n])
	p.size += int64(n)
	if errors.Is(err, syscall.ENOSPC) {
		if p.total > p.size {
			err = fmt.Errorf("another %s of this file have to come: %w", mebibytes(p.total-p.size), err)
		}
		return finalError{err}
	}
	return err
}

// errWrong ends every report of downloaded bytes that are not what they should be.
var errWrong = errors.New("the server, or somebody on the way, has changed it: nothing of it was kept; try another mirror, and tell whoever runs this one")

// errMismatch is a digest that is not the right one, yet.
var errMismatch = errors.New("the digest is wrong")

// check compares the digest of a part that is whole. One with bytes of an earlier run is begun anew, once; of one
// whose size nobody knows, more is asked for.
func (p *part) check() error {
	got := digestOf(p.hash)
	if got == p.want.digest {
		return nil
	}
	err := fmt.Errorf("%d bytes have digest %s, should have %s: %w", p.size, got, p.want.digest, errMismatch)
	again := p.wrong == got // the same bytes twice are what the server has
	p.wrong = got
	switch {
	case p.resumed:
		return errors.Join(p.restart(), err)
	case p.want.size == unknown && !p.whole && !again:
		return err
	}
	return finalError{fmt.Errorf("%w: %w", err, errWrong)}
}
