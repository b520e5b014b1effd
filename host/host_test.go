package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func perm(t *testing.T, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

func TestWriteFilesDoesWhatIsMissing(t *testing.T) { onEach(t, testWriteFilesDoesWhatIsMissing) }

func testWriteFilesDoesWhatIsMissing(t *testing.T, h Host) {
	type before func(t *testing.T, path string)
	nothing := func(*testing.T, string) {}
	file := func(content string, mode fs.FileMode) before {
		return func(t *testing.T, path string) { put(t, path, content, mode) }
	}
	link := func(target string) before {
		return func(t *testing.T, path string) {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := func(mode fs.FileMode) before {
		return func(t *testing.T, path string) {
			if err := os.Mkdir(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		before before
		file   File
		action string
		err    string // the end of it; then nothing has changed
	}{
		"create":             {nothing, File{Content: Text("a")}, "create", ""},
		"create with a mode": {nothing, File{Content: Text("a"), Mode: 0o600}, "create", ""},
		"create empty":       {nothing, File{Content: Text("")}, "create", ""},
		"unchanged":          {file("a", 0o644), File{Content: Text("a")}, "", ""},
		"update":             {file("b", 0o644), File{Content: Text("a")}, "update", ""},
		"update a longer":    {file("aa", 0o644), File{Content: Text("a")}, "update", ""},
		"update and mode":    {file("b", 0o644), File{Content: Text("a"), Mode: 0o600}, "update", ""},
		"mode":               {file("a", 0o644), File{Content: Text("a"), Mode: 0o600}, "mode", ""},
		"mode, wider":        {file("a", 0o600), File{Content: Text("a")}, "mode", ""},
		"file for a link":    {link("/nowhere"), File{Content: Text("a")}, "update", ""},
		"file for a folder":  {dir(0o755), File{Content: Text("a")}, "", "is a directory: move it away"},

		"link":            {nothing, File{Link: "target"}, "create", ""},
		"link unchanged":  {link("target"), File{Link: "target"}, "", ""},
		"link elsewhere":  {link("old"), File{Link: "target"}, "update", ""},
		"link for a file": {file("a", 0o644), File{Link: "target"}, "", "is a file: move it away"},

		"folder":            {nothing, File{Dir: true}, "create", ""},
		"folder, private":   {nothing, File{Dir: true, Mode: 0o700}, "create", ""},
		"folder unchanged":  {dir(0o755), File{Dir: true}, "", ""},
		"folder's mode":     {dir(0o755), File{Dir: true, Mode: 0o700}, "mode", ""},
		"folder for a file": {file("a", 0o644), File{Dir: true}, "", "is a file: move it away"},

		"absent":           {file("a", 0o644), File{Absent: true}, "delete", ""},
		"absent link":      {link("/nowhere"), File{Absent: true}, "delete", ""},
		"absent unchanged": {nothing, File{Absent: true}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			tt.before(t, path)
			f := tt.file
			f.Path = path
			changes, err := h.WriteFiles(t.Context(), f)
			if tt.err != "" {
				if err == nil || err.Error() != "write "+path+": "+tt.err {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want []Change
			if tt.action != "" {
				want = []Change{{path, tt.action}}
			}
			if diff := cmp.Diff(want, changes); diff != "" {
				t.Error(diff)
			}
			switch {
			case f.Absent:
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("is still there: %v", err)
				}
			case f.Link != "":
				if got, err := os.Readlink(path); err != nil || got != f.Link {
					t.Errorf("points to %q, %v", got, err)
				}
			case f.Dir:
				if got := perm(t, path); got != f.Perm() {
					t.Errorf("mode %o", got)
				}
			default:
				if got := text(t, path); got != string(f.Content.(Bytes)) {
					t.Errorf("content %q", got)
				}
				if got := perm(t, path); got != f.Perm() {
					t.Errorf("mode %o", got)
				}
			}
			if again, err := h.WriteFiles(t.Context(), f); err != nil || again != nil {
				t.Errorf("a second time: %v, %v", again, err)
			}
			noStrangers(t, filepath.Dir(path), "f")
		})
	}
}

// noStrangers checks that nothing but the named files is in dir: no temporary ones.
func noStrangers(t *testing.T, dir string, names ...string) {
	t.Helper()
	got, err := Local{}.List(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range got {
		if !strings.Contains(strings.Join(names, "/"), g) {
			t.Errorf("%s is in %s", g, dir)
		}
	}
}

func TestUnchangedFilesAreNotTouched(t *testing.T) { onEach(t, testUnchangedFilesAreNotTouched) }

func testUnchangedFilesAreNotTouched(t *testing.T, h Host) {
	path := filepath.Join(t.TempDir(), "f")
	put(t, path, "a", 0o644)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteFiles(t.Context(), File{Path: path, Content: Text("a")}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("the file was written again")
	}
}

func TestParentsAreMadeForAllToRead(t *testing.T) { onEach(t, testParentsAreMadeForAllToRead) }

func testParentsAreMadeForAllToRead(t *testing.T, h Host) {
	for name, f := range map[string]File{
		"file":   {Content: Text("a"), Mode: 0o600},
		"folder": {Dir: true, Mode: 0o700},
		"link":   {Link: "x"},
	} {
		root := t.TempDir()
		f.Path = filepath.Join(root, "a", "b", "f")
		if _, err := h.WriteFiles(t.Context(), f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, parent := range []string{"a", "a/b"} {
			if got := perm(t, filepath.Join(root, parent)); got != 0o755 {
				t.Errorf("%s: parent %s has mode %o", name, parent, got)
			}
		}
	}
}

func TestUmaskDoesNotMatter(t *testing.T) { onEach(t, testUmaskDoesNotMatter) }

func testUmaskDoesNotMatter(t *testing.T, h Host) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "f")
	if _, err := h.WriteFiles(t.Context(), File{Path: path, Content: Text("a")}, File{Path: path + ".d", Dir: true}); err != nil {
		t.Fatal(err)
	}
	if perm(t, path) != 0o644 || perm(t, path+".d") != 0o755 {
		t.Errorf("modes %o and %o", perm(t, path), perm(t, path+".d"))
	}
}

func TestOwner(t *testing.T) { onEach(t, testOwner) }

func testOwner(t *testing.T, h Host) {
	path := filepath.Join(t.TempDir(), "f")
	write := func(owner string) ([]Change, error) {
		return h.WriteFiles(t.Context(), File{Path: path, Content: Text("a"), Owner: owner})
	}
	for _, bad := range []string{"root:root", "0", "0:x"} {
		if _, err := write(bad); err == nil || !strings.HasSuffix(err.Error(), "write UID:GID") {
			t.Errorf("owner %q: %v", bad, err)
		}
		noStrangers(t, filepath.Dir(path))
	}
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	owner := func() string {
		infos, err := h.Stat(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return infos[path].Owner
	}
	for _, step := range []struct{ owner, action, is string }{{"12:34", "create", "12:34"}, {"12:34", "", "12:34"}, {"12:35", "mode", "12:35"}} {
		changes, err := write(step.owner)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(actions(changes), " "); got != step.action || owner() != step.is {
			t.Errorf("owner %q: %q, then it is %s", step.owner, got, owner())
		}
	}
}

func actions(changes []Change) (out []string) {
	for _, c := range changes {
		out = append(out, c.Action)
	}
	return out
}

// badSource is a source that does not hold what it says.
type badSource struct {
	Bytes
	size int64
	err  error // at the end of the bytes; nil: io.EOF
	open error
}

func (s badSource) Size() int64 { return s.size }
func (s badSource) Open() (io.ReadCloser, error) {
	if s.open != nil {
		return nil, s.open
	}
	r, err := s.Bytes.Open()
	if s.err != nil {
		r = io.NopCloser(io.MultiReader(r, failing{s.err}))
	}
	return r, err
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestABadSourceLeavesTheOldFile(t *testing.T) { onEach(t, testABadSourceLeavesTheOldFile) }

func testABadSourceLeavesTheOldFile(t *testing.T, h Host) {
	broken := errors.New("broken pipe")
	for name, tt := range map[string]struct {
		source badSource
		want   string
	}{
		"cannot be opened":   {badSource{Text("new"), 3, nil, broken}, "broken pipe"},
		"fails half way":     {badSource{Text("ne"), 3, broken, nil}, "broken pipe"},
		"fails at the end":   {badSource{Text("new"), 3, broken, nil}, "broken pipe"},
		"is cut short":       {badSource{Text("ne"), 3, nil, nil}, "2 bytes instead of 3: the source was cut short"},
		"is longer than due": {badSource{Text("newer"), 3, nil, nil}, "5 bytes instead of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old, fresh := filepath.Join(dir, "old"), filepath.Join(dir, "fresh")
			put(t, old, "what was there", 0o640)
			for _, path := range []string{old, fresh} {
				changes, err := h.WriteFiles(t.Context(), File{Path: path, Content: tt.source})
				if err == nil || !strings.HasPrefix(err.Error(), "write "+path+": ") || !strings.Contains(err.Error(), tt.want) || changes != nil {
					t.Errorf("%v, %v", changes, err)
				}
			}
			if got := text(t, old); got != "what was there" || perm(t, old) != 0o640 {
				t.Errorf("the old file is %q, %o", got, perm(t, old))
			}
			noStrangers(t, dir, "old")
		})
	}
}

func TestWriteFilesTellsWhatItDidBeforeItFailed(t *testing.T) {
	onEach(t, testWriteFilesTellsWhatItDidBeforeItFailed)
}

func testWriteFilesTellsWhatItDidBeforeItFailed(t *testing.T, h Host) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	changes, err := h.WriteFiles(t.Context(), File{Path: a, Content: Text("a")}, File{Path: b, Content: badSource{size: 1}}, File{Path: c, Content: Text("c")})
	if diff := cmp.Diff([]Change{{a, "create"}}, changes); err == nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	noStrangers(t, dir, "a")
}

func TestWriteFilesEndsWithItsContext(t *testing.T) { onEach(t, testWriteFilesEndsWithItsContext) }

func testWriteFilesEndsWithItsContext(t *testing.T, h Host) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "f")
	if changes, err := h.WriteFiles(ctx, File{Path: path, Content: Text("a")}); !errors.Is(err, context.Canceled) || changes != nil {
		t.Errorf("%v, %v", changes, err)
	}
	noStrangers(t, filepath.Dir(path))
}

func TestStatDescribesWhatExists(t *testing.T) { onEach(t, testStatDescribesWhatExists) }

func testStatDescribesWhatExists(t *testing.T, h Host) {
	dir := t.TempDir()
	file, link, absent := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "absent")
	put(t, file, "four", 0o640)
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "below") // ENOTDIR, which is not ENOENT
	infos, err := h.Stat(t.Context(), file, link, absent, below, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 3 {
		t.Errorf("%d paths exist: %v", len(infos), infos)
	}
	if i := infos[file]; i.Mode != 0o640 || i.Size != 4 || i.Link != "" || i.Owner != fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()) {
		t.Errorf("file: %+v", i)
	}
	if i := infos[link]; i.Mode&fs.ModeSymlink == 0 || i.Link != "file" {
		t.Errorf("link: %+v", i)
	}
	if i := infos[dir]; !i.Mode.IsDir() {
		t.Errorf("folder: %+v", i)
	}
}

func TestListIsSortedAndReadFileIsWhole(t *testing.T) { onEach(t, testListIsSortedAndReadFileIsWhole) }

func testListIsSortedAndReadFileIsWhole(t *testing.T, h Host) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a", "c/d"} {
		put(t, filepath.Join(dir, name), name, 0o600)
	}
	names, err := h.List(t.Context(), dir)
	if diff := cmp.Diff([]string{"a", "b", "c"}, names); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	b, err := h.ReadFile(t.Context(), filepath.Join(dir, "c/d"))
	if err != nil || string(b) != "c/d" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := h.List(t.Context(), filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a missing folder: %v", err)
	}
	if _, err := h.ReadFile(t.Context(), filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("content of a missing file: %v", err)
	}
}

func TestRunGivesOutputAndTakesInput(t *testing.T) { onEach(t, testRunGivesOutputAndTakesInput) }

func testRunGivesOutputAndTakesInput(t *testing.T, h Host) {
	out, err := h.Run(t.Context(), Command{Argv: []string{"sh", "-c", "cat; echo aside >&2"}, Stdin: strings.NewReader("given")})
	if err != nil || string(out.Stdout) != "given" || string(out.Stderr) != "aside\n" {
		t.Errorf("%q, %q, %v", out.Stdout, out.Stderr, err)
	}
	// Arguments are not a shell's: nothing in them is expanded.
	out, err = h.Run(t.Context(), Query("echo", "$HOME *", "; false"))
	if err != nil || string(out.Stdout) != "$HOME * ; false\n" {
		t.Errorf("%q, %v", out.Stdout, err)
	}
}

func TestRunTellsHowACommandFailed(t *testing.T) { onEach(t, testRunTellsHowACommandFailed) }

func testRunTellsHowACommandFailed(t *testing.T, h Host) {
	for name, tt := range map[string]struct {
		script string
		want   string
	}{
		"standard error":     {"echo out; echo ' why ' >&2; exit 3", "sh -c echo out; echo ' why ' >&2; exit 3: exit code 3: why"},
		"or standard output": {"echo why; exit 4", "sh -c echo why; exit 4: exit code 4: why"},
		"or nothing":         {"exit 5", "sh -c exit 5: exit code 5"},
	} {
		_, err := h.Run(t.Context(), Cmd("sh", "-c", tt.script))
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Error() != tt.want || exit.Argv[2] != tt.script {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.Run(t.Context(), Cmd("sh", "-c", `i=0; while [ $i -lt 1000 ]; do echo "line $i"; i=$((i+1)); done; exit 1`))
	var exit *ExitError
	if !errors.As(err, &exit) || len(exit.Output) > maxOutput || !strings.HasSuffix(exit.Output, "\nline 999") {
		t.Errorf("a long output: %v", err)
	}
	if _, err := h.Run(t.Context(), Cmd("no-such-command-here")); err == nil || errors.As(err, &exit) && exit.Code == 0 || !strings.HasPrefix(err.Error(), "no-such-command-here: ") {
		t.Errorf("a missing command: %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) { onEach(t, testRunEndsWithItsContext) }

func testRunEndsWithItsContext(t *testing.T, h Host) {
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.Run(ctx, Cmd("sh", "-c", "echo started > "+fifo+"; exec sleep 1000"))
		failed <- err
	}()
	text(t, fifo) // blocks until the command runs
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "sh: ") {
		t.Errorf("%v", err)
	}
}

func TestDialReachesUnixSocketsAndPorts(t *testing.T) { onEach(t, testDialReachesUnixSocketsAndPorts) }

func testDialReachesUnixSocketsAndPorts(t *testing.T, h Host) {
	for _, network := range []string{"unix", "tcp"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(t.TempDir(), "s")
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := h.Dial(t.Context(), network, l.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", network, err)
		} else {
			conn.Close()
		}
		l.Close()
		if _, err := h.Dial(t.Context(), network, l.Addr().String()); err == nil {
			t.Errorf("%s: nobody listens, and yet it answers", network)
		}
	}
}

func TestRecorderReadsAndOnlyListsWrites(t *testing.T) {
	dir := t.TempDir()
	same, other, absent := filepath.Join(dir, "same"), filepath.Join(dir, "other"), filepath.Join(dir, "absent")
	put(t, same, "same", 0o644)
	put(t, other, "old", 0o644)
	r := &Recorder{Host: Local{}}

	out, err := r.Run(t.Context(), Query("echo", "seen"))
	if err != nil || string(out.Stdout) != "seen\n" {
		t.Errorf("a query: %q, %v", out.Stdout, err)
	}
	out, err = r.Run(t.Context(), Cmd("touch", absent))
	if err != nil || len(out.Stdout) > 0 {
		t.Errorf("a command: %q, %v", out.Stdout, err)
	}
	changes, err := r.WriteFiles(t.Context(),
		File{Path: same, Content: Text("same")}, File{Path: other, Content: Text("new")},
		File{Path: absent, Content: Text("x"), Mode: 0o600, Secret: true}, File{Path: same, Absent: true},
		File{Path: other, Content: Text("new"), Mode: 0o600}, File{Path: absent + ".l", Link: same}, File{Path: absent + ".d", Dir: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{other, "update"}, {absent, "create"}, {same, "delete"}, {other, "mode"}, {absent + ".l", "create"}, {absent + ".d", "create"}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	var steps []string
	for _, s := range r.Steps() {
		if s.File == nil {
			steps = append(steps, strings.Join(s.Argv, " "))
			continue
		}
		steps = append(steps, s.Action+" "+s.File.Path)
	}
	if diff := cmp.Diff([]string{"touch " + absent, "update " + other, "create " + absent, "delete " + same, "mode " + other, "create " + absent + ".l", "create " + absent + ".d"}, steps); diff != "" {
		t.Error(diff)
	}
	if text(t, same) != "same" || text(t, other) != "old" || perm(t, other) != 0o644 {
		t.Error("a file was changed")
	}
	noStrangers(t, dir, "same", "other")

	if b, err := r.ReadFile(t.Context(), other); err != nil || string(b) != "new" {
		t.Errorf("who reads what was listed finds %q, %v", b, err)
	}
	if _, err := r.ReadFile(t.Context(), same); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("who reads what would have been removed finds %v", err)
	}
	if names, err := r.List(t.Context(), dir); err != nil || strings.Join(names, " ") != "absent absent.d absent.l other" {
		t.Errorf("it lists %q, %v", names, err)
	}
	if _, err := r.Run(t.Context(), Cmd("rm", "-rf", "--", dir)); err != nil {
		t.Fatal(err)
	}
	if infos, err := r.Stat(t.Context(), dir, other); err != nil || len(infos) > 0 {
		t.Errorf("after rm there is %v, %v", infos, err)
	}
	r = &Recorder{Host: Local{}}
	if _, err := r.WriteFiles(t.Context(), File{Path: dir, Content: Text("x")}); err == nil || err.Error() != "write "+dir+": is a directory: move it away" {
		t.Errorf("where Local fails, so does a plan: %v", err)
	}
}

func TestRecorderComparesOverAnyHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	put(t, path, "same", 0o644)
	r := &Recorder{Host: struct{ Host }{Local{}}} // not Local by its type: contents come by ReadFile
	changes, err := r.WriteFiles(t.Context(), File{Path: path, Content: Text("same")}, File{Path: path, Content: Text("diff")})
	if diff := cmp.Diff([]Change{{path, "update"}}, changes); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
