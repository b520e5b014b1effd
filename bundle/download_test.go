package bundle

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sys/unix"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
	"github.com/kubewright/kubewright/host"
)

const fileSize = 300 << 10

// published is a server that has dl.example.test/file, and a remote that knows it as a mirror.
func published(t *testing.T) (*faulty.Server, *Remote, []byte) {
	t.Helper()
	dir := t.TempDir()
	content := publishedContent()
	if err := os.MkdirAll(filepath.Join(dir, "dl.example.test"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dl.example.test/file"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := faulty.Serve(dir, faulty.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, remoteOf(t, config.Artifacts{Mirror: s.URL}), content
}

func publishedContent() []byte {
	content := make([]byte, fileSize)
	rand.New(rand.NewSource(1)).Read(content)
	return content
}

// remoteOf is one that does not wait long.
func remoteOf(t *testing.T, a config.Artifacts) *Remote {
	t.Helper()
	r, err := NewRemote(a, authn.NewMultiKeychain())
	if err != nil {
		t.Fatal(err)
	}
	r.pause = time.Millisecond
	return r
}

func newCache(t *testing.T) *Cache {
	t.Helper()
	c, err := OpenCache(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fileBundle is a bundle of one file that is published at dl.example.test.
func fileBundle(c *Cache, r *Remote, content []byte) (*Bundle, Artifact) {
	a := Artifact{Name: "file", Type: File, Version: "v1.0.0", Platform: amd64, Digest: host.Digest(content), Size: int64(len(content)),
		Source: &Source{URL: "https://dl.example.test/file"}}
	return c.Bundle(Lock{APIVersion: APIVersion, Kind: Kind, Origin: Upstream, Artifacts: []Artifact{a}}, r), a
}

const published1 = "/dl.example.test/file"

func TestFetchOutlivesEveryFault(t *testing.T) {
	for name, faults := range map[string][]faulty.Fault{
		"none":                           {},
		"cut again and again":            {{Cut: 10 << 10, Times: 25}},
		"cut before anything comes":      {{Cut: -1, Times: 3}},
		"busy":                           {{Status: 503, Times: 2}, {Status: 429, Times: 1}},
		"says that it is longer":         {{AddLength: 1000, Times: 3}},
		"says that it is shorter":        {{AddLength: -100_000, Times: 3}},
		"knows no ranges":                {{Cut: 100 << 10, Times: 1}, {NoRange: true}},
		"trickles, and is cut":           {{Trickle: 64 << 10, Pause: time.Millisecond, Cut: 200 << 10, Times: 1}},
		"redirects to where the file is": {{Redirect: "/elsewhere", Times: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, content := published(t)
			s.Break(published1, faults...)
			s.Break("/elsewhere", faulty.Fault{Redirect: published1})
			b, a := fileBundle(newCache(t), r, content)
			var last int64
			n, err := b.Fetch(context.Background(), []Artifact{a}, func(_ string, done, total int64) {
				last = done
				if total != fileSize {
					t.Errorf("of %d bytes, should be %d", total, fileSize)
				}
			})
			if err != nil || n != 1 {
				t.Fatalf("fetched %d, %v", n, err)
			}
			if last != fileSize {
				t.Errorf("the last progress is %d", last)
			}
			if got := read(t, b.File(a)); !bytes.Equal(got, content) {
				t.Error("other bytes")
			}
			asked := len(s.Requests(""))
			if n, err := b.Fetch(context.Background(), []Artifact{a}, nil); n != 0 || err != nil || len(s.Requests("")) != asked {
				t.Errorf("fetched again: %d, %v, %d requests", n, err, len(s.Requests(""))-asked)
			}
		})
	}
}

// As with a lock, but nobody has said how long the file is: the catalogue has digests alone.
func TestDownloadOfUnknownSizeOutlivesEveryFault(t *testing.T) {
	for name, x := range map[string]struct {
		faults []faulty.Fault
		want   string
	}{
		"none":                     {},
		"cut again and again":      {faults: []faulty.Fault{{Cut: 10 << 10, Times: 25}}},
		"says that it is shorter":  {faults: []faulty.Fault{{NoRange: true, Cut: 1000, Times: 1}, {AddLength: -100_000, Times: 1}}},
		"says that it is longer":   {faults: []faulty.Fault{{AddLength: 1000, Times: 2}}},
		"a flipped byte":           {faults: []faulty.Fault{{Flip: 1000}}, want: "have digest sha256:"},
		"the same, without ranges": {faults: []faulty.Fault{{NoRange: true, Flip: 1000}}, want: errWrong.Error()},
		"cut, and without ranges":  {faults: []faulty.Fault{{NoRange: true, Cut: 100 << 10, Times: 2}, {NoRange: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, content := published(t)
			s.Break(published1, x.faults...)
			c := newCache(t)
			from, err := r.fileLocations("", "https://dl.example.test/file")
			if err != nil {
				t.Fatal(err)
			}
			err = r.bring(context.Background(), c.dir, blob{host.Digest(content), unknown}, from, nil)
			if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Fatal(err)
			}
			if x.want != "" && len(files(t, filepath.Join(c.dir, blobsDir))) != 0 {
				t.Error("something of it was kept")
			}
			if x.want == "" && !bytes.Equal(contentOf(t, blobPath(c.dir, host.Digest(content))), content) {
				t.Error("other bytes")
			}
		})
	}
}

func TestFetchGoesOnWhereItWasCut(t *testing.T) {
	s, r, content := published(t)
	s.Break(published1, faulty.Fault{Cut: 100 << 10, Times: 1}, faulty.Fault{Status: 503})
	c := newCache(t)
	b, a := fileBundle(c, r, content)
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("got %v", err)
	}
	if has(c.dir, blob{a.Digest, a.Size}) {
		t.Fatal("half a file has the name of a whole one")
	}
	s.Break(published1)
	// Another process, later.
	b, a = fileBundle(c, remoteOf(t, config.Artifacts{Mirror: s.URL}), content)
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	requests := s.Requests(published1)
	if last := requests[len(requests)-1]; last.Range != "bytes=102400-" {
		t.Errorf("asked for %q at last", last.Range)
	}
}

func TestFetchRefusesOtherBytes(t *testing.T) {
	for name, change := range map[string]struct {
		fault faulty.Fault
		grow  bool
		want  string
	}{
		"a flipped byte":     {fault: faulty.Fault{Flip: 1000}, want: "have digest sha256:"},
		"a longer file":      {grow: true, want: "has more than 307200 bytes"},
		"not there":          {fault: faulty.Fault{Status: 404}, want: "not found there"},
		"forbidden":          {fault: faulty.Fault{Status: 403}, want: "403 Forbidden"},
		"never there":        {fault: faulty.Fault{Status: 500}, want: "500 Internal Server Error (tried 5 times)"},
		"always cut at once": {fault: faulty.Fault{Cut: -1}, want: "(tried 5 times)"},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, content := published(t)
			if change.fault != (faulty.Fault{}) {
				s.Break(published1, change.fault)
			}
			c := newCache(t)
			b, a := fileBundle(c, r, content)
			if change.grow {
				s.Break(published1)
				b, a = fileBundle(c, remoteOf(t, config.Artifacts{Mirror: longer(t, content)}), content)
			}
			_, err := b.Fetch(context.Background(), []Artifact{a}, nil)
			if err == nil || !strings.Contains(err.Error(), change.want) || !strings.Contains(err.Error(), "file v1.0.0") || !strings.Contains(err.Error(), "/dl.example.test/file") {
				t.Errorf("got %v", err)
			}
			for _, f := range files(t, filepath.Join(c.dir, blobsDir)) {
				if info, err := os.Stat(filepath.Join(c.dir, blobsDir, f)); err != nil || info.Size() > 0 {
					t.Errorf("%s stays with %d bytes, %v", f, info.Size(), err)
				}
			}
		})
	}
}

// longer serves a file that begins with content.
func longer(t *testing.T, content []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "dl.example.test"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dl.example.test/file"), append(bytes.Clone(content), "more"...), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := faulty.Serve(dir, faulty.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.URL
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

func TestFetchBeginsAnewAfterADamagedPart(t *testing.T) {
	s, r, content := published(t)
	c := newCache(t)
	b, a := fileBundle(c, r, content)
	if err := os.WriteFile(partialPath(c.dir, a.Digest), []byte("what a crash left"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Requests(published1)); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestFetchMendsADamagedBlob(t *testing.T) {
	_, r, content := published(t)
	c := newCache(t)
	b, a := fileBundle(c, r, content)
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	edit(t, blobPath(c.dir, a.Digest), flip)
	if n, err := b.Fetch(context.Background(), []Artifact{a}, nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := b.Verify(context.Background(), []Artifact{a}, nil); err != nil {
		t.Error(err)
	}
}

func TestFetchEndsAServerThatFallsSilent(t *testing.T) {
	s, r, content := published(t)
	r.stall = 100 * time.Millisecond
	s.Break(published1, faulty.Fault{Trickle: 100 << 10, Pause: time.Hour, Times: 1})
	b, a := fileBundle(newCache(t), r, content)
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	// A small file, which is read in another way.
	s.Break(published1, faulty.Fault{Trickle: 10, Pause: time.Hour})
	if _, err := r.get(context.Background(), s.URL+published1, 1<<20); err == nil || !strings.Contains(err.Error(), "nothing came for 100ms") {
		t.Errorf("got %v", err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	s, r, content := published(t)
	s.Break(published1, faulty.Fault{Trickle: 100 << 10, Pause: time.Hour})
	b, a := fileBundle(newCache(t), r, content)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := b.Fetch(ctx, []Artifact{a}, func(_ string, done, _ int64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A file system of 200 KiB: the download stops in the middle, nothing is lost, and what is needed is said.
func TestFetchOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a small file system: run as root")
	}
	_, r, content := published(t)
	dir := t.TempDir()
	mount := func(flags uintptr, size string) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size="+size); err != nil {
			t.Skipf("no tmpfs can be mounted here: %v", err)
		}
	}
	mount(0, "200k")
	defer unix.Unmount(dir, 0)
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, a := fileBundle(c, r, content)
	_, err = b.Fetch(context.Background(), []Artifact{a}, nil)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "must take another") {
		t.Errorf("seen before it began: %v", err)
	}
	// Nobody has said how large it is: it begins, and the disk fills up.
	f := &fetch{bundle: b, moved: func(string, int64, int64) {}, files: []Artifact{a}, bytes: a.Size}
	err = f.run(context.Background())
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--cache-dir") {
		t.Errorf("in the middle: %v", err)
	}
	info, err := os.Stat(partialPath(dir, a.Digest))
	if err != nil || info.Size() < 100<<10 {
		t.Fatalf("the part that came is gone: %v", err)
	}
	mount(unix.MS_REMOUNT, "2m")
	if n, err := b.Fetch(context.Background(), []Artifact{a}, nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := b.Verify(context.Background(), []Artifact{a}, nil); err != nil {
		t.Error(err)
	}
}
