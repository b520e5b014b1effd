package phases

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubewright/kubewright/host"
)

// journaled is a host whose changes are written down before they are made.
type journaled struct {
	host.Host
	journal *Journal
	phase   string
	// before is told which files that are there are about to be replaced.
	before func(context.Context, []host.File) error
}

func (h journaled) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if !c.Reads {
		if err := h.journal.add(ctx, h.phase, Step{Kind: aCommand, Argv: c.Argv}); err != nil {
			return host.Output{}, err
		}
	}
	return h.Host.Run(ctx, c)
}

// WriteFiles writes down what is about to change, keeps what it replaces, and does it. A file
// that nobody has touched since we wrote the same to it is not read: binaries are large.
func (h journaled) WriteFiles(ctx context.Context, files ...host.File) ([]host.Change, error) {
	var paths []string
	for _, f := range files {
		paths = append(paths, parents(f.Path)...)
		paths = append(paths, f.Path)
	}
	infos, err := h.Stat(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var unsure, differ []host.File
	for _, f := range files {
		if info, exists := infos[f.Path]; !exists || !h.journal.wrote(f, info) {
			unsure = append(unsure, f)
		}
	}
	actions, err := host.Compare(ctx, h.Host, unsure...)
	if err != nil {
		return nil, err
	}
	var steps []Step
	var replaced []host.File
	made := map[string]bool{}
	for i, f := range unsure {
		info, exists := infos[f.Path]
		if actions[i] == "" {
			continue
		}
		differ = append(differ, f)
		for _, dir := range parents(f.Path) {
			if _, ok := infos[dir]; !ok && !made[dir] && !f.Absent {
				made[dir] = true
				steps = append(steps, Step{Kind: aFile, Name: dir, After: describeFile(host.File{Dir: true}, "")})
			}
		}
		s := Step{Kind: aFile, Name: f.Path}
		if exists && actions[i] == "update" {
			replaced = append(replaced, f)
		}
		if exists {
			if s.Before, err = h.keep(ctx, f, info); err != nil {
				return nil, err
			}
		}
		if !f.Absent {
			s.After = describeFile(f, digest(f))
		}
		steps = append(steps, s)
	}
	if len(differ) == 0 {
		return nil, nil
	}
	if h.before != nil {
		if err := h.before(ctx, replaced); err != nil {
			return nil, err
		}
	}
	if err := h.journal.add(ctx, h.phase, steps...); err != nil {
		return nil, err
	}
	changes, err := h.Host.WriteFiles(ctx, differ...)
	if err != nil {
		return changes, err
	}
	return changes, h.stamp(ctx, differ)
}

// keep describes what is about to be replaced, and copies a file of others.
func (h journaled) keep(ctx context.Context, f host.File, info host.Info) (string, error) {
	had, err := describePath(ctx, h.Host, f.Path, info)
	if err != nil || !info.Mode.IsRegular() || h.journal.ours(f.Path, had) {
		return had, err
	}
	copied := beforePath(had)
	infos, err := h.Stat(ctx, copied)
	if err != nil {
		return "", err
	}
	if _, ok := infos[copied]; ok {
		return had, nil
	}
	if _, err := h.Host.WriteFiles(ctx, host.File{Path: JournalDir, Dir: true, Mode: 0o700}, host.File{Path: beforeDir, Dir: true, Mode: 0o700}); err != nil {
		return "", err
	}
	// Not in one step: half a copy must not pass for one.
	for _, argv := range [][]string{{"cp", "--archive", "--", f.Path, copied + ".part"}, {"sync", "--", copied + ".part"}, {"mv", "--", copied + ".part", copied}} {
		if _, err := h.Host.Run(ctx, host.Cmd(argv...)); err != nil {
			return "", fmt.Errorf("keep %s as it was: %w", f.Path, err)
		}
	}
	return had, nil
}

// stamp notes what files look like that were just written.
func (h journaled) stamp(ctx context.Context, files []host.File) error {
	var paths []string
	for _, f := range files {
		if f.Content != nil {
			paths = append(paths, f.Path)
		}
	}
	infos, err := h.Stat(ctx, paths...)
	if err != nil {
		return err
	}
	var steps []Step
	for _, f := range files {
		if i, ok := infos[f.Path]; ok && i.Stamp != "" && f.Content != nil {
			steps = append(steps, Step{Kind: written, Name: f.Path, Stamp: i.Stamp, After: digest(f)})
		}
	}
	return h.journal.add(ctx, h.phase, steps...)
}

// describeFile puts a file into the words of the journal: "dir 0755", "link TARGET", or
// "file 0644 sha256:HEX".
func describeFile(f host.File, digest string) string {
	switch {
	case f.Link != "":
		return "link " + f.Link
	case f.Dir:
		return fmt.Sprintf("dir %04o", f.Perm())
	}
	return fmt.Sprintf("file %04o %s", f.Perm(), digest)
}

// describePath is describeFile of what is on the host.
func describePath(ctx context.Context, h host.Host, path string, info host.Info) (string, error) {
	f := host.File{Mode: info.Mode.Perm(), Link: info.Link, Dir: info.Mode.IsDir()}
	if !info.Mode.IsRegular() {
		return describeFile(f, ""), nil
	}
	digests, err := h.Digest(ctx, path)
	return describeFile(f, digests[path]), err
}

// beforePath is where the content of a file of before is kept.
func beforePath(description string) string {
	fields := strings.Fields(description) // file, mode, digest
	return path.Join(beforeDir, fields[1]+"-"+strings.TrimPrefix(fields[2], "sha256:"))
}

// parents are the folders above a path, the topmost first, without the root.
func parents(p string) (dirs []string) {
	for dir := path.Dir(p); dir != "/" && dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
