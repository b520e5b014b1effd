package lab

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one file of a layer: a copy of a file of this machine, or a link.
type entry struct {
	path string // in the image, without leading slash
	from string // the file, folder or link to copy
	link string // instead of from: the target of a symbolic link
}

// layer is an uncompressed tar on disk: hosts import it as fast as they can write, which counts for more here than
// its size. go-containerregistry's own layers from files are compressed.
type layer struct {
	path string
	hash v1.Hash
	size int64
}

func (l layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l layer) Size() (int64, error)                 { return l.size, nil }
func (l layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
func (l layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }

// writeLayer writes the entries, and the folders above them, as a layer. The same files always make the same layer:
// sorted, without times.
func writeLayer(file string, entries []entry) (layer, error) {
	f, err := os.Create(file)
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	hash := sha256.New()
	if err := writeTar(io.MultiWriter(f, hash), entries); err != nil {
		return layer{}, fmt.Errorf("write layer: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return layer{}, err
	}
	return layer{file, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}, info.Size()}, f.Close()
}

func writeTar(w io.Writer, entries []entry) error {
	t := tar.NewWriter(w)
	seen := map[string]bool{".": true}
	for _, e := range slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return strings.Compare(a.path, b.path) }) {
		if err := writeParents(t, path.Dir(e.path), seen); err != nil {
			return err
		}
		if seen[e.path] {
			continue
		}
		seen[e.path] = true
		if err := writeEntry(t, e); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return t.Close()
}

func writeParents(t *tar.Writer, dir string, seen map[string]bool) error {
	if seen[dir] {
		return nil
	}
	seen[dir] = true
	if err := writeParents(t, path.Dir(dir), seen); err != nil {
		return err
	}
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

func writeEntry(t *tar.Writer, e entry) error {
	if e.link != "" {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: e.path, Linkname: e.link, Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	info, err := os.Lstat(e.from)
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if target, err = os.Readlink(e.from); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header := tar.Header{Typeflag: h.Typeflag, Name: e.path, Linkname: target, Mode: h.Mode, Size: h.Size, ModTime: time.Unix(0, 0)}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		header.Uid, header.Gid = int(s.Uid), int(s.Gid)
	}
	if info.IsDir() {
		header.Name += "/"
	}
	if err := t.WriteHeader(&header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(filepath.Clean(e.from))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}
