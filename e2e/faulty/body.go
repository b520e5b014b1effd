package faulty

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// body sends an answer, with what is wrong with it.
type body struct {
	http.ResponseWriter
	server  *Server
	note    *Request
	fault   Fault
	request *http.Request

	// Of a server that lies about the length, whose answer net/http would not send.
	conn net.Conn
	raw  *bufio.Writer
}

func (b *body) WriteHeader(status int) {
	b.server.mu.Lock()
	b.note.Status = status
	b.server.mu.Unlock()
	if b.fault.NoRange {
		b.Header().Set("Accept-Ranges", "none")
	}
	length, err := strconv.ParseInt(b.Header().Get("Content-Length"), 10, 64)
	if b.fault.AddLength == 0 || err != nil {
		b.ResponseWriter.WriteHeader(status)
		return
	}
	conn, rw, err := http.NewResponseController(b.ResponseWriter).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 has it, and there is no other here
	}
	b.conn, b.raw = conn, rw.Writer
	context.AfterFunc(b.request.Context(), func() { conn.Close() }) // net/http forgets it
	b.Header().Set("Content-Length", strconv.FormatInt(max(length+b.fault.AddLength, 0), 10))
	b.Header().Set("Connection", "close")
	fmt.Fprintf(b.raw, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	b.Header().Write(b.raw)
	b.raw.WriteString("\r\n")
}

func (b *body) Write(p []byte) (n int, err error) {
	if b.note.Status == 0 {
		b.WriteHeader(http.StatusOK)
	}
	for n < len(p) && err == nil {
		piece := p[n:]
		if t := b.fault.Trickle; t > 0 && len(piece) > t {
			piece = piece[:t]
		}
		if b.fault.Cut != 0 {
			left := max(b.fault.Cut, 0) - b.note.Sent
			if left <= 0 {
				b.cut()
			}
			piece = piece[:min(int64(len(piece)), left)]
		}
		var m int
		if b.raw != nil {
			m, err = b.raw.Write(piece)
		} else {
			m, err = b.ResponseWriter.Write(piece)
		}
		n += m
		b.server.mu.Lock()
		b.note.Sent += int64(m)
		b.server.mu.Unlock()
		if err == nil && b.fault.Trickle > 0 {
			err = b.pause()
		}
	}
	return n, err
}

// pause lets what was written go, and waits.
func (b *body) pause() error {
	if b.raw != nil {
		if err := b.raw.Flush(); err != nil {
			return err
		}
	} else if err := http.NewResponseController(b.ResponseWriter).Flush(); err != nil {
		return err
	}
	select {
	case <-b.request.Context().Done():
		return b.request.Context().Err()
	case <-time.After(b.fault.Pause):
		return nil
	}
}

// cut ends the connection where it is; what was written still arrives.
func (b *body) cut() {
	if b.raw == nil {
		http.NewResponseController(b.ResponseWriter).Flush() // the head too, of an answer without body
	}
	b.end()
	panic(http.ErrAbortHandler)
}

// end sends the rest of an answer that is not net/http's.
func (b *body) end() {
	if b.conn != nil {
		b.raw.Flush()
		b.conn.Close()
		b.conn = nil
	}
}
