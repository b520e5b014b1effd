package ssh

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/kubewright/kubewright/host"
)

// socketState prints one word on a socket of the host. /proc/net/unix has the flag 00010000 for
// those that somebody listens at.
const socketState = `
state() {
	[ -e "$1" ] || { echo absent; return; }
	p=$(readlink -f "$1")
	while read -r _ _ _ flags _ _ _ path; do
		[ "$path" = "$p" ] && [ "$flags" = 00010000 ] && { echo listens; return; }
	done </proc/net/unix
	echo silent
}
`

// relay passes connections of the user to a socket of root's, with the tools of systemd. Its
// units have fixed names: what a killed run has left is replaced.
const relay = `
for proxy in /usr/lib/systemd/systemd-socket-proxyd /lib/systemd/systemd-socket-proxyd; do [ -x $proxy ] && break; done
[ -x $proxy ] || { echo "failed there is no systemd-socket-proxyd"; exit; }
dir=/run/kubewright-$SUDO_UID
socket=$dir/$unit.sock
mkdir -p -m 0700 $dir && chown "$SUDO_UID:$SUDO_GID" $dir && chmod 0700 $dir || { echo "failed $dir cannot be made"; exit; }
systemctl stop $unit.socket $unit.service 2>/dev/null
systemctl reset-failed $unit.socket $unit.service 2>/dev/null
rm -f $socket
said=$(systemd-run --quiet --collect --unit=$unit --socket-property=ListenStream=$socket \
	--socket-property=SocketUser=$SUDO_UID --socket-property=SocketMode=0600 --socket-property=RemoveOnStop=yes \
	$proxy "$target" 2>&1) || { echo "failed systemd-run: $said"; exit; }
echo "at $socket"
`

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// dialUnix opens a socket. sshd does so as the user who logged in: one who is not root gets at
// root's sockets through a relay.
func (s *Transport) dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if s.user == "root" {
		return s.openSocket(ctx, path)
	}
	at, err := s.relayed(ctx, path)
	if err != nil {
		return nil, err
	}
	conn, err := s.openSocket(ctx, at)
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		return conn, err
	}
	s.relaying.Lock() // somebody has stopped the relay
	if s.relays[path] == at {
		delete(s.relays, path)
	}
	s.relaying.Unlock()
	if at, err = s.relayed(ctx, path); err != nil {
		return nil, err
	}
	return s.openSocket(ctx, at)
}

// openSocket asks the server. OpenSSH has one answer for a socket that is missing, one that nobody
// listens at, and a configuration that forbids it: a look at the host tells them apart.
func (s *Transport) openSocket(ctx context.Context, path string) (net.Conn, error) {
	conn, err := opened(ctx, s.link, func() (net.Conn, error) { return s.client.Dial("unix", path) }, closeLate)
	var refused *ssh.OpenChannelError
	switch {
	case err == nil:
		return conn, nil
	case !errors.As(err, &refused):
		return nil, s.lost(err)
	}
	state, err := s.say(ctx, socketState+"state "+quote(path))
	if err != nil {
		return nil, err
	}
	return nil, socketError(state, refused.Message)
}

func socketError(state, words string) error {
	switch state {
	case "absent":
		return syscall.ENOENT
	case "silent":
		return syscall.ECONNREFUSED
	}
	// OpenSSH's AllowTcpForwarding is for sockets, too.
	return &host.ForbiddenError{Err: fmt.Errorf("the SSH server does not forward to sockets (%s): set AllowTcpForwarding and AllowStreamLocalForwarding to yes or local in its sshd_config, and look at DisableForwarding", words)}
}

// relayed makes a relay once per socket.
func (s *Transport) relayed(ctx context.Context, path string) (string, error) {
	s.relaying.Lock()
	defer s.relaying.Unlock()
	if at := s.relays[path]; at != "" {
		return at, nil
	}
	said, err := s.say(ctx, fmt.Sprintf("%starget=%s unit=%s\nis=$(state \"$target\")\n[ $is = listens ] || { echo is $is; exit; }\n%s",
		socketState, quote(path), s.unit(path), relay))
	if err != nil {
		return "", err
	}
	word, rest, _ := strings.Cut(said, " ")
	switch word {
	case "at":
		s.relays[path] = rest
		return rest, nil
	case "is":
		return "", socketError(rest, "")
	}
	return "", fmt.Errorf("only root may open it, and there is no relay: %s: log in as root, or see what systemd says of %s there", rest, s.unit(path))
}

// unit is the name of the relay's units: one per user and socket.
func (s *Transport) unit(path string) string {
	sum := sha256.Sum256([]byte(s.user + " " + path))
	return "kubewright-relay-" + hex.EncodeToString(sum[:6])
}

// say runs a program and returns what it prints.
func (s *Transport) say(ctx context.Context, program string) (string, error) {
	pipe, err := s.Shell(ctx, program)
	if err != nil {
		return "", err
	}
	defer pipe.Close()
	pipe.In.Close()
	go io.Copy(io.Discard, pipe.Err)
	out, err := io.ReadAll(io.LimitReader(pipe.Out, 64<<10))
	return strings.TrimSpace(string(out)), err
}

// Close ends all shells and connections, and the relays, if the host still answers.
func (s *Transport) Close() error {
	s.relaying.Lock()
	defer s.relaying.Unlock()
	if len(s.relays) > 0 && s.cause() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var units []string
		for path := range s.relays {
			units = append(units, s.unit(path)+".socket", s.unit(path)+".service")
		}
		clear(s.relays)
		s.say(ctx, "systemctl stop "+strings.Join(units, " ")+" 2>&1; rmdir /run/kubewright-$SUDO_UID") // the next run replaces what stays
	}
	s.close(net.ErrClosed)
	return nil
}
