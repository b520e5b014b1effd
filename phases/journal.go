package phases

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubewright/kubewright/host"
)

// JournalDir holds the journal of a host, and the files that were there before ours.
const (
	JournalDir  = "/var/lib/kubewright"
	journalPath = JournalDir + "/journal"
	beforeDir   = JournalDir + "/before"
)

// Journal is what was done to a host, a line of JSON a step, each on the disk before the
// step is taken. It is the ledger as well: what reset brings back is the first Before of
// each thing. It holds no secrets.
type Journal struct {
	host     host.Host
	readOnly bool

	mu     sync.Mutex
	torn   bool             // the last line has no end
	bad    []int            // lines that nobody can read
	found  *Found           // nil: not looked yet
	steps  []Step           // in order, without stamps and commands
	latest map[string]Step  // of each thing
	stamps map[string]stamp // by path
	seq    int              // of the last line
	writes map[string]int   // when a path was last about to be written
	starts map[string]int   // when a unit was last started by us
}

// Step is a line of the journal.
type Step struct {
	Time  time.Time `json:"time"`
	Phase string    `json:"phase"`
	Kind  Kind      `json:"kind"`
	Name  string    `json:"name,omitempty"`
	// What the thing was, and what it was made to be; empty: not there. Of a file as of describe.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`

	Argv  []string `json:"argv,omitempty"`  // of a command
	Found *Found   `json:"found,omitempty"` // before the first change
	Stamp string   `json:"stamp,omitempty"` // of a file that was written
}

// Kind says what a step is about.
type Kind string

const (
	aFile    Kind = "file"    // Name is a path; folders and links are files
	aSysctl  Kind = "sysctl"  // Name is dotted
	aUnit    Kind = "unit"    // "enabled active"
	anImage  Kind = "image"   // imported into the runtime
	aCommand Kind = "command" // Argv
	aStart   Kind = "start"   // of a unit, done
	aMember  Kind = "etcd"    // Name says what is asked of etcd
	before   Kind = "found"
	written  Kind = "stamp" // After is the digest of what was written to Name, Stamp that of the file then
)

type stamp struct{ stamp, digest string }

// OpenJournal reads the journal of a host; one that is not there is empty.
func OpenJournal(ctx context.Context, h host.Host) (*Journal, error) {
	j := &Journal{host: h, latest: map[string]Step{}, stamps: map[string]stamp{}, writes: map[string]int{}, starts: map[string]int{}}
	b, err := h.ReadFile(ctx, journalPath)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	j.torn = len(b) > 0 && b[len(b)-1] != '\n'
	n := 0
	for line := range bytes.Lines(b) {
		n++
		var s Step
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &s); err != nil {
			j.bad = append(j.bad, n) // cut short, so that its step was not taken; or damaged
			continue
		}
		j.note(s)
	}
	return j, nil
}

func (j *Journal) note(s Step) {
	j.seq++
	switch s.Kind {
	case aStart:
		j.starts[s.Name] = j.seq
	case before:
		if j.found == nil {
			j.found = s.Found
		}
	case written:
		j.stamps[s.Name] = stamp{s.Stamp, s.After}
	case aCommand, aMember:
	default:
		if s.Kind == aFile {
			j.writes[s.Name] = j.seq
		}
		j.steps = append(j.steps, s)
		j.latest[string(s.Kind)+" "+s.Name] = s
	}
}

// Empty tells that nothing was ever done to the host, or that nobody wrote it down.
func (j *Journal) Empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.found == nil && len(j.steps) == 0
}

// only is the journal for those who only look: it says the same, and nothing is added to it.
func (j *Journal) only() *Journal {
	if j == nil {
		return nil
	}
	return &Journal{host: j.host, readOnly: true, bad: j.bad, found: j.found, steps: j.steps, latest: j.latest, stamps: j.stamps, writes: j.writes, starts: j.starts}
}

// add writes steps down. They may be taken when it has returned.
func (j *Journal) add(ctx context.Context, phase string, steps ...Step) error {
	if j == nil || j.readOnly || len(steps) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []byte
	if j.torn {
		lines = []byte("\n")
	}
	for i := range steps {
		steps[i].Time, steps[i].Phase = time.Now().UTC(), phase
		line, err := json.Marshal(steps[i])
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := j.host.Append(ctx, journalPath, lines); err != nil {
		return fmt.Errorf("write the journal: %w: nothing is done to the host that is not written down first", err)
	}
	j.torn = false
	for _, s := range steps {
		j.note(s)
	}
	return nil
}

// things are all that was changed, the first Before and the last After of each, the newest first.
func (j *Journal) things(kind Kind) (all []Step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	seen := map[string]bool{}
	for _, s := range j.steps {
		if s.Kind == kind && !seen[s.Name] {
			seen[s.Name] = true
			s.After = j.latest[string(kind)+" "+s.Name].After
			all = append(all, s)
		}
	}
	slices.Reverse(all)
	return all
}

// journaled is a host whose changes are written down before they are made.
type journaled struct {
	host.Host
	journal *Journal
	phase   string
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
	var differ []host.File
	var steps []Step
	made := map[string]bool{}
	for _, f := range files {
		info, exists := infos[f.Path]
		if exists && h.journal.wrote(f, info) {
			continue
		}
		action, err := host.Compare(ctx, h.Host, f)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", f.Path, err)
		}
		if action == "" {
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
	for _, argv := range [][]string{{"cp", "--archive", "--", f.Path, copied + ".part"}, {"mv", "--", copied + ".part", copied}} {
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

// wrote tells that the file is as we left it, and that this is what is wanted.
func (j *Journal) wrote(f host.File, info host.Info) bool {
	if f.Content == nil || info.Stamp == "" || !info.Mode.IsRegular() || info.Mode.Perm() != f.Perm() || f.Owner != "" && info.Owner != f.Owner {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stamps[f.Path] == stamp{info.Stamp, digest(f)}
}

// ours tells that a path holds what we put there.
func (j *Journal) ours(path, description string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	s, ok := j.latest[string(aFile)+" "+path]
	return ok && s.After == description
}

// stale tells that a unit has not been started since one of its files was written.
func (j *Journal) stale(unit string, files []string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(files, func(f string) bool { return j.writes[f] > j.starts[unit] })
}

func digest(f host.File) string {
	if f.Content == nil {
		return ""
	}
	return f.Content.Digest()
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
	d, err := h.Digest(ctx, path)
	return describeFile(f, d), err
}

// beforePath is where the content of a file of before is kept.
func beforePath(description string) string {
	return path.Join(beforeDir, description[strings.LastIndex(description, ":")+1:])
}

// parents are the folders above a path, the topmost first, without the root.
func parents(p string) (dirs []string) {
	for dir := path.Dir(p); dir != "/" && dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
