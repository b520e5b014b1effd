package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestKeyTellsPartsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"c", "ab"}, {"1:a"}, {"a", ""}} {
		k := key(parts...)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q have the same key", parts, other)
		}
		seen[k] = parts
		if key(parts...) != k {
			t.Errorf("%q: another key the second time", parts)
		}
	}
}

func TestTreeKeyChangesWithNamesAndContents(t *testing.T) {
	dir := t.TempDir()
	all := func(string) bool { return true }
	hash := func(keep func(string) bool) string {
		t.Helper()
		k, err := treeKey(dir, keep)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "1")
	first := hash(all)
	write("a", "2")
	second := hash(all)
	if first == second {
		t.Error("the content changed, the key did not")
	}
	write("b", "")
	if hash(all) == second {
		t.Error("a file came, the key did not change")
	}
	if hash(func(p string) bool { return filepath.Base(p) != "b" }) != second {
		t.Error("a file that is left out changed the key")
	}
}

func testBuilder(t *testing.T) *Builder {
	return &Builder{cache: t.TempDir(), log: t.Logf}
}

func TestMakeBuildsOnceForManyAtOnce(t *testing.T) {
	b := testBuilder(t)
	built := 0 // only one builds at a time, so nothing else guards it
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := b.make(t.Context(), "kind", "thing", "k", func(_ context.Context, dir string) error {
				built++
				return os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if built != 1 {
		t.Errorf("built %d times", built)
	}
}

func TestMakeLeavesNothingHalfDone(t *testing.T) {
	b := testBuilder(t)
	boom := errors.New("boom")
	_, err := b.make(t.Context(), "kind", "thing", "k", func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	dir, err := b.make(t.Context(), "kind", "thing", "k", func(_ context.Context, dir string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("the second build found %v of the first", left)
	}
}

func TestPruneKeepsWhatWasUsedLately(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{"oldest": 72 * time.Hour, "old": 48 * time.Hour, "older": 50 * time.Hour, "now": time.Second, "lately": time.Minute} {
		p := filepath.Join(dir, name)
		when := time.Now().Add(-age)
		if err := errors.Join(os.Mkdir(p, 0o755), os.Chtimes(p, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (names []string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	prune(dir, 3, time.Now().Add(-time.Hour))
	if got := left(); !slices.Equal(got, []string{"lately", "now", "old"}) {
		t.Errorf("of five, the three used last should be left, not %v", got)
	}
	prune(dir, 0, time.Now().Add(-time.Hour))
	if got := left(); !slices.Equal(got, []string{"lately", "now"}) {
		t.Errorf("what may be in use should be left, not %v", got)
	}
}

func TestPollEndsWithTheContextAndSaysWhatItSawLast(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	seen := errors.New("not yet")
	err := poll(ctx, func() error { cancel(); return seen })
	if !errors.Is(err, seen) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
