package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/kubewright/kubewright/host"
)

// A bundle in one file is a tar, or one compressed with zstd: the lock, then the manifests of
// images, then everything else. So whoever reads it knows of each piece beforehand what it has
// to be, and holds none of it in memory.

// maxLock is more than any lock has.
const maxLock = 2 << 20

// window bounds the memory of whoever reads a packed bundle; layers are compressed already, and
// binaries gain little from more.
const window = 4 << 20

// Pack writes some artifacts of the bundle, with a lock of just these, to a folder, or to a
// file whose name ends in .tar or .tar.zst. A file is there as a whole or not at all; a folder
// keeps what it has already and gets its lock last.
func (b *Bundle) Pack(ctx context.Context, artifacts []Artifact, to string, moved Moved) error {
	l := b.lock
	l.Artifacts = artifacts
	pieces, err := b.pieces(artifacts)
	if err != nil {
		return err
	}
	var total, done int64
	for _, p := range pieces {
		total += p.size
	}
	counted := func(n int64) {
		done += n
		if moved != nil {
			moved(filepath.Base(to), done, total)
		}
	}
	write := b.packFolder
	if strings.HasSuffix(to, ".tar") || strings.HasSuffix(to, ".tar.zst") {
		write = b.packFile
	}
	if err := write(ctx, l, pieces, to, counted); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%s takes %s in all, of which %s are written: make room, or name another place: %w", to, mebibytes(total), mebibytes(done), err)
		}
		return fmt.Errorf("pack bundle: %w", err)
	}
	return nil
}

// pieces are the distinct blobs of artifacts: manifests first, the rest in the order of their digests.
func (b *Bundle) pieces(artifacts []Artifact) ([]blob, error) {
	var first, rest []blob
	for _, a := range artifacts {
		blobs, err := b.blobs(a)
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", a, err)
		}
		for _, x := range blobs {
			if a.Type == Image && x.digest == a.Digest {
				first = append(first, x)
			} else {
				rest = append(rest, x)
			}
		}
	}
	byDigest := func(x, y blob) int { return strings.Compare(x.digest, y.digest) }
	slices.SortFunc(first, byDigest)
	slices.SortFunc(rest, byDigest)
	return append(slices.Compact(first), slices.Compact(rest)...), nil
}

func (b *Bundle) packFolder(ctx context.Context, l Lock, pieces []blob, to string, moved func(int64)) error {
	w, err := Create(to, l.Origin)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if checkBlob(ctx, to, p, nil) == nil {
			moved(p.size)
			continue
		}
		r, err := openBlob(b.dir, p)
		if err != nil {
			return err
		}
		_, err = writeBlob(ctx, to, &countingReader{r: r, report: moved}, p)
		r.Close()
		if err != nil {
			return err
		}
	}
	for _, a := range l.Artifacts {
		w.add(a)
	}
	return w.Close()
}

func (b *Bundle) packFile(ctx context.Context, l Lock, pieces []blob, to string, moved func(int64)) (err error) {
	// The same name each time, so that a run that was killed leaves nothing that the next does not take over.
	f, err := os.OpenFile(host.Temporary(to), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another run writes %s: %w", to, err)
	}
	if !isAt(f, f.Name()) { // the other run has just finished with this very file
		return fmt.Errorf("another run has just written %s: try again", to)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := f.Truncate(0); err != nil {
		return err
	}
	var out io.WriteCloser = nopCloser{f}
	if strings.HasSuffix(to, ".zst") {
		out, err = zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
		if err != nil {
			return err
		}
	}
	t := tar.NewWriter(out)
	lock := l.Bytes()
	if err := tarFile(ctx, t, lockName, int64(len(lock)), bytes.NewReader(lock)); err != nil {
		return err
	}
	for _, p := range pieces {
		r, err := openBlob(b.dir, p)
		if err != nil {
			return err
		}
		err = tarFile(ctx, t, blobsDir+"/"+strings.TrimPrefix(p.digest, "sha256:"), p.size, &countingReader{r: r, report: moved})
		r.Close()
		if err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), to)
}

// isAt tells that a path still leads to an open file.
func isAt(f *os.File, path string) bool {
	have, err := f.Stat()
	there, err2 := os.Lstat(path)
	return err == nil && err2 == nil && os.SameFile(have, there)
}

// tarFile adds a file without anything that would differ from one packing to the next.
func tarFile(ctx context.Context, t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(t, contextReader{ctx, r})
	return err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
