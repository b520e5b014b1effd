package bundle

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// bring downloads a blob and gives it its name.
func (r *Remote) bring(ctx context.Context, dir string, want blob, from []location, moved func(done, total int64)) error {
	if len(from) == 0 {
		return fmt.Errorf("%s is not in the cache, and nothing says where it can be had: pass --bundle", want.digest)
	}
	if _, err := r.download(ctx, dir, want, from, moved); err != nil {
		return err
	}
	return os.Rename(partialPath(dir, want.digest), blobPath(dir, want.digest))
}

// members downloads an archive and stores those of its files that are wanted, by their paths: as what they have
// to be, where that is known.
func (r *Remote) members(ctx context.Context, dir, url, digest string, wanted map[string]blob, moved func(done, total int64)) (map[string]blob, error) {
	from, err := r.fileLocations(digest, url)
	if err != nil {
		return nil, err
	}
	file, err := r.download(ctx, dir, blob{digest, unknown}, from, moved)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(url), err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found := map[string]blob{}
	z, err := gzip.NewReader(contextReader{ctx, f})
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", url, err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			// The archive has served: its files have digests of their own now.
			return found, os.Remove(file)
		} else if err != nil {
			return nil, fmt.Errorf("archive %s: %w", url, err)
		}
		m := path.Clean(strings.TrimPrefix(h.Name, "/"))
		want, ok := wanted[m]
		if h.Typeflag != tar.TypeReg || !ok {
			continue
		}
		if want != (blob{}) && h.Size != want.size {
			return nil, fmt.Errorf("%s of archive %s has %d bytes, should have %d: %w", m, url, h.Size, want.size, errWrong)
		}
		if found[m], err = writeBlob(ctx, dir, t, want); err != nil {
			return nil, fmt.Errorf("%s of archive %s: %w", m, url, err)
		}
	}
}

func partialPath(dir, digest string) string {
	return filepath.Join(dir, blobsDir, partialPrefix+filepath.Base(blobPath(dir, digest)))
}
