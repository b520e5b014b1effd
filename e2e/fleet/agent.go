package fleet

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/kubewright/kubewright/host"
)

// agent answers as host/agent.sh does, which says what each verb means.
type agent struct {
	*visit
	in       *bufio.Reader
	out, err io.Writer // of the operation; the answer ends both
	lease    string    // that this agent holds
}

// serve answers until the operator goes.
func (a *agent) serve(stdout, stderr io.Writer) error {
	nonce, err := a.in.ReadString('\n')
	if err != nil {
		return err
	}
	nonce = strings.TrimSuffix(nonce, "\n")
	defer a.unlock()
	for {
		operations, err := host.ReadFrame(a.in)
		if err != nil {
			return err
		}
		if operations[0][0] != "renew" { // nobody waits for it
			a.asked("frame of %d", len(operations))
		}
		for _, words := range operations {
			a.asking("  %.300q", words)
			var out, errs bytes.Buffer
			a.out, a.err = &out, &errs
			code := a.do(words[0], words[1:])
			if err := host.Answer(&errs, nonce, code); err != nil {
				return err
			}
			if err := host.Answer(&out, nonce, code); err != nil {
				return err
			}
			if _, err := stderr.Write(errs.Bytes()); err != nil {
				return err
			}
			if _, err := stdout.Write(out.Bytes()); err != nil {
				return err
			}
			if words[0] == "receive" && code != 0 {
				return io.EOF
			}
		}
	}
}

func (a *agent) do(verb string, words []string) int {
	var payload []byte
	switch verb {
	case "append", "run", "query":
		if n, _ := strconv.Atoi(words[1]); n > 0 {
			payload = make([]byte, n)
			if _, err := io.ReadFull(a.in, payload); err != nil {
				return 1
			}
		}
	case "receive":
		return a.receive(words)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch verb {
	case "stat":
		return a.stat(words)
	case "sum":
		return a.sum(words)
	case "read":
		f, code := a.regular("cat", words[0])
		if code == 0 {
			a.out.Write(f.content)
		}
		return code
	case "list":
		return a.list(words[0])
	case "append":
		return a.appendTo(words[0], payload)
	case "run", "query":
		return a.command(words[2:], payload, a.out, a.err)
	case "apply":
		return a.apply(words)
	case "lock":
		return a.lock(words)
	case "end", "renew":
		return 0
	case "unlock":
		a.leased, a.lease = "", ""
		return 0
	}
	return a.fail("%s: not known here", verb)
}

func (a *agent) fail(format string, args ...any) int {
	fmt.Fprintf(a.err, format+"\n", args...)
	return 1
}

const noSuchFile = "No such file or directory"

// regular is a file that can be read.
func (a *agent) regular(tool, p string) (*file, int) {
	switch f, ok := a.follow(p); {
	case !ok:
		return nil, a.fail("%s: %s: %s", tool, p, noSuchFile)
	case f.mode.IsDir():
		return nil, a.fail("%s: %s: Is a directory", tool, p)
	default:
		return f, 0
	}
}

func (a *agent) stat(paths []string) (code int) {
	for _, p := range paths {
		f, ok := a.get(p)
		if !ok {
			code = a.fail("stat: cannot statx '%s': %s", p, noSuchFile)
			continue
		}
		shown := p
		if f.link != "" {
			shown += " -> " + f.link
		}
		stamp := fmt.Sprintf("%d.%09d", f.changed.Unix(), f.changed.Nanosecond())
		fmt.Fprintf(a.out, "%x 0 0 %d 1 %d %s %s  %s\x00%s\x00", kernelMode(f.mode), len(f.content), f.inode, stamp, stamp, p, shown)
	}
	return code
}

func (a *agent) sum(paths []string) (code int) {
	for _, p := range paths {
		f, failed := a.regular("sha256sum", p)
		if failed != 0 {
			code = failed
			continue
		}
		sum := sha256.Sum256(f.content)
		fmt.Fprintf(a.out, "%x  %s\x00", sum, p)
	}
	return code
}

func (a *agent) list(dir string) int {
	if f, ok := a.follow(dir); !ok || !f.mode.IsDir() {
		return a.fail("ls: cannot access '%s/': %s", dir, noSuchFile)
	}
	for _, name := range a.below(dir) {
		if !strings.Contains(name, "/") {
			fmt.Fprintf(a.out, "%s\x00", name)
		}
	}
	return 0
}

func (a *agent) appendTo(p string, b []byte) int {
	if _, ok := a.get(path.Dir(p)); !ok {
		a.put(path.Dir(p), file{mode: fs.ModeDir | 0o700})
	}
	f, ok := a.get(p)
	if !ok {
		f = &file{mode: 0o600}
	}
	a.put(p, file{mode: f.mode, content: append(bytes.Clone(f.content), b...)})
	return 0
}

// receive keeps what has the right digests under its temporary names.
func (a *agent) receive(words []string) int {
	length, _ := strconv.ParseInt(words[0], 10, 64)
	sums := map[string]string{}
	for line := range strings.Lines(words[1]) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		sums[name] = sum
	}
	stream := io.LimitReader(a.in, length)
	files := map[string]file{}
	for t := tar.NewReader(stream); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return a.fail("tar: %v", err)
		}
		b := make([]byte, h.Size)
		if _, err := io.ReadFull(t, b); err != nil {
			return a.fail("tar: %v", err)
		}
		content, digest := intern(b)
		if digest != "sha256:"+sums[h.Name] {
			return a.fail("sha256sum: %s: FAILED", h.Name)
		}
		files[h.Name] = file{mode: fs.FileMode(h.Mode).Perm(), content: content}
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return 1
	}
	if verdict, err := a.in.ReadString('\n'); err != nil || verdict != "ok\n" {
		return 1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, f := range files {
		a.put(p, f)
	}
	return 0
}

func (a *agent) apply(words []string) int {
	for ; len(words) > 0; words = words[4:] {
		p, x := words[1], words[2]
		mode, _ := strconv.ParseUint(x, 8, 32)
		f, there := a.get(p)
		switch words[0] {
		case "place":
			f, _ := a.get(x)
			a.put(p, *f)
			a.remove(x)
		case "link":
			a.put(p, file{mode: fs.ModeSymlink | 0o777, link: words[3]})
		case "delete":
			a.remove(p)
		case "dir":
			a.put(p, file{mode: fs.ModeDir | fs.FileMode(mode)})
		case "mode":
			if !there {
				return a.fail("chmod: cannot access '%s': %s", p, noSuchFile)
			}
			a.put(p, file{mode: f.mode.Type() | fs.FileMode(mode), content: f.content, link: f.link})
		}
		io.WriteString(a.out, ".")
	}
	return 0
}

// codeLocked is agent.sh's.
const codeLocked = 75

func (a *agent) lock(words []string) int {
	if a.leased != "" {
		io.WriteString(a.out, a.leased)
		return codeLocked
	}
	a.lease = fmt.Sprintf(`{"run":%s,"command":%s,"pid":1,"started":"1","boot":"%s","since":%s,"renewed":%d}`, words[1], words[2], hex.EncodeToString([]byte(a.name)), words[3], time.Now().UnixNano())
	a.leased = a.lease
	return 0
}

// unlock gives back what this agent still has.
func (a *agent) unlock() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease != "" {
		a.leased = ""
	}
}
