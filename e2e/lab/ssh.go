package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// SSHUser is a plain user of every host, with sudo that asks for no password.
const SSHUser = "ops"

// SSH is what it takes to get into a lab's hosts as one gets into real ones: as root or as [SSHUser].
type SSH struct {
	IdentityFile string // the lab's private key, 0600
	KnownHosts   string // the hosts' keys, by address and by name
	Port         int
}

// SSH returns the lab's key, and the keys of those of its hosts that run now, as read on the hosts.
func (l *Lab) SSH(ctx context.Context) (SSH, error) {
	all, err := l.Engine.Status(ctx)
	if err != nil {
		return SSH{}, err
	}
	var known bytes.Buffer
	for _, s := range all {
		if s.Lab != l.name || s.State != "running" {
			continue
		}
		h := &Host{Name: s.Host, IP: s.IP, engine: l.Engine, id: l.Engine.containerName(l.name, s.Host)}
		key, err := h.ReadFile(ctx, "/etc/ssh/ssh_host_ed25519_key.pub")
		if err != nil {
			return SSH{}, fmt.Errorf("read the host key: %w", err)
		}
		fmt.Fprintf(&known, "%s,%s %s\n", h.IP, h.Name, bytes.TrimSpace(key))
	}
	dir := l.sshDir(l.name)
	s := SSH{IdentityFile: filepath.Join(dir, "id_ed25519"), KnownHosts: filepath.Join(dir, "known_hosts"), Port: 22}
	return s, os.WriteFile(s.KnownHosts, known.Bytes(), 0o644)
}

// Args are the arguments of ssh for that user of the host; the command follows.
func (s SSH) Args(user string, h *Host) []string {
	return []string{"-i", s.IdentityFile, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=" + s.KnownHosts,
		"-p", fmt.Sprint(s.Port), user + "@" + h.IP}
}

func (b *Builder) sshDir(lab string) string { return filepath.Join(b.cache, "ssh", lab) }

// makeSSHKey makes the lab's key pair, unless it was kept, and returns the public half.
func (l *Lab) makeSSHKey() (string, error) {
	dir := l.sshDir(l.name)
	file := filepath.Join(dir, "id_ed25519")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newSSHKey(dir, file)
	}
	if err != nil {
		return "", err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))), nil
}

func newSSHKey(dir, file string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "kubewright lab")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, os.WriteFile(file, text, 0o600)
}
