package host

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

// Recorder is a Host whose reads pass and whose writes are only listed: the door behind
// which phases become a plan. Who reads what was only listed, reads what it would be.
type Recorder struct {
	Host
	mu    sync.Mutex
	steps []Step
	made  map[string]File // by path; Absent where it would have been removed

	unmounted []string // as /proc/mounts has them
}

// Step is one thing that would have been done.
type Step struct {
	Argv   []string // a command, or
	Note   string   // something in words, or
	File   *File    // a file, and
	Action string   // what would be done to it, and
	Before []byte   // what it holds now; not of large files and secrets
}

// Run passes commands that read and lists the others, which appear to succeed with no output.
func (r *Recorder) Run(ctx context.Context, c Command) (Output, error) {
	if c.Reads {
		return r.Host.Run(ctx, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, Step{Argv: c.Argv})
	switch c.Argv[0] {
	case "rm", "rmdir":
		for _, p := range c.Argv[slices.Index(c.Argv, "--")+1:] {
			r.make(File{Path: p, Absent: true})
		}
	case "mv": // what it becomes under its new name, nobody asks
		r.make(File{Path: c.Argv[len(c.Argv)-2], Absent: true})
	case "umount":
		r.unmounted = append(r.unmounted, strings.ReplaceAll(c.Argv[len(c.Argv)-1], " ", `\040`))
	}
	return Output{}, nil
}

// largest file whose content now is kept in a Step
const shown = 1 << 20

// WriteFiles lists the files that differ.
func (r *Recorder) WriteFiles(ctx context.Context, files ...File) ([]Change, error) {
	var changes []Change
	for len(files) > 0 {
		n := apart(files)
		actions, err := Compare(ctx, r, files[:n]...)
		if err != nil {
			return changes, err
		}
		for i, f := range files[:n] {
			if actions[i] == "" {
				continue
			}
			s := Step{File: &f, Action: actions[i]}
			if actions[i] != "create" && !f.Secret {
				if s.Before, err = r.before(ctx, f.Path); err != nil {
					return changes, err
				}
			}
			changes = append(changes, Change{Path: f.Path, Action: actions[i]})
			r.mu.Lock()
			r.steps = append(r.steps, s)
			r.make(f)
			r.mu.Unlock()
		}
		files = files[n:]
	}
	return changes, nil
}

// before is what a path holds now; nil of large files, and of what is no file.
func (r *Recorder) before(ctx context.Context, path string) ([]byte, error) {
	infos, err := r.Stat(ctx, path)
	if i, ok := infos[path]; err != nil || !ok || !i.Mode.IsRegular() || i.Size > shown {
		return nil, err
	}
	return r.ReadFile(ctx, path)
}

func (r *Recorder) make(f File) {
	if r.made == nil {
		r.made = map[string]File{}
	}
	maps.DeleteFunc(r.made, func(p string, _ File) bool { return f.Absent && strings.HasPrefix(p, f.Path+"/") })
	r.made[f.Path] = f
}

// would tells what a path would be, if anything above or at it would have been changed.
func (r *Recorder) would(p string) (f File, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.made[p]; ok {
		return f, true
	}
	for dir := path.Dir(p); dir != "/" && dir != "."; dir = path.Dir(dir) {
		if f, ok := r.made[dir]; ok && f.Absent {
			return f, true
		}
	}
	return File{}, false
}

func (r *Recorder) ReadFile(ctx context.Context, p string) ([]byte, error) {
	f, ok := r.would(p)
	switch {
	case !ok && p == "/proc/mounts":
		b, err := r.Host.ReadFile(ctx, p)
		return r.stillMounted(b), err
	case !ok:
		return r.Host.ReadFile(ctx, p)
	case f.Link != "":
		return r.ReadFile(ctx, f.Link)
	case f.Content == nil:
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	src, err := f.Content.Open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return io.ReadAll(src)
}

func (r *Recorder) stillMounted(mounts []byte) (rest []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) < 2 || !slices.Contains(r.unmounted, f[1]) {
			rest = append(rest, line...)
		}
	}
	return rest
}

func (r *Recorder) Digest(ctx context.Context, paths ...string) (map[string]string, error) {
	made := map[string]string{}
	var ask []string
	for _, p := range paths {
		switch f, ok := r.would(p); {
		case !ok:
			ask = append(ask, p)
		case f.Content != nil:
			made[p] = f.Content.Digest()
		}
	}
	if len(ask) == 0 {
		return made, nil
	}
	digests, err := r.Host.Digest(ctx, ask...)
	if err != nil {
		return nil, err
	}
	maps.Copy(made, digests)
	return made, nil
}

func (r *Recorder) Stat(ctx context.Context, paths ...string) (map[string]Info, error) {
	infos, err := r.Host.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		f, ok := r.would(p)
		switch {
		case !ok:
			continue
		case f.Absent:
			delete(infos, p)
			continue
		case f.Link != "":
			infos[p] = Info{Mode: fs.ModeSymlink | 0o777, Link: f.Link}
		case f.Dir:
			infos[p] = Info{Mode: fs.ModeDir | f.Perm(), Owner: f.Owner}
		default:
			infos[p] = Info{Mode: f.Perm(), Size: f.Content.Size(), Owner: f.Owner}
		}
	}
	return infos, nil
}

func (r *Recorder) List(ctx context.Context, dir string) ([]string, error) {
	if f, ok := r.would(dir); ok && f.Absent {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrNotExist}
	}
	names, err := r.Host.List(ctx, dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, f := range r.made {
		rest, below := strings.CutPrefix(p, dir+"/")
		name, deeper, _ := strings.Cut(rest, "/")
		switch {
		case !below:
		case f.Absent && deeper == "":
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		case !f.Absent && !slices.Contains(names, name):
			names, err = append(names, name), nil
		}
	}
	slices.Sort(names)
	return names, err
}

// Append does nothing: what is only listed has no journal.
func (r *Recorder) Append(context.Context, string, []byte) error { return nil }

// Lock locks nothing: who only looks is in nobody's way.
func (r *Recorder) Lock(ctx context.Context, _ string) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

// Note lists what would be done through a door that has no recording form.
func (r *Recorder) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, Step{Note: fmt.Sprintf(format, args...)})
}

// Steps are those so far, in order.
func (r *Recorder) Steps() []Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Step(nil), r.steps...)
}
