// Package host is the only door to a machine.
//
// In go commands to run, files that should exist and addresses to dial; out come
// outputs, contents and what was changed. Phases talk to a [Host] and never to the
// operating system, so they do not know whether the machine is this one, one behind
// SSH, or a container. [Recorder] wraps any Host, lets reads pass and lists what
// would be changed.
package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"time"
)

// Host is a machine: its commands, its files, and its own view of the network.
type Host interface {
	// Run executes an argv (never a shell string). A non-zero exit is an *[ExitError].
	Run(ctx context.Context, c Command) (Output, error)
	// ReadFile returns a whole file; a missing one wraps [fs.ErrNotExist].
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// Digest gives the sha256, as of [Digest], of each of the files that exists, by path, computed
	// on the host; a missing one is absent from the map.
	Digest(ctx context.Context, paths ...string) (map[string]string, error)
	// Stat describes each of the paths that exists, by path; a missing one is absent from the map.
	Stat(ctx context.Context, paths ...string) (map[string]Info, error)
	// List returns the sorted names in a directory; a missing directory wraps [fs.ErrNotExist].
	List(ctx context.Context, dir string) ([]string, error)
	// WriteFiles makes every file equal to its specification, in order, each atomically,
	// and returns what it changed. What is equal already is not touched.
	WriteFiles(ctx context.Context, files ...File) ([]Change, error)
	// Append adds to a file that only root may read, and returns when that is on the disk.
	// A file that is not there is made, with its folder.
	Append(ctx context.Context, path string, b []byte) error
	// Lock takes the host for one run of a command (init, say), and returns a context that
	// ends if another run takes it over, and what gives it back. As long as another run is at
	// work there, the error is a *[LockedError].
	Lock(ctx context.Context, command string) (context.Context, func(), error)
	// Dial connects from the host's own view of the network: "unix" and "tcp".
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// Command is one process on the host.
type Command struct {
	Argv  []string
	Stdin io.Reader // secrets go in here, never into Argv
	Reads bool      // changes nothing on the host; a Recorder runs only these
}

// Cmd is a command that may change the host.
func Cmd(argv ...string) Command { return Command{Argv: argv} }

// Query is a command that only reads.
func Query(argv ...string) Command { return Command{Argv: argv, Reads: true} }

// Output is what a process printed.
type Output struct {
	Stdout, Stderr []byte
	// Earlier is how long ago it printed that, where it was asked ahead.
	Earlier time.Duration
}

// ExitError is a process that ran and failed.
type ExitError struct {
	Argv   []string
	Code   int
	Output string // standard error, else standard output; the last 2 KiB
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("%s: exit code %d", strings.Join(e.Argv, " "), e.Code)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// Info is what Stat tells of a path. Links are not followed.
type Info struct {
	Mode  fs.FileMode // type and permission bits
	Size  int64       // bytes
	Owner string      // "user:group" as numbers, "0:0" for root
	Link  string      // target of a symbolic link
	Stamp string      // another one as soon as somebody has written to it; empty where that cannot be told
}

// File is a file as it should be.
type File struct {
	Path    string
	Mode    fs.FileMode // permission bits; 0 means 0644 (0755 for a directory)
	Owner   string      // "uid:gid"; empty means root ("0:0") where we are root
	Content Source      // nil with Dir, Link or Absent
	Link    string      // a symbolic link with this target
	Dir     bool        // a directory; parents of files are made (0755) without asking
	Absent  bool        // the path should not exist
	Secret  bool        // never show the content in a diff or a transcript
}

// Perm is the permission bits that the file should have.
func (f File) Perm() fs.FileMode {
	switch {
	case f.Mode != 0:
		return f.Mode.Perm()
	case f.Dir:
		return 0o755
	}
	return 0o644
}

// Change is one thing that was, or would be, done to a file.
type Change struct {
	Path   string `json:"path"`
	Action string `json:"action"` // create, update, mode, delete
}

// Source is content of known digest and size that can be streamed, so that no artifact
// has to be held in memory.
type Source interface {
	Digest() string // "sha256:" and 64 hex digits
	Size() int64    // bytes
	Open() (io.ReadCloser, error)
}

// Bytes is a Source in memory.
type Bytes []byte

// Text is a Source of a string.
func Text(s string) Bytes { return Bytes(s) }

func (b Bytes) Digest() string               { return Digest(b) }
func (b Bytes) Size() int64                  { return int64(len(b)) }
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Digest is the sha256 of b in the form that locks and registries use.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func digestOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
