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
	"strconv"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	out := Output{stdout.Bytes(), stderr.Bytes()}
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
		action, err := compare(ctx, l, f)
		if err == nil && action != "" {
			err = write(f, action)
		}
		if err != nil {
			return changes, fmt.Errorf("write %s: %w", f.Path, err)
		}
		if action != "" {
			changes = append(changes, Change{Path: f.Path, Action: action})
		}
	}
	return changes, nil
}

func (Local) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// compare tells what has to be done to make f true on h: create, update, mode, delete or "".
func compare(ctx context.Context, h Host, f File) (string, error) {
	infos, err := h.Stat(ctx, f.Path)
	if err != nil {
		return "", err
	}
	info, exists := infos[f.Path]
	switch {
	case f.Absent && exists:
		return "delete", nil
	case f.Absent:
		return "", nil
	case !exists:
		return "create", nil
	case f.Link != "":
		if info.Mode&fs.ModeSymlink == 0 {
			return "", fmt.Errorf("is %s: move it away", kind(info.Mode))
		}
		if info.Link != f.Link {
			return "update", nil
		}
		return "", nil
	case f.Dir && info.Mode&fs.ModeSymlink != 0: // data on another disk: where it leads is the owner's affair
		return "", nil
	case f.Dir != info.Mode.IsDir():
		return "", fmt.Errorf("is %s: move it away", kind(info.Mode))
	}
	if !f.Dir {
		if !info.Mode.IsRegular() || info.Size != f.Content.Size() {
			return "update", nil
		}
		same, err := sameContent(ctx, h, f)
		if err != nil {
			return "", err
		}
		if !same {
			return "update", nil
		}
	}
	if info.Mode.Perm() != f.Perm() || f.Owner != "" && info.Owner != f.Owner {
		return "mode", nil
	}
	return "", nil
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

func sameContent(ctx context.Context, h Host, f File) (bool, error) {
	if local, ok := h.(Local); ok {
		return local.sameContent(f)
	}
	b, err := h.ReadFile(ctx, f.Path)
	if err != nil {
		return false, err
	}
	return Digest(b) == f.Content.Digest(), nil
}

// sameContent streams: binaries are 100 MB and more.
func (Local) sameContent(f File) (bool, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	d, err := digestOf(file)
	return d == f.Content.Digest(), err
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
		return renameio.Symlink(f.Link, f.Path)
	}
	src, err := f.Content.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	// The temporary file starts with a dot: the kubelet and containerd skip such names.
	pending, err := renameio.NewPendingFile(f.Path, renameio.WithTempDir(filepath.Dir(f.Path)), renameio.WithPermissions(f.Perm()), renameio.IgnoreUmask())
	if err != nil {
		return err
	}
	defer pending.Cleanup()
	n, err := io.Copy(pending, src)
	if err != nil {
		return err
	}
	if n != f.Content.Size() {
		return fmt.Errorf("%d bytes instead of %d: the source was cut short", n, f.Content.Size())
	}
	if err := finish(f, pending.Name()); err != nil {
		return err
	}
	return pending.CloseAtomicallyReplace()
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
