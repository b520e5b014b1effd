package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubewright/kubewright/host"
)

// packedBundle is newBundle in one file.
func packedBundle(t *testing.T, name string) (file string, b *Bundle) {
	t.Helper()
	dir, _, _ := newBundle(t)
	b = open(t, dir)
	file = filepath.Join(t.TempDir(), name)
	if err := b.Pack(context.Background(), b.Lock().Artifacts, file, nil); err != nil {
		t.Fatal(err)
	}
	return file, b
}

func openPackedTest(t *testing.T, file string) *Packed {
	t.Helper()
	p, err := OpenPacked(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPackedBundleIsTheSameBundle(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"b.tar", "b.tar.zst"} {
		file, b := packedBundle(t, name)
		if err := openPackedTest(t, file).Verify(ctx); err != nil {
			t.Fatal(err)
		}
		c := newCache(t)
		got, err := c.Unpack(ctx, openPackedTest(t, file))
		if err != nil {
			t.Fatal(err)
		}
		if got.Lock().Digest() != b.Lock().Digest() {
			t.Error("another lock")
		}
		if err := got.Verify(ctx, got.Lock().Artifacts, nil); err != nil {
			t.Error(err)
		}
		// Packed again, from the cache: not a byte differs.
		again := filepath.Join(t.TempDir(), name)
		if err := got.Pack(ctx, got.Lock().Artifacts, again, nil); err != nil {
			t.Fatal(err)
		}
		if x, y := contentOf(t, file), contentOf(t, again); !bytes.Equal(x, y) {
			t.Errorf("%s is not the same when packed again", name)
		}
		// A part of it, as a folder.
		folder := filepath.Join(t.TempDir(), "folder")
		kubelet, _ := got.Find("kubelet", amd64)
		if err := got.Pack(ctx, []Artifact{kubelet}, folder, nil); err != nil {
			t.Fatal(err)
		}
		if part := open(t, folder); len(part.Lock().Artifacts) != 1 || len(files(t, filepath.Join(folder, blobsDir))) != 1 {
			t.Error("the part holds more than was asked for")
		} else if err := part.Verify(ctx, part.Lock().Artifacts, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestUnpackReadsNothingThatIsThere(t *testing.T) {
	ctx := context.Background()
	file, _ := packedBundle(t, "b.tar")
	c := newCache(t)
	if _, err := c.Unpack(ctx, openPackedTest(t, file)); err != nil {
		t.Fatal(err)
	}
	var read int64
	p, err := OpenPacked(file, func(_ string, done, _ int64) { read = done })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := c.Unpack(ctx, p); err != nil || read != 0 {
		t.Errorf("read %d bytes after the lock, %v", read, err)
	}
}

// entries of a tar, to be changed.
type tarEntry struct {
	name    string
	content []byte
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entriesOf(t *testing.T, file string) (all []tarEntry) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(contentOf(t, file)))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		b, err2 := io.ReadAll(r)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		all = append(all, tarEntry{h.Name, b})
	}
}

func writeEntries(t *testing.T, file string, all []tarEntry) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content))}); err != nil {
			t.Fatal(err)
		}
		w.Write(e.content)
	}
	w.Close()
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every piece is changed in turn: refused, by name, and what was changed never comes into the cache.
func TestTamperedPackedBundleIsRefused(t *testing.T) {
	ctx := context.Background()
	file, b := packedBundle(t, "b.tar")
	entries := entriesOf(t, file)
	owner := map[string][]string{} // of a blob, the artifacts that an error may name
	for _, a := range b.Lock().Artifacts {
		blobs, err := b.blobs(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range blobs {
			key := strings.TrimPrefix(x.digest, "sha256:")
			owner[key] = append(owner[key], a.Name)
		}
	}
	type change struct {
		name string
		do   func([]tarEntry) []tarEntry
		want []string // one of these
	}
	changes := []change{
		{"the lock is not first", func(e []tarEntry) []tarEntry { return e[1:] }, []string{"does not begin with a lock.yaml"}},
		{"the lock is no lock", func(e []tarEntry) []tarEntry { e[0].content = []byte("a: b"); return e }, []string{`unknown field "a"`}},
		{"the lock names another digest", func(e []tarEntry) []tarEntry {
			e[0].content = bytes.Replace(e[0].content, []byte(strings.TrimPrefix(b.Lock().Artifacts[0].Digest, "sha256:")), []byte(strings.Repeat("0", 64)), 1)
			return e
		}, []string{"which its lock does not name"}},
		{"something else is in it", func(e []tarEntry) []tarEntry {
			return append(e, tarEntry{"blobs/sha256/" + strings.Repeat("1", 64), []byte("x")})
		}, []string{"which its lock does not name"}},
		{"a path leads out of it", func(e []tarEntry) []tarEntry { return append(e, tarEntry{"../../etc/passwd", []byte("x")}) }, []string{"which its lock does not name"}},
	}
	for i, e := range entries[1:] {
		base := filepath.Base(e.name)
		changes = append(changes,
			change{"flip " + base, func(all []tarEntry) []tarEntry { all[i+1].content = flip(all[i+1].content); return all }, owner[base]},
			change{"shorten " + base, func(all []tarEntry) []tarEntry {
				all[i+1].content = all[i+1].content[:len(all[i+1].content)-1]
				return all
			}, owner[base]},
			change{"leave out " + base, func(all []tarEntry) []tarEntry { return slices.Delete(all, i+1, i+2) }, append(owner[base], "which its lock does not name")})
	}
	for _, x := range changes {
		t.Run(x.name, func(t *testing.T) {
			copied := make([]tarEntry, len(entries))
			for i, e := range entries {
				copied[i] = tarEntry{e.name, bytes.Clone(e.content)}
			}
			bad := filepath.Join(t.TempDir(), "bad.tar")
			writeEntries(t, bad, x.do(copied))
			c := newCache(t)
			for what, err := range map[string]error{"verify": opened(bad, func(p *Packed) error { return p.Verify(ctx) }), "unpack": opened(bad, func(p *Packed) error {
				_, err := c.Unpack(ctx, p)
				return err
			})} {
				if err == nil || !slices.ContainsFunc(x.want, func(w string) bool { return strings.Contains(err.Error(), w) }) {
					t.Errorf("%s: %v, should say one of %q", what, err, x.want)
				}
			}
			for _, f := range files(t, filepath.Join(c.dir, blobsDir)) {
				if host.Digest(contentOf(t, filepath.Join(c.dir, blobsDir, f))) != "sha256:"+f {
					t.Errorf("%s is in the cache with other bytes", f)
				}
			}
			if len(files(t, filepath.Join(c.dir, locksDir))) != 0 {
				t.Error("its lock is remembered")
			}
		})
	}
}

func opened(file string, do func(*Packed) error) error {
	p, err := OpenPacked(file, nil)
	if err != nil {
		return err
	}
	defer p.Close()
	return do(p)
}

func TestDamagedCompressionIsRefused(t *testing.T) {
	file, _ := packedBundle(t, "b.tar.zst")
	whole := contentOf(t, file)
	for name, bad := range map[string][]byte{"cut": whole[:len(whole)/2], "flipped": flip(bytes.Clone(whole))} {
		if err := os.WriteFile(file, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		err := opened(file, func(p *Packed) error { return p.Verify(context.Background()) })
		if err == nil || !strings.Contains(err.Error(), "b.tar.zst") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
