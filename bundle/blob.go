package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// blob is what a file in blobs/sha256 should be.
type blob struct {
	digest string
	size   int64
}

// blobPath of a digest that has been looked at: of anything else it would be somebody's choice.
func blobPath(dir, digest string) string {
	if !digestForm.MatchString(digest) {
		panic(fmt.Sprintf("%q is no digest", digest))
	}
	return filepath.Join(dir, blobsDir, strings.TrimPrefix(digest, "sha256:"))
}

// openBlob opens a blob whose bytes are checked while they are read. A wrong length is refused at once.
func openBlob(dir string, b blob) (*blobReader, error) {
	f, err := os.Open(blobPath(dir, b.digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s is missing: %w", b.digest, errDamaged)
	} else if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != b.size {
		err = fmt.Errorf("blob %s has %d bytes, should have %d: %w", b.digest, info.Size(), b.size, errDamaged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return newBlobReader(f, b), nil
}

func newBlobReader(r io.ReadCloser, b blob) *blobReader {
	return &blobReader{r: r, want: b, hash: sha256.New()}
}

// blobReader passes on a blob and checks it. It fails instead of returning the last bytes of a bad one: not at
// EOF, because a reader that knows the size (io.CopyN, a tar) never comes that far.
type blobReader struct {
	r    io.ReadCloser
	want blob
	hash hash.Hash
	n    int64
	err  error // stays
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	switch {
	case r.n > r.want.size, err == io.EOF && r.n < r.want.size: // it changed while being read
		err = fmt.Errorf("blob %s does not have %d bytes: %w", r.want.digest, r.want.size, errDamaged)
	case r.n == r.want.size:
		if got := digestOf(r.hash); got != r.want.digest {
			err = fmt.Errorf("blob %s has digest %s: %w", r.want.digest, got, errDamaged)
		}
	}
	if err != nil {
		r.err = err
		if err != io.EOF {
			return 0, err
		}
	}
	return n, err
}

func (r *blobReader) Close() error { return r.r.Close() }

// readBlob returns a small blob (a manifest, a config) whole.
func readBlob(dir string, b blob) ([]byte, error) {
	r, err := openBlob(dir, b)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// digestOf what has been written to a sha256.
func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// checkBlob reads a blob to its end; read, if not nil, hears of every piece.
func checkBlob(ctx context.Context, dir string, b blob, read func(n int)) error {
	r, err := openBlob(dir, b)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if read != nil {
			read(n)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// contextReader ends a long copy when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// sizeOf a blob that is there and whole, as its digest shows.
func sizeOf(ctx context.Context, dir, digest string) (int64, error) {
	info, err := os.Stat(blobPath(dir, digest))
	if err != nil {
		return 0, err
	}
	return info.Size(), checkBlob(ctx, dir, blob{digest, info.Size()}, nil)
}
