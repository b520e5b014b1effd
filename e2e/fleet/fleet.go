// Package fleet simulates many hosts: a stand-in, for how an operator's side behaves with a
// thousand of them. Each is an SSH server at the end of a long line, with a file system in memory,
// answers to commands from a table, and as much of containerd as an import of images asks for.
// Nothing is installed, started or mounted; that the phases are right is for the lab to show.
//
// In go a number of hosts and a delay; out come addresses, and for each connection how many round
// trips it took.
package fleet

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
)

// Fleet is some hosts that run.
type Fleet struct {
	Hosts int
	Delay time.Duration // one way
	Dir   string        // gets what the operator needs: id, known_hosts, ssh_config, cluster.yaml
	// Visited hears of each connection when it has ended.
	Visited func(Visit)
	// Asked hears what a host is asked, with the number of round trips that the operator had waited for by then.
	Asked func(host string, trips int, what string)

	ssh       *ssh.ServerConfig
	listeners []net.Listener
	runtimes  *grpc.Server
	sockets   sockets
	mu        sync.Mutex
}

// Visit is one connection to a host.
type Visit struct {
	Host  string `json:"host"`
	Login int    `json:"login"` // round trips of SSH itself, until the user was let in
	Trips int    `json:"trips"` // those after that: how often the operator waited for an answer before it went on
}

// sockets are the connections to runtimes, as a listener.
type sockets struct {
	conns chan net.Conn
	ended chan struct{}
}

func (s sockets) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.ended:
		return nil, net.ErrClosed
	}
}

// Close is called once, by gRPC.
func (s sockets) Close() error {
	close(s.ended)
	return nil
}

func (s sockets) Addr() net.Addr { return runtimeAddr{} }

// Start boots the hosts.
func (f *Fleet) Start() error {
	f.sockets = sockets{make(chan net.Conn), make(chan struct{})}
	f.runtimes = newRuntimes()
	go f.runtimes.Serve(f.sockets)
	signer, err := f.keys()
	if err != nil {
		return err
	}
	f.ssh = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(signer.PublicKey().Marshal()) {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	f.ssh.AddHostKey(signer)
	base := debian()
	var known, hosts strings.Builder
	for i := range f.Hosts {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		f.listeners = append(f.listeners, l)
		m := newMachine(i+1, base)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go f.serve(m, conn)
			}
		}()
		port := l.Addr().(*net.TCPAddr).Port
		fmt.Fprintf(&known, "[127.0.0.1]:%d %s", port, ssh.MarshalAuthorizedKey(signer.PublicKey()))
		role := "worker"
		if i == 0 {
			role = "control-plane"
		}
		fmt.Fprintf(&hosts, "  - {name: %s, roles: [%s], ssh: {address: 127.0.0.1, port: %d, user: root}}\n", m.name, role, port)
	}
	for name, content := range map[string]string{
		"known_hosts": known.String(), "cluster.yaml": document(hosts.String()),
		"ssh_config": fmt.Sprintf("Host *\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n", filepath.Join(f.Dir, "id"), filepath.Join(f.Dir, "known_hosts")),
	} {
		if err := os.WriteFile(filepath.Join(f.Dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keys makes one key, for the hosts and for the user.
func (f *Fleet) keys() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "id"), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

// asked tells of a question that has come over a line.
func (f *Fleet) asked(l *line, login int, host, format string, args ...any) {
	if trips := l.asked(); f.Asked != nil {
		f.Asked(host, trips-login, fmt.Sprintf(format, args...))
	}
}

func (f *Fleet) visited(v Visit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Visited != nil {
		f.Visited(v)
	}
}

// Stop takes no more connections.
func (f *Fleet) Stop() {
	for _, l := range f.listeners {
		l.Close()
	}
	f.runtimes.Stop()
}

// document is that of a cluster on the hosts.
func document(hosts string) string {
	return "apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\nmetadata: {name: fleet}\nspec:\n  provider: {name: hosts}\n  hosts:\n" + hosts
}
