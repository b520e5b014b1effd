package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Packed is a bundle in one file, open for reading it once.
type Packed struct {
	name  string
	f     *os.File
	tar   *tar.Reader
	end   func()
	lock  Lock
	size  int64 // of the file
	read  int64
	moved Moved
}

// OpenPacked reads the lock of a packed bundle, which comes first.
func OpenPacked(name string, moved Moved) (*Packed, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	p := &Packed{name: name, f: f, end: func() {}}
	if err := p.start(); err != nil {
		p.Close()
		return nil, fmt.Errorf("bundle %s: %w", name, err)
	}
	p.moved = moved // from here on
	return p, nil
}

// Lock is what the bundle's own lock says.
func (p *Packed) Lock() Lock { return p.lock }

func (p *Packed) start() error {
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	buffered := bufio.NewReaderSize(&countingReader{r: p.f, report: func(n int64) {
		if p.read += n; p.moved != nil {
			p.moved(filepath.Base(p.name), p.read, p.size)
		}
	}}, 256<<10)
	var r io.Reader = buffered
	if magic, _ := buffered.Peek(4); bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		// A file of somebody else's might ask for any window.
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(2*window), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
		r, p.end = z, z.Close
	}
	p.tar = tar.NewReader(r)
	h, err := p.tar.Next()
	if err != nil || filepath.Clean(h.Name) != lockName || h.Size > maxLock {
		return fmt.Errorf("does not begin with a %s: is it one that `kubewright bundle create` made?", lockName)
	}
	data, err := io.ReadAll(p.tar)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", lockName, err, errDamaged)
	}
	p.lock, err = ParseLock(data)
	return err
}

func (p *Packed) Close() error {
	p.end()
	return p.f.Close()
}

// Verify reads the bundle to its end, and holds every piece to the lock.
func (p *Packed) Verify(ctx context.Context) error {
	return p.each(ctx, func(blob) bool { return false }, func(_ blob, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
}

// Unpack brings what the cache lacks of the bundle there. Nothing is read of the file when all
// is there already.
func (c *Cache) Unpack(ctx context.Context, p *Packed) (*Bundle, error) {
	b := c.Bundle(p.lock, nil)
	unlock, err := c.exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	there := func(x blob) bool { return has(c.dir, x) }
	if !b.Has(p.lock.Artifacts) {
		err = p.each(ctx, there, func(x blob, r io.Reader) error {
			if checkBlob(ctx, c.dir, x, nil) == nil {
				return nil
			}
			_, err := writeBlob(ctx, c.dir, r, x)
			return err
		})
		if errors.Is(err, unix.ENOSPC) {
			var missing int64
			for _, a := range p.lock.Artifacts {
				if !b.Has([]Artifact{a}) {
					missing += a.Size
				}
			}
			err = fmt.Errorf("unpack %s: %w: %w", p.name, noSpace(c.dir, missing, 0), err)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, c.keepLock(digestName(p.lock), p.lock)
}

// Has tells that all blobs of some artifacts are there, by their sizes.
func (b *Bundle) Has(artifacts []Artifact) bool {
	for _, a := range artifacts {
		blobs, err := b.blobs(a)
		if err != nil || slices.ContainsFunc(blobs, func(x blob) bool { return !has(b.dir, x) }) {
			return false
		}
	}
	return true
}

// each reads the bundle to its end. Every blob has to be one that the lock names, itself or through
// a manifest; keep gets it as a reader that fails before the end of bytes that are not what they
// should be. What the lock names and the file lacks is an error, unless it is there already.
func (p *Packed) each(ctx context.Context, there func(blob) bool, keep func(blob, io.Reader) error) error {
	expected := map[string]expectation{}
	for _, a := range p.lock.Artifacts {
		size := a.Size
		if a.Type == Image {
			size = unknown
		}
		expected[a.Digest] = expectation{a, blob{a.Digest, size}, a.Type == Image}
	}
	damaged := func(err error) error { return fmt.Errorf("bundle %s: %w: %w", p.name, err, errDamaged) }
	for {
		h, err := p.tar.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return damaged(err)
		}
		e, ok := expected["sha256:"+strings.TrimPrefix(filepath.Clean(h.Name), blobsDir+"/")]
		if !ok || h.Typeflag != tar.TypeReg {
			return damaged(fmt.Errorf("holds %s, which its lock does not name", h.Name))
		}
		if e.size != unknown && e.size != h.Size || e.manifest && h.Size > maxManifest {
			return damaged(fmt.Errorf("artifact %s: blob %s has %d bytes", e.artifact, e.digest, h.Size))
		}
		e.size = h.Size
		delete(expected, e.digest)
		var r io.Reader = newBlobReader(io.NopCloser(contextReader{ctx, p.tar}), e.blob)
		if e.manifest {
			raw, err := io.ReadAll(r)
			if err != nil {
				return damaged(fmt.Errorf("artifact %s: %w", e.artifact, err))
			}
			if err := expectImage(expected, e.artifact, raw); err != nil {
				return damaged(fmt.Errorf("artifact %s: %w", e.artifact, err))
			}
			r = bytes.NewReader(raw)
		}
		if err := keep(e.blob, r); err != nil {
			if ctx.Err() != nil || isOurs(err) {
				return err
			}
			return damaged(fmt.Errorf("artifact %s: %w", e.artifact, err))
		}
	}
	for _, e := range expected {
		if !there(e.blob) {
			return damaged(fmt.Errorf("artifact %s: blob %s is not in it", e.artifact, e.digest))
		}
	}
	return nil
}

// isOurs tells an error of the place that is written to from one of what is read.
func isOurs(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) || errors.Is(err, unix.ENOSPC)
}

// expectation is a blob that has to come.
type expectation struct {
	artifact Artifact
	blob
	manifest bool
}

// expectImage adds what a manifest names.
func expectImage(expected map[string]expectation, a Artifact, raw []byte) error {
	m, err := parseManifest(raw)
	if err != nil {
		return err
	}
	size := int64(len(raw))
	for _, x := range imageBlobs(m) {
		size += x.size
		expected[x.digest] = expectation{a, x, false}
	}
	if size != a.Size {
		return fmt.Errorf("its manifest names %d bytes, the lock %d", size, a.Size)
	}
	return nil
}
