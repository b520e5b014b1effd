package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func (r *Remote) ReadFile(ctx context.Context, path string) ([]byte, error) {
	out, err := r.read(ctx, "open", path, "read", path)
	return out.Stdout, err
}

func (r *Remote) List(ctx context.Context, dir string) ([]string, error) {
	out, err := r.read(ctx, "open", dir, "list", dir)
	if err != nil {
		return nil, err
	}
	names := records(out.Stdout)
	slices.Sort(names)
	return names, nil
}

func (r *Remote) read(ctx context.Context, op, path string, ask ...string) (Output, error) {
	if err := usable(op, path); err != nil {
		return Output{}, err
	}
	q := &request{ask: [][]string{ask}}
	if err := r.do(ctx, quick, q); err != nil {
		return Output{}, err
	}
	if a := q.answers[0]; a.code != 0 {
		return Output{}, &fs.PathError{Op: op, Path: path, Err: words(a.Output)}
	}
	return q.answers[0].Output, nil
}

// most paths of an operation: all are arguments of one process.
const most = 500

// each asks the same of many paths, in one frame, and returns what was printed for those that exist.
func (r *Remote) each(ctx context.Context, l lane, verb string, paths []string) (string, error) {
	q := &request{}
	for chunk := range slices.Chunk(paths, most) {
		for _, path := range chunk {
			if err := usable(verb, path); err != nil {
				return "", err
			}
		}
		q.ask = append(q.ask, append([]string{verb}, chunk...))
	}
	if len(q.ask) == 0 {
		return "", ctx.Err()
	}
	if err := r.do(ctx, l, q); err != nil {
		return "", err
	}
	var printed strings.Builder
	for _, a := range q.answers {
		for line := range strings.Lines(string(a.Stderr)) {
			err := words(Output{Stderr: []byte(line)})
			if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
				return "", err
			}
		}
		if a.code != 0 && len(a.Stderr) == 0 {
			return "", fmt.Errorf("%s: exit code %d", verb, a.code)
		}
		printed.Write(a.Stdout)
	}
	return printed.String(), nil
}

func records(b []byte) []string {
	if len(b) == 0 {
		return []string{}
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

func (r *Remote) Digest(ctx context.Context, paths ...string) (map[string]string, error) {
	printed, err := r.each(ctx, digest, "sum", paths)
	if err != nil {
		return nil, err
	}
	digests := make(map[string]string, len(paths))
	for _, record := range records([]byte(printed)) {
		sum, path, ok := strings.Cut(record, "  ")
		if !ok {
			return nil, fmt.Errorf("sha256sum printed %q", record)
		}
		digests[path] = "sha256:" + sum
	}
	return digests, nil
}

func (r *Remote) Stat(ctx context.Context, paths ...string) (map[string]Info, error) {
	printed, err := r.each(ctx, quick, "stat", paths)
	if err != nil {
		return nil, err
	}
	infos := make(map[string]Info, len(paths))
	printedOf := records([]byte(printed))
	for i := 0; i+1 < len(printedOf); i += 2 {
		fields, path, _ := strings.Cut(printedOf[i], "  ")
		f := strings.Fields(fields)
		if len(f) < 8 {
			return nil, fmt.Errorf("stat printed %q", printedOf[i])
		}
		raw, bad := strconv.ParseUint(f[0], 16, 32)
		size, err := strconv.ParseInt(f[3], 10, 64)
		if bad != nil || err != nil {
			return nil, fmt.Errorf("stat printed %q", printedOf[i])
		}
		info := Info{Mode: fileMode(uint32(raw)), Size: size, Owner: f[1] + ":" + f[2],
			Stamp: strings.Join([]string{f[4], f[5], f[3], strings.Replace(f[6], ".", "", 1), strings.Replace(f[7], ".", "", 1)}, ".")}
		if info.Mode&fs.ModeSymlink != 0 {
			info.Link = strings.TrimPrefix(printedOf[i+1], path+" -> ")
		}
		infos[path] = info
	}
	return infos, nil
}

// fileMode is what the kernel's mode is in Go.
func fileMode(raw uint32) fs.FileMode {
	m := fs.FileMode(raw & 0o777)
	for bit, is := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if raw&bit != 0 {
			m |= is
		}
	}
	return m | map[uint32]fs.FileMode{0o140000: fs.ModeSocket, 0o120000: fs.ModeSymlink, 0o060000: fs.ModeDevice,
		0o040000: fs.ModeDir, 0o020000: fs.ModeDevice | fs.ModeCharDevice, 0o010000: fs.ModeNamedPipe}[raw&0o170000]
}
