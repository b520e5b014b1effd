package phases

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/host"
)

// JournalDir holds the journal of a host, and the files that were there before ours.
const (
	JournalDir  = "/var/lib/kubewright"
	journalPath = JournalDir + "/journal"
	beforeDir   = JournalDir + "/before"
	readsPath   = JournalDir + "/reads"
)

// Journal is what was done to a host, a line of JSON a step, each on the disk before the
// step is taken. It is the ledger as well: what reset brings back is the first Before of
// each thing. It holds no secrets.
type Journal struct {
	host     host.Host
	readOnly bool
	before   func(context.Context) error // comes before the first step of a run: what is here is noted; nil: nothing

	mu     sync.Mutex
	torn   bool             // the last line has no end
	bad    []int            // lines that nobody can read
	found  *Found           // nil: not looked yet
	phases []Step           // of runs that changed something
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

	Run     *time.Time `json:"run,omitempty"`     // of a phase: when the run began, the same on all hosts of one
	Seconds float64    `json:"seconds,omitempty"` // that a phase took
}

// Kind says what a step is about.
type Kind string

const (
	aFile     Kind = "file"    // Name is a path; folders and links are files
	aSysctl   Kind = "sysctl"  // Name is dotted
	aUnit     Kind = "unit"    // "enabled active"
	anImage   Kind = "image"   // imported into the runtime
	someLines Kind = "lines"   // Name is a path, Before the digest of all of it, After our lines in it
	aCommand  Kind = "command" // Argv
	aStart    Kind = "start"   // of a unit, done
	aMember   Kind = "etcd"    // Name says what is asked of etcd
	aData     Kind = "data"    // Name is the folder of etcd's data
	aPhase    Kind = "phase"   // Name is a phase of a run that changed something, After how it ended; Time is its beginning
	aHook     Kind = "hook"    // Name is a command of the user's that has succeeded
	aLock     Kind = "lock"    // Name is lockName, After the artifact lock that the host is made from
	before    Kind = "found"
	written   Kind = "stamp" // After is the digest of what was written to Name, Stamp that of the file then
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
	case aPhase:
		j.phases = append(j.phases, s)
	case aCommand, aMember:
	default:
		if s.Kind == aLock {
			s.After = unique.Make(s.After).Value() // all hosts have the same
		}
		if s.Kind == aFile {
			j.writes[s.Name] = j.seq
		}
		j.steps = append(j.steps, s)
		j.latest[string(s.Kind)+" "+s.Name] = s
	}
}

const lockName = "artifacts"

// Lock is the artifact lock that the host was made from last, YAML; empty where that was from none.
func (j *Journal) Lock() string {
	if j == nil {
		return ""
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.latest[string(aLock)+" "+lockName].After
}

// Empty tells that nothing was ever done to the host, or that nobody wrote it down.
func (j *Journal) Empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.found == nil && len(j.steps) == 0
}

// imported tells whether an image was imported into the runtime of the host.
func (j *Journal) imported(a bundle.Artifact) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.latest[string(anImage)+" "+a.Name].After == a.Digest
}

// only is the journal for those who only look: it says the same, and nothing is added to it.
func (j *Journal) only() *Journal {
	if j == nil {
		return nil
	}
	return &Journal{host: j.host, readOnly: true, bad: j.bad, found: j.found, steps: j.steps, latest: j.latest, stamps: j.stamps, writes: j.writes, starts: j.starts, seq: j.seq}
}

// length is how many steps have been written down, so far and by anybody.
func (j *Journal) length() int {
	if j == nil {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// add writes steps down. They may be taken when it has returned.
func (j *Journal) add(ctx context.Context, phase string, steps ...Step) error {
	if j == nil || j.readOnly || len(steps) == 0 {
		return nil
	}
	if j.before != nil && steps[0].Kind != before {
		if err := j.before(ctx); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []byte
	if j.torn {
		lines = []byte("\n")
	}
	for i := range steps {
		if steps[i].Time.IsZero() {
			steps[i].Time = time.Now().UTC()
		}
		steps[i].Phase = phase
		line, err := json.Marshal(steps[i])
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := j.host.Append(ctx, journalPath, lines); err != nil {
		j.torn = true // nobody knows how much of it is there
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
