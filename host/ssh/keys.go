package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// defaultIdentities are ssh's own, in ~/.ssh.
var defaultIdentities = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// key is a private key in a file. One with a passphrase is opened when a server wants it, once.
type key struct {
	path   string
	err    error // it cannot be read
	public ssh.PublicKey
	cert   *ssh.Certificate // KEY-cert.pub
	pem    []byte           // as long as it is locked

	alone  sync.Mutex
	signer ssh.Signer
	locked error // why it stays so
}

// key reads a file once for all hosts.
func (c *Client) key(path string) *key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.keys[path]; k != nil {
		return k
	}
	k := &key{path: path}
	c.keys[path] = k
	if k.pem, k.err = os.ReadFile(path); k.err != nil {
		return k
	}
	var locked *ssh.PassphraseMissingError
	signer, err := ssh.ParsePrivateKey(k.pem)
	switch {
	case err == nil:
		k.signer, k.public = signer, signer.PublicKey()
	case errors.As(err, &locked):
		if k.public = locked.PublicKey; k.public == nil {
			k.public = readPublic(path + ".pub") // older formats hide it
		}
		if k.public == nil {
			k.err = fmt.Errorf("%s has a passphrase and no public key beside it: make one with `ssh-keygen -y -f %s > %s.pub`", path, path, path)
		}
	default:
		k.err = fmt.Errorf("%s: %w", path, err)
	}
	if cert, ok := readPublic(path + "-cert.pub").(*ssh.Certificate); ok && k.public != nil && bytes.Equal(cert.Key.Marshal(), k.public.Marshal()) {
		k.cert = cert
	}
	return k
}

func readPublic(path string) ssh.PublicKey {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return public
}

// open tells whether the key can sign without a question.
func (k *key) open() bool {
	return k.alone.TryLock() && func() bool { defer k.alone.Unlock(); return k.signer != nil }()
}

// unlock asks for the passphrase, which may be mistyped twice.
func (k *key) unlock(ask func(string) (string, error)) (ssh.Signer, error) {
	k.alone.Lock()
	defer k.alone.Unlock()
	for range 3 {
		if k.signer != nil || k.locked != nil {
			break
		}
		if ask == nil {
			k.locked = fmt.Errorf("the key %s has a passphrase, and there is nobody to ask: put it into an agent with `ssh-add %s`", k.path, k.path)
			break
		}
		phrase, err := ask(fmt.Sprintf("Passphrase for %s: ", k.path)) // one question for all hosts
		if err != nil {
			k.locked = fmt.Errorf("passphrase for %s: %w", k.path, err)
			break
		}
		// The library's errors never quote a passphrase.
		if k.signer, err = ssh.ParsePrivateKeyWithPassphrase(k.pem, []byte(phrase)); err != nil {
			k.signer = nil
		}
	}
	if k.signer == nil && k.locked == nil {
		k.locked = fmt.Errorf("the key %s: three wrong passphrases", k.path)
	}
	return k.signer, k.locked
}

// lazySigner offers a key, and opens it when the server wants it.
type lazySigner struct {
	public ssh.PublicKey
	open   func() (ssh.Signer, error)
}

func (l lazySigner) PublicKey() ssh.PublicKey { return l.public }

func (l lazySigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return l.SignWithAlgorithm(rand, data, "")
}

func (l lazySigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := l.open()
	if err != nil {
		return nil, err
	}
	if s, ok := signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return s.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// login is what one attempt has to offer a server.
type login struct {
	signers []ssh.Signer
	tried   []string // for the error, should all be refused
	refused error    // a key that the server would take, and that we could not use
	agent   net.Conn
}

// login gathers keys in ssh's order: those that were named, the agent's, the default ones. The
// agent signs for what it holds, so that nobody is asked for a passphrase.
func (c *Client) login(ctx context.Context, e endpoint, unlock func(*key) (ssh.Signer, error)) *login {
	l := &login{}
	held := map[string]ssh.Signer{} // by public key
	var order []ssh.Signer
	if e.agent != "" {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", e.agent)
		if err == nil {
			l.agent = conn
			order, err = agent.NewClient(conn).Signers()
		}
		if err != nil {
			l.tried = append(l.tried, fmt.Sprintf("the agent at %s (it did not answer: %v)", e.agent, err))
		}
		for _, s := range order {
			held[string(s.PublicKey().Marshal())] = s
		}
	}
	offered := map[string]bool{}
	offer := func(s ssh.Signer) {
		if id := string(s.PublicKey().Marshal()); !offered[id] {
			offered[id] = true
			l.signers = append(l.signers, s)
		}
	}
	file := func(path string, named bool) {
		k := c.key(path)
		if k.err != nil && k.public == nil {
			public := readPublic(path + ".pub") // a key of the agent's may be chosen by its public half
			if public == nil {
				public = readPublic(path)
			}
			if public != nil && held[string(public.Marshal())] != nil {
				l.tried = append(l.tried, path+" (in the agent)")
				offer(held[string(public.Marshal())])
			} else if named || !errors.Is(k.err, fs.ErrNotExist) {
				l.tried = append(l.tried, fmt.Sprintf("%s (not usable: %v)", path, k.err))
			}
			return
		}
		l.tried = append(l.tried, path)
		signer := held[string(k.public.Marshal())]
		if signer == nil {
			signer = lazySigner{k.public, func() (ssh.Signer, error) {
				s, err := unlock(k)
				if err != nil {
					l.refused = err
				}
				return s, err
			}}
		}
		if k.cert != nil {
			if s, err := ssh.NewCertSigner(k.cert, signer); err == nil {
				offer(s)
			}
		}
		offer(signer)
	}
	for _, path := range e.identities {
		file(path, true)
	}
	if !e.only && len(order) > 0 {
		l.tried = append(l.tried, fmt.Sprintf("%d keys of the agent", len(order)))
		for _, s := range order {
			offer(s)
		}
	}
	if len(e.identities) == 0 {
		for _, name := range defaultIdentities {
			file(filepath.Join(c.home, ".ssh", name), false)
		}
	}
	return l
}

func (l *login) close() {
	if l.agent != nil {
		l.agent.Close()
	}
}

func (l *login) String() string {
	if len(l.tried) == 0 {
		return "no key: there is none in ~/.ssh, and no agent"
	}
	return strings.Join(l.tried, ", ")
}
