package fleet

import (
	"net"
	"sync"
	"time"
)

// line is the server's end of a long connection: what is sent arrives a while later, as much as
// one likes at a time.
//
// It also counts how many round trips the client has waited for, one after the other, whatever
// else took its time. Each end has a clock that counts them. What is sent has the sender's time;
// who receives it is at least as late, and the client one later. After the login the server's
// clock moves only where it is asked something: that a channel is closed, nobody waits for.
type line struct {
	net.Conn
	in, out *queue

	mu             sync.Mutex
	client, server int
	heard          int // the latest time of what has come
	loggedIn       bool
	gone           bool // the client: it waits for nothing any more
}

func newLine(conn net.Conn, delay time.Duration) *line {
	l := &line{Conn: conn, in: newQueue(delay), out: newQueue(delay)}
	go l.receive()
	go l.send()
	return l
}

// trips are those that the client has waited for so far.
func (l *line) trips() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

// asked tells that what has come is waited for, and how many round trips came before it.
func (l *line) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = l.heard
	return l.server
}

func (l *line) waited() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.server
}

// login ends the login, and tells how many it took: the word that all was well is on its way.
func (l *line) login() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loggedIn = true
	return l.server + 1
}

func (l *line) receive() {
	for {
		b := make([]byte, 4<<10)
		n, err := l.Conn.Read(b)
		l.mu.Lock()
		sent := l.client
		l.mu.Unlock()
		if n > 0 {
			l.in.push(packet{bytes: b[:n], sent: sent})
		}
		if err != nil {
			l.mu.Lock()
			l.gone = true
			l.mu.Unlock()
			l.in.end(err)
			return
		}
	}
}

func (l *line) send() {
	for {
		p, err := l.out.pop()
		if err != nil {
			l.Conn.Close()
			return
		}
		l.mu.Lock()
		if !l.gone {
			l.client = max(l.client, p.sent+1)
		}
		l.mu.Unlock()
		if _, err := l.Conn.Write(p.bytes); err != nil {
			l.out.end(err)
		}
	}
}

func (l *line) Read(b []byte) (int, error) {
	p, err := l.in.peek()
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.heard = max(l.heard, p.sent)
	if !l.loggedIn {
		l.server = l.heard
	}
	l.mu.Unlock()
	n := copy(b, p.bytes)
	l.in.drop(n)
	return n, nil
}

func (l *line) Write(b []byte) (int, error) {
	l.mu.Lock()
	sent := l.server
	l.mu.Unlock()
	return len(b), l.out.push(packet{bytes: append([]byte(nil), b...), sent: sent})
}

// Close lets what was sent arrive.
func (l *line) Close() error {
	l.in.end(net.ErrClosed)
	l.out.end(net.ErrClosed)
	return nil
}

// packet is on its way.
type packet struct {
	bytes []byte
	due   time.Time
	sent  int // the sender's clock
}

// queue is one direction.
type queue struct {
	delay   time.Duration
	mu      sync.Mutex
	changed sync.Cond
	packets []packet
	err     error // comes after them
}

func newQueue(delay time.Duration) *queue {
	q := &queue{delay: delay}
	q.changed.L = &q.mu
	return q
}

func (q *queue) push(p packet) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	p.due = time.Now().Add(q.delay)
	q.packets = append(q.packets, p)
	q.changed.Signal()
	return nil
}

func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	q.changed.Signal()
}

// peek waits for the next packet to arrive.
func (q *queue) peek() (packet, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.packets) == 0 {
		if q.err != nil {
			return packet{}, q.err
		}
		q.changed.Wait()
	}
	p := q.packets[0]
	if left := time.Until(p.due); left > 0 {
		q.mu.Unlock()
		time.Sleep(left)
		q.mu.Lock()
	}
	return p, nil
}

// drop takes bytes of the packet that peek has shown.
func (q *queue) drop(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := &q.packets[0]; n < len(p.bytes) {
		p.bytes = p.bytes[n:]
		return
	}
	q.packets = q.packets[1:]
	if len(q.packets) == 0 {
		q.packets = nil
	}
}

func (q *queue) pop() (packet, error) {
	p, err := q.peek()
	if err == nil {
		q.drop(len(p.bytes))
	}
	return p, err
}
