package fleet

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// visit is one SSH connection to a host.
type visit struct {
	*machine
	fleet *Fleet
	line  *line
	login int // round trips until the user was let in
}

func (f *Fleet) serve(m *machine, conn net.Conn) {
	v := &visit{machine: m, fleet: f, line: newLine(conn, f.Delay)}
	defer v.line.Close()
	server, channels, requests, err := ssh.NewServerConn(v.line, f.ssh)
	if err != nil {
		return
	}
	v.login = v.line.login()
	go ssh.DiscardRequests(requests)
	for c := range channels {
		switch c.ChannelType() {
		case "session":
			go v.session(c)
		case "direct-streamlocal@openssh.com":
			go v.socket(c)
		default:
			c.Reject(ssh.UnknownChannelType, "a simulated host has shells and sockets")
		}
	}
	server.Wait()
	f.visited(Visit{Host: m.name, Login: v.login, Trips: v.line.trips() - v.login})
}

// login is how host/ssh starts a program: a word, and how long the program is.
var login = regexp.MustCompile(`sh -c 'echo (\S+); eval "\$\(dd bs=(\d+) `)

func (v *visit) asked(format string, args ...any) {
	v.fleet.asked(v.line, v.login, v.name, format, args...)
}

// asking tells more of what was asked.
func (v *visit) asking(format string, args ...any) {
	if v.fleet.Asked != nil {
		v.fleet.Asked(v.name, v.line.waited()-v.login, fmt.Sprintf(format, args...))
	}
}

func (v *visit) session(c ssh.NewChannel) {
	v.asked("session")
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	for q := range requests {
		var command struct{ Line string }
		ok := q.Type == "exec" && ssh.Unmarshal(q.Payload, &command) == nil
		v.asked("%s", q.Type)
		if q.WantReply {
			q.Reply(ok, nil)
		}
		if ok {
			go ssh.DiscardRequests(requests)
			v.program(channel, command.Line)
			return
		}
	}
}

func (v *visit) program(channel ssh.Channel, line string) {
	found := login.FindStringSubmatch(line)
	if found == nil {
		fmt.Fprintf(channel.Stderr(), "a simulated host does not know %q\n", line)
		return
	}
	fmt.Fprintln(channel, found[1])
	in := bufio.NewReaderSize(channel, 8<<10)
	n, _ := strconv.Atoi(found[2])
	text := make([]byte, n)
	if _, err := io.ReadFull(in, text); err != nil {
		return
	}
	switch program := string(text); {
	case strings.Contains(program, "agent_stat"):
		a := &agent{visit: v, in: in}
		a.serve(channel, channel.Stderr())
	case socketState.MatchString(program):
		fmt.Fprintln(channel, v.listens(socketState.FindStringSubmatch(program)[1]))
	default:
		fmt.Fprintln(channel.Stderr(), "a simulated host does not know this program")
	}
}

// socketState is the last line of the program that tells why a socket was refused.
var socketState = regexp.MustCompile(`(?m)^state '(.*)'$`)

func (v *visit) socket(c ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Zero     uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil || to.Path != socketPath || v.listens(to.Path) != "listens" {
		v.asked("socket %s: refused", to.Path)
		c.Reject(ssh.ConnectionFailed, "open failed")
		return
	}
	v.asked("socket %s", to.Path)
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	select {
	case v.fleet.sockets.conns <- runtimeConn{channelConn{channel, v.line}, v}:
	case <-v.fleet.sockets.ended:
		channel.Close()
	}
}

// channelConn is a channel as a connection. Nobody waits with a deadline.
type channelConn struct {
	ssh.Channel
	line *line
}

func (c channelConn) LocalAddr() net.Addr              { return c.line.LocalAddr() }
func (c channelConn) RemoteAddr() net.Addr             { return c.line.RemoteAddr() }
func (c channelConn) SetDeadline(time.Time) error      { return nil }
func (c channelConn) SetReadDeadline(time.Time) error  { return nil }
func (c channelConn) SetWriteDeadline(time.Time) error { return nil }
