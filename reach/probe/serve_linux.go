package probe

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long a sender waits. Of what is lost on a busy line, one is enough.
const (
	connecting = 2500 * time.Millisecond // the kernel sends a second time after one second
	lost       = 1200 * time.Millisecond
	sendAgain  = 250 * time.Millisecond
	atATime    = 64
)

// server is a host that listens.
type server struct {
	run, name string

	mu       sync.Mutex
	received map[Received]bool
	closers  []io.Closer
}

// Serve does tasks until there are no more, or its time is over.
func Serve(in io.Reader, out io.Writer) error {
	s := &server{received: map[Received]bool{}}
	defer s.close()
	limit := time.AfterFunc(time.Minute, func() { os.Exit(1) })
	defer limit.Stop()
	tasks, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var t Task
		if err := tasks.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if t.Seconds > 0 {
			limit.Reset(time.Duration(t.Seconds) * time.Second)
		}
		if err := answers.Encode(s.do(t)); err != nil {
			return err
		}
	}
}

func (s *server) do(t Task) (a Answer) {
	if t.Run != "" {
		s.run, s.name = t.Run, t.Name
		a.Interfaces = interfaces()
	}
	for _, p := range t.Listen {
		err := s.listen(t.Address, p)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			a.Taken = append(a.Taken, p)
		case err != nil:
			if a.Refused == nil {
				a.Refused = map[string]string{}
			}
			a.Refused[p.Network+"/"+strconv.Itoa(int(p.Number))] = err.Error()
		}
	}
	if len(t.Send) > 0 {
		a.Failed = s.sendAll(t.Send)
	}
	if t.Report {
		s.mu.Lock()
		defer s.mu.Unlock()
		for r := range s.received {
			a.Received = append(a.Received, r)
		}
	}
	return a
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.closers {
		c.Close()
	}
}

func (s *server) listen(address string, p Port) error {
	// An address that others know it by, and that none of its interfaces has: behind NAT.
	err := s.listenAt(address, p)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return s.listenAt("", p)
	}
	return err
}

func (s *server) listenAt(address string, p Port) error {
	at := net.JoinHostPort(address, strconv.Itoa(int(p.Number)))
	if p.Network == "udp" {
		c, err := net.ListenPacket("udp", at)
		if err == nil {
			s.closers = append(s.closers, c)
			go s.acknowledge(c, p)
		}
		return err
	}
	l, err := net.Listen("tcp", at)
	if err == nil {
		s.closers = append(s.closers, l)
		go accept(l)
	}
	return err
}

// accept leaves it to the other side to close: a reset may overtake the news that there is a connection.
func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(connecting))
			c.Read(make([]byte, 1))
		}()
	}
}

// A datagram is the word, the run, who sends it and its size, and as many zeros as make the size.
const word = "kubewright"

// headers are those of IP and UDP.
func headers(ip net.IP) int {
	if ip.To4() != nil {
		return 28
	}
	return 48
}

func (s *server) acknowledge(c net.PacketConn, p Port) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		head, _, _ := strings.Cut(string(b[:n]), "\n")
		f := strings.Fields(head)
		if len(f) != 4 || f[0] != word || f[1] != s.run {
			continue
		}
		size, _ := strconv.Atoi(f[3])
		s.mu.Lock()
		s.received[Received{f[2], p, size}] = true
		s.mu.Unlock()
		c.WriteTo([]byte(head+"\n"), from)
	}
}

func (s *server) sendAll(all []Send) (failed []Failed) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, atATime)
	for _, one := range all {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if one.Port.Network == "udp" {
				s.send(one)
				return
			}
			if err := connect(one); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, Failed{one.To, one.Port, why(err)})
			}
		})
	}
	wg.Wait()
	return failed
}

func connect(to Send) error {
	d := net.Dialer{Timeout: connecting}
	c, err := d.Dial("tcp", net.JoinHostPort(to.Address, strconv.Itoa(int(to.Port.Number))))
	if err != nil {
		return err
	}
	c.(*net.TCPConn).SetLinger(0) // no port is kept waiting
	return c.Close()
}

// why is an error of connecting in few words: the address is known.
func why(err error) string {
	var no syscall.Errno
	var slow net.Error
	switch {
	case errors.As(err, &no):
		return no.Error()
	case errors.As(err, &slow) && slow.Timeout():
		return "no answer"
	}
	return err.Error()
}

// send sends every size until it is acknowledged. What has come, the other side tells.
func (s *server) send(to Send) {
	d := net.Dialer{Control: whole}
	c, err := d.DialContext(context.Background(), "udp", net.JoinHostPort(to.Address, strconv.Itoa(int(to.Port.Number))))
	if err != nil {
		return
	}
	defer c.Close()
	over := time.Now().Add(lost)
	left := map[string]int{}
	for _, size := range to.Sizes {
		left[strings.Join([]string{word, s.run, s.name, strconv.Itoa(size)}, " ")] = size - headers(net.ParseIP(to.Address))
	}
	for len(left) > 0 && time.Now().Before(over) {
		for head, size := range left {
			b := append([]byte(head), '\n')
			c.Write(append(b, make([]byte, max(0, size-len(b)))...)) // refused, or too long for the interface: it does not arrive
		}
		c.SetReadDeadline(time.Now().Add(sendAgain))
		answer := make([]byte, 1<<10)
		for len(left) > 0 {
			n, err := c.Read(answer)
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) { // "connection refused": nobody listens yet, or a firewall says so
					time.Sleep(sendAgain)
				}
				break
			}
			delete(left, strings.TrimSuffix(string(answer[:n]), "\n"))
		}
	}
}

// whole forbids to fragment a packet, and to believe what the kernel knows of the way.
func whole(network, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER, syscall.IPV6_PMTUDISC_PROBE)
		} else {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_PROBE)
		}
	}); e != nil {
		return e
	}
	return err
}

func interfaces() (all []Interface) {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range list {
		addresses, _ := i.Addrs()
		one := Interface{Name: i.Name, MTU: i.MTU}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				one.Addresses = append(one.Addresses, n.IP.String())
			}
		}
		if len(one.Addresses) > 0 {
			all = append(all, one)
		}
	}
	return all
}
