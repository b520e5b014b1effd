package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Local is this machine.
type Local struct{}

// maxOutput bounds what an ExitError quotes.
const maxOutput = 2 << 10

func (Local) Run(ctx context.Context, c Command) (Output, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, &stdout, &stderr
	// A killed installer must not leave a modprobe or a systemctl behind that goes on.
	cmd.SysProcAttr = endsWithUs()
	err := cmd.Run()
	out := Output{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	if err != nil && ctx.Err() != nil { // killed, which says nothing about the command
		return out, fmt.Errorf("%s: %w", c.Argv[0], ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, newExitError(c.Argv, exit.ExitCode(), out)
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", c.Argv[0], err)
	}
	return out, nil
}

func newExitError(argv []string, code int, out Output) *ExitError {
	text := bytes.TrimSpace(out.Stderr)
	if len(text) == 0 {
		text = bytes.TrimSpace(out.Stdout)
	}
	if len(text) > maxOutput {
		text = text[len(text)-maxOutput:]
	}
	return &ExitError{Argv: argv, Code: code, Output: string(text)}
}

func (Local) ReadFile(_ context.Context, path string) ([]byte, error) { return os.ReadFile(path) }

// Digest streams: binaries are 100 MB and more.
func (Local) Digest(ctx context.Context, paths ...string) (map[string]string, error) {
	digests := make(map[string]string, len(paths))
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		digests[p], err = digestOf(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return digests, nil
}

func (Local) Stat(_ context.Context, paths ...string) (map[string]Info, error) {
	infos := make(map[string]Info, len(paths))
	for _, p := range paths {
		fi, err := os.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info := Info{Mode: fi.Mode(), Size: fi.Size()}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			info.Owner = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
			info.Stamp = stampOf(st)
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			if info.Link, err = os.Readlink(p); err != nil {
				return nil, err
			}
		}
		infos[p] = info
	}
	return infos, nil
}

func (Local) List(_ context.Context, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (l Local) WriteFiles(ctx context.Context, files ...File) ([]Change, error) {
	var changes []Change
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return changes, err
		}
		actions, err := Compare(ctx, l, f) // one by one: the next may lie in this one
		if err != nil {
			return changes, err
		}
		if actions[0] == "" {
			continue
		}
		if err := write(f, actions[0]); err != nil {
			return changes, fmt.Errorf("write %s: %w", f.Path, err)
		}
		changes = append(changes, Change{Path: f.Path, Action: actions[0]})
	}
	return changes, nil
}

func (Local) Append(_ context.Context, path string, b []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (Local) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Compare tells for each file what has to be done to make it true on h: create, update, mode,
// delete or "". It asks the host twice, however many they are.
func Compare(ctx context.Context, h Host, files ...File) ([]string, error) {
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
	}
	infos, err := h.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	actions := make([]string, len(files))
	var read []string
	for i, f := range files {
		info, exists := infos[f.Path]
		var look bool
		if actions[i], look, err = compare(f, info, exists); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.Path, err)
		}
		if look {
			read = append(read, f.Path)
		}
	}
	if len(read) == 0 {
		return actions, nil
	}
	digests, err := h.Digest(ctx, read...)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if slices.Contains(read, f.Path) && digests[f.Path] != f.Content.Digest() {
			actions[i] = "update"
		}
	}
	return actions, nil
}

// compare does so with what Stat says; look: unless the content differs.
func compare(f File, info Info, exists bool) (action string, look bool, err error) {
	switch {
	case f.Absent && exists:
		return "delete", false, nil
	case f.Absent:
		return "", false, nil
	case !exists:
		return "create", false, nil
	case f.Link != "":
		if info.Mode&fs.ModeSymlink == 0 {
			return "", false, fmt.Errorf("is %s: move it away", kind(info.Mode))
		}
		if info.Link != f.Link {
			return "update", false, nil
		}
		return "", false, nil
	case f.Dir && info.Mode&fs.ModeSymlink != 0: // data on another disk: where it leads is the owner's affair
		return "", false, nil
	case f.Dir != info.Mode.IsDir():
		return "", false, fmt.Errorf("is %s: move it away", kind(info.Mode))
	case !f.Dir && (!info.Mode.IsRegular() || info.Size != f.Content.Size()):
		return "update", false, nil
	}
	if info.Mode.Perm() != f.Perm() || f.Owner != "" && info.Owner != f.Owner {
		action = "mode"
	}
	return action, !f.Dir, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m.IsRegular():
		return "a file"
	}
	return "not a regular file"
}

func write(f File, action string) error {
	switch action {
	case "delete":
		return os.Remove(f.Path)
	case "mode":
		return finish(f, f.Path)
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if f.Dir {
		if err := os.Mkdir(f.Path, f.Perm()); err != nil {
			return err
		}
		return finish(f, f.Path)
	}
	if f.Link != "" {
		temporary := Temporary(f.Path)
		if err := os.RemoveAll(temporary); err != nil {
			return err
		}
		if err := os.Symlink(f.Link, temporary); err != nil {
			return err
		}
		return os.Rename(temporary, f.Path)
	}
	return replace(f)
}

// Temporary is where the content of a file lies until it is whole: beside it, and under a
// name that is always the same, so that the next run replaces what a killed one has left (a
// library would give it a random name). It starts with a dot: the kubelet and containerd
// skip such names.
func Temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".kubewright")
}

// replace gives the file its name when it is whole and on the disk.
func replace(f File) (err error) {
	src, err := f.Content.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	temporary := Temporary(f.Path)
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	to, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			to.Close()
			os.Remove(temporary)
		}
	}()
	n, err := io.Copy(to, src)
	if err != nil {
		return roomy(err, f)
	}
	if n != f.Content.Size() {
		return fmt.Errorf("%d bytes instead of %d: the source was cut short", n, f.Content.Size())
	}
	if err := finish(f, temporary); err != nil {
		return err
	}
	if err := errors.Join(to.Sync(), to.Close()); err != nil {
		return roomy(err, f)
	}
	return os.Rename(temporary, f.Path)
}

// roomy says what a full disk would need.
func roomy(err error, f File) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: the file has %d bytes: make room and run the same command again, which goes on from here", err, f.Content.Size())
	}
	return err
}

func finish(f File, path string) error {
	if f.Owner != "" {
		uid, gid, err := owner(f.Owner)
		if err != nil {
			return err
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, f.Perm())
}

func owner(s string) (uid, gid int, err error) {
	u, g, _ := strings.Cut(s, ":")
	if uid, err = strconv.Atoi(u); err != nil {
		return 0, 0, fmt.Errorf("owner %q: write UID:GID", s)
	}
	if gid, err = strconv.Atoi(g); err != nil {
		return 0, 0, fmt.Errorf("owner %q: write UID:GID", s)
	}
	return uid, gid, nil
}
