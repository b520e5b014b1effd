package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubewright/kubewright/e2e/faulty"
)

// TestSoakDownloads makes a bundle from a mirror on which everything goes wrong at random, and kills that at
// random: the file is in the end the one that is made when nothing goes wrong.
func TestSoakDownloads(t *testing.T) {
	if os.Getenv("KUBEWRIGHT_SOAK") == "" {
		t.Skip("a trial of minutes: run it with make soak")
	}
	ctx, l := needLab(t, 20*time.Minute)
	s := newSupply(ctx, t, l)
	tool, document := s.fill(ctx, t, l)
	create := func(file, cache string) []string {
		return append([]string{"bundle", "create", file, "--config", document, "--cache-dir", cache}, s.from(s.dir)...)
	}
	good := filepath.Join(s.dir, "good.tar.zst")
	begin := time.Now()
	s.here(ctx, t, tool, create(good, filepath.Join(s.dir, "good"))...)
	usual := time.Since(begin)

	random := newRandom(t)
	kills, lives := 0, 0
	for begin = time.Now(); kills < 40; lives++ {
		cache, file := filepath.Join(s.dir, fmt.Sprint("cache", lives)), filepath.Join(s.dir, fmt.Sprint("made", lives, ".tar.zst"))
		for try := 0; ; try++ {
			s.breakAtRandom(random)
			cmd := s.command(ctx, tool, create(file, cache)...)
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if try < 8 {
				time.AfterFunc(time.Duration(random.Int64N(int64(usual))), func() { cmd.Process.Kill() })
			} else {
				s.files.Break("")
			}
			err := cmd.Wait()
			if err == nil {
				break
			}
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() && try >= 8 {
				t.Fatalf("%v\n%s", err, said.String())
			}
			if !exit.Exited() {
				kills++
			}
		}
		if digestOf(t, file) != digestOf(t, good) {
			t.Fatalf("life %d made another file, %s", lives, file)
		}
		for _, pattern := range []string{filepath.Join(s.dir, ".made*"), filepath.Join(cache, "blobs/sha256/.*")} {
			if left, err := filepath.Glob(pattern); err != nil || left != nil {
				t.Errorf("left %v, %v", left, err)
			}
		}
		if err := errors.Join(os.RemoveAll(cache), os.Remove(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Logf("soak: bundle create killed %d times on a mirror that goes wrong: %d bundles, all the same to the byte, in %s", kills, lives, time.Since(begin).Round(time.Second))
}

// breakAtRandom has requests for files go wrong a few times, each in another way.
func (s *supply) breakAtRandom(random *rand.Rand) {
	var faults []faulty.Fault
	for range random.IntN(4) {
		faults = append(faults, []faulty.Fault{
			{Cut: 1 + random.Int64N(40<<20)}, {Cut: -1}, {Status: 503}, {Status: 429}, {NoRange: true, Cut: 1 + random.Int64N(40<<20)},
			{AddLength: 1000}, {AddLength: -1000}, {Trickle: 256 << 10, Pause: 2 * time.Millisecond},
		}[random.IntN(8)])
		faults[len(faults)-1].Times = 1
	}
	s.files.Break("", faults...)
}
