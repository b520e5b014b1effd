package bundle

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/e2e/faulty"
)

// Each run has a Cache of its own, as each process has.
func TestTwoRunsAtOnceDownloadEachByteOnce(t *testing.T) {
	ctx := context.Background()
	upstream, catalogue := tinyUpstream(t)
	reg := newTinyRegistry(t)
	reg.put(t, "a:1", randomImage(t, nil, 3))
	w := Wish{Kubernetes: "v1.36.3", Images: []string{"registry.example.test/a:1"}, Platforms: []string{amd64}}
	run := func(dir string) (string, error) {
		c, err := OpenCache(dir)
		if err != nil {
			return "", err
		}
		r, err := NewRemote(config.Artifacts{Mirror: upstream.URL, Registries: reg.mirrors(true)}, reg.keychain())
		if err != nil {
			return "", err
		}
		l, err := c.Resolve(ctx, w, catalogue, r, nil)
		if err != nil {
			return "", err
		}
		b := c.Bundle(l, r)
		if _, err := b.Fetch(ctx, l.Artifacts, nil); err != nil {
			return "", err
		}
		return l.Digest(), b.Verify(ctx, l.Artifacts, nil)
	}
	costs := func() (files int, registry int64) { return len(upstream.Requests("")), reg.asked.Load() }

	f0, a0 := costs()
	alone, err := run(filepath.Join(t.TempDir(), "alone"))
	if err != nil {
		t.Fatal(err)
	}
	f1, a1 := costs()

	c := newCache(t)
	unlock, err := c.exclusive(ctx) // until both have seen that nothing is there
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	var locks [2]string
	for i := range locks {
		g.Go(func() (err error) {
			locks[i], err = run(c.dir)
			return err
		})
	}
	for waiting := 0; waiting < 1+len(locks); waiting = timesOpen(t, filepath.Join(c.dir, cacheLock)) {
		time.Sleep(time.Millisecond)
	}
	unlock()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	f2, a2 := costs()
	if locks != [2]string{alone, alone} {
		t.Errorf("locks %s, alone %s", locks, alone)
	}
	if f2-f1 != f1-f0 || a2-a1 != a1-a0 {
		t.Errorf("two runs ask for %d files, and the registry %d times; one for %d, and %d times", f2-f1, a2-a1, f1-f0, a1-a0)
	}
}

// timesOpen counts how often this process has a file open.
func timesOpen(t *testing.T, path string) (n int) {
	t.Helper()
	for _, f := range files(t, "/proc/self/fd") {
		if to, err := os.Readlink("/proc/self/fd/" + f); err == nil && to == path {
			n++
		}
	}
	return n
}

func TestFetchGoesOnAfterAKill(t *testing.T) {
	const variable = "KUBEWRIGHT_TEST_FETCH"
	if url, dir, ok := strings.Cut(os.Getenv(variable), " "); ok { // the run that is killed
		c, err := OpenCache(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, a := fileBundle(c, remoteOf(t, config.Artifacts{Mirror: url}), publishedContent())
		_, err = b.Fetch(context.Background(), []Artifact{a}, func(_ string, done, _ int64) { fmt.Println("here:", done) })
		t.Fatal("it was not killed:", err)
	}
	const came = 16 << 10
	s, r, content := published(t)
	s.Break(published1, faulty.Fault{Trickle: came, Pause: time.Hour})
	c := newCache(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"="+s.URL+" "+c.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for here := 0; here < came; {
		if _, err := fmt.Fscanf(out, "here: %d\n", &here); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()

	s.Break(published1)
	b, a := fileBundle(c, r, content)
	if has(c.dir, blob{a.Digest, unknown}) {
		t.Fatal("half a file has the name of a whole one")
	}
	if _, err := b.Fetch(context.Background(), []Artifact{a}, nil); err != nil {
		t.Fatal(err)
	}
	requests := s.Requests(published1)
	if last := requests[len(requests)-1]; last.Range != fmt.Sprintf("bytes=%d-", came) {
		t.Errorf("asked for %q at last", last.Range)
	}
	if !bytes.Equal(read(t, b.File(a)), content) {
		t.Error("other bytes")
	}
}
