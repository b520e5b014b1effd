package ssh

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

const globalKnownHosts = "/etc/ssh/ssh_known_hosts"

// knownHosts are the host keys that a set of files knows, and those that were stored by this run.
type knownHosts struct {
	file  string // new keys go in here
	db    *knownhosts.HostKeyDB
	alone sync.Mutex
	added map[string]ssh.PublicKey // by name and port
}

// known reads a set of files once.
func (c *Client) known(files []string) (*knownHosts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.Join(files, "\n")
	if k := c.hosts[key]; k != nil {
		return k, nil
	}
	k := &knownHosts{added: map[string]ssh.PublicKey{}}
	var there []string
	for _, f := range append(files, globalKnownHosts) {
		if f == "none" {
			continue
		}
		if k.file == "" && f != globalKnownHosts {
			k.file = f
		}
		if _, err := os.Stat(f); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		there = append(there, f)
	}
	var err error
	if k.db, err = knownhosts.NewDB(there...); err != nil {
		return nil, fmt.Errorf("known hosts: %w: mend or remove that line", err)
	}
	c.hosts[key] = k
	return k, nil
}

// verify is the only judge of host keys. A key that is not the known one is refused, whatever was asked for.
func (k *knownHosts) verify(e endpoint, accept bool, remote net.Addr, key ssh.PublicKey) error {
	err := k.db.HostKeyCallback()(e.keyName(), remote, key)
	var revoked *xknownhosts.RevokedError
	var keyError *xknownhosts.KeyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return fmt.Errorf("its host key %s is marked as revoked in %s, line %d: whoever holds it is not to be trusted", fingerprint(key), revoked.Revoked.Filename, revoked.Revoked.Line)
	case !errors.As(err, &keyError):
		return fmt.Errorf("its host key %s: %w", fingerprint(key), err)
	case len(keyError.Want) > 0:
		want := keyError.Want[0]
		for _, w := range keyError.Want {
			if w.Key.Type() == key.Type() {
				want = w
			}
		}
		return changed(fingerprint(key), fingerprint(want.Key), fmt.Sprintf("%s, line %d", want.Filename, want.Line), k.pattern(e))
	}
	k.alone.Lock()
	defer k.alone.Unlock()
	if have := k.added[e.keyName()]; have != nil {
		if string(have.Marshal()) != string(key.Marshal()) {
			return changed(fingerprint(key), fingerprint(have), k.file+", as of this run", k.pattern(e))
		}
		return nil
	}
	if !accept {
		scan := "ssh-keyscan " + e.address
		if e.port != "22" {
			scan = fmt.Sprintf("ssh-keyscan -p %s %s", e.port, e.address)
		}
		return fmt.Errorf("its host key is not known: %s. Compare that with what `ssh-keygen -lf` says of the keys in /etc/ssh on the host, and store it: run this again with --accept-new-host-keys, or `%s >> %s`",
			fingerprint(key), scan, k.file)
	}
	if err := k.store(e, key); err != nil {
		return fmt.Errorf("store its host key: %w", err)
	}
	k.added[e.keyName()] = key
	return nil
}

func changed(now, before, where, pattern string) error {
	return fmt.Errorf("its HOST KEY HAS CHANGED: it is %s now, and %s says %s. Somebody may be between you and it. If the host was made anew, remove the old key with `ssh-keygen -R '%s'`, and run this again",
		now, where, before, pattern)
}

func fingerprint(key ssh.PublicKey) string {
	return fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
}

func (k *knownHosts) pattern(e endpoint) string { return knownhosts.Normalize(e.keyName()) }

// store appends a line, in one write: other processes do so, too.
func (k *knownHosts) store(e endpoint, key ssh.PublicKey) (err error) {
	if k.file == "" {
		return errors.New("no file of known hosts is set")
	}
	if err := os.MkdirAll(filepath.Dir(k.file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(k.file, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	line := knownhosts.Line([]string{e.keyName()}, key) + "\n"
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			line = "\n" + line // somebody's editor left the last line open
		}
	}
	_, err = f.WriteString(line)
	return err
}
