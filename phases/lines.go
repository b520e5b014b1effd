package phases

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// writeLines has a file hold these lines of ours, which end with a mark, after all that others have there. It is
// written in place, as in a container it cannot be replaced, and only where our lines are not these.
func (t *Target) writeLines(ctx context.Context, path, mark string, lines []string) error {
	have, there, err := t.content(ctx, path)
	if err != nil {
		return err
	}
	ours, others := separate(have, func(line string) bool { return strings.HasSuffix(line, mark) })
	if slices.Equal(ours, lines) {
		return nil
	}
	if n := len(others); n > 0 && others[n-1] != '\n' {
		others = append(others, '\n')
	}
	s := Step{Kind: someLines, Name: path, After: strings.Join(lines, "\n")}
	if there {
		s.Before = host.Digest(have)
	}
	if err := t.note(ctx, s); err != nil {
		return err
	}
	return t.overwrite(ctx, path, have, append(others, strings.Join(lines, "\n")+"\n"...))
}

// restoreLines takes the lines that the journal knows out again. Those that somebody has changed stay.
func (t *Target) restoreLines(ctx context.Context) error {
	for _, s := range t.Journal.things(someLines) {
		have, there, err := t.content(ctx, s.Name)
		if err != nil {
			return err
		}
		known := t.Journal.lines(s.Name)
		gone, rest := separate(have, func(line string) bool { return slices.Contains(known, line) })
		if !there || len(gone) == 0 {
			continue
		}
		// We may have ended a last line that had no end, and a run that was killed may have left blank lines.
		for end := rest; len(end) > 0 && end[len(end)-1] == '\n'; {
			if end = end[:len(end)-1]; host.Digest(end) == s.Before {
				rest = end
			}
		}
		if len(rest) == 0 && s.Before == "" {
			err = t.do(ctx, "rm", "-f", "--", s.Name)
		} else {
			err = t.overwrite(ctx, s.Name, have, rest)
		}
		if err != nil {
			return err
		}
		if changed, _ := separate(rest, func(line string) bool { return strings.HasSuffix(line, manifests.HostsMark) }); len(changed) > 0 {
			t.notice("kept: in %s, what was changed since by somebody else: %s", s.Name, strings.Join(changed, "; "))
		}
	}
	return nil
}

// separate takes apart the lines that are ours, without their ends, and all else, to the byte.
func separate(content []byte, ours func(line string) bool) (own []string, others []byte) {
	for line := range bytes.Lines(content) {
		if text := strings.TrimRight(string(line), "\r\n"); ours(text) {
			own = append(own, text)
		} else {
			others = append(others, line...)
		}
	}
	return own, others
}

// content of a file; there tells that it exists.
func (t *Target) content(ctx context.Context, path string) (b []byte, there bool, err error) {
	b, err = t.Host.ReadFile(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return b, err == nil, err
}

// overwrite writes into a file, whose content is have, so that a kill leaves it whole: what is only added is
// appended; else one write makes it what it should be, filled up with blank lines, which then are cut off.
func (t *Target) overwrite(ctx context.Context, path string, have, want []byte) error {
	if r, ok := t.Host.(*host.Recorder); ok { // for a plan it is a file like any other
		return t.list(ctx, r, path, want)
	}
	argv, content := []string{"dd", "of=" + path, "conv=notrunc,fsync", "iflag=fullblock", "bs=1M", "status=none"}, want
	if added, ok := bytes.CutPrefix(want, have); ok {
		argv, content = append(argv, "oflag=append"), added
	}
	if n := len(have) - len(want); n > 0 {
		content = append(bytes.Clone(want), bytes.Repeat([]byte("\n"), n)...)
	}
	t.changed(1)
	if _, err := t.Host.Run(ctx, host.Command{Argv: argv, Stdin: bytes.NewReader(content)}); err != nil {
		return err
	}
	if len(have) <= len(want) {
		return nil
	}
	return t.do(ctx, "truncate", "--size="+strconv.Itoa(len(want)), "--", path)
}

func (t *Target) list(ctx context.Context, r *host.Recorder, path string, want []byte) error {
	f := host.File{Path: path, Content: host.Bytes(want)}
	infos, err := r.Stat(ctx, path)
	if err != nil {
		return err
	}
	if i, ok := infos[path]; ok {
		f.Mode = i.Mode.Perm()
	}
	_, err = t.write(ctx, f)
	return err
}

// lines are all that were ever ours in a file.
func (j *Journal) lines(path string) (all []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.steps {
		if s.Kind == someLines && s.Name == path {
			all = append(all, strings.Split(s.After, "\n")...)
		}
	}
	return all
}
