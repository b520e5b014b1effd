// Package faulty is a file server that goes wrong as it is told. In go a folder and faults;
// out come the answers of a real HTTP server, and what was asked of it. It is imported by tests alone.
//
// Without faults it is a well-kept server, with ranges and modification times: over the folder files of the lab's
// Upstream, a mirror of upstream.
package faulty

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/kubewright/kubewright/e2e/servers"
)

// Fault is what goes wrong with a request. Its fields can be combined; the zero value is no fault.
type Fault struct {
	Times int // so many requests for a path, then it is as if the fault were not there; 0: all requests

	Status     int           // answer with this and no file: 503, say
	RetryAfter time.Duration // with Status; whole seconds
	Redirect   string        // answer with 302 and this location

	NoRange   bool  // answer with the whole file whatever range is asked for
	Cut       int64 // cut the connection after so many bytes of the body; 0: do not, -1: before the first
	AddLength int64 // say that the body has so many bytes more than it has; fewer, if below 0
	Flip      int64 // change the byte at this offset of the file, counted from 1; 0: none

	// Trickle sends so many bytes at a time and pauses in between: file size / Trickle * Pause is what
	// a download takes. It ends when the client or the server goes.
	Trickle int
	Pause   time.Duration
}

// Request is one that the server has answered, or is answering.
type Request struct {
	Method, Path string
	Range        string // its header, bytes=100-
	Status       int    // of the answer
	Sent         int64  // bytes of the body that the connection took
}

// Options of a server. The zero value is HTTP on a free port of 127.0.0.1.
type Options struct {
	Address string // host:port; servers.Reachable for what lab hosts or a proxy have to reach
	TLS     bool   // with a certificate of a CA of its own
}

// Server serves a folder.
type Server struct {
	URL string // http://127.0.0.1:4711, without a slash at its end
	CA  []byte // that signed its certificate, PEM

	dir  string
	http *http.Server
	done chan struct{} // closed when it serves no more

	mu       sync.Mutex
	faults   map[string][]Fault // by path; "" is that of all paths without their own
	hits     map[string]int     // requests so far, by path
	requests []*Request
	active   sync.WaitGroup
}

// Serve starts a server over the files below dir. End it with Close.
func Serve(dir string, o Options) (*Server, error) {
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + l.Addr().String(), dir: dir, done: make(chan struct{}),
		faults: map[string][]Fault{}, hits: map[string]int{}}
	if o.TLS {
		host, _, _ := net.SplitHostPort(l.Addr().String()) // it has one
		c, err := servers.NewCertificate(host)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, err
		}
		s.URL, s.CA = "https://"+l.Addr().String(), c.CA
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: log.New(io.Discard, "", 0)} // clients that do not trust it are a test's own affair
	go func() {
		defer close(s.done)
		defer cancel()
		s.http.Serve(l) // returns when Close is called
	}()
	return s, nil
}

// Close ends the server at once, in the middle of whatever it sends.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	s.active.Wait()
	return err
}

// Break has requests for a path (/dl.k8s.io/release/...) go wrong; the empty path stands for each path that has no
// faults of its own. Several faults come one after the other, each for its Times. No fault makes the path well again.
func (s *Server) Break(path string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[path] = faults
	for p := range s.hits {
		if _, own := s.faults[p]; p == path || path == "" && !own {
			delete(s.hits, p)
		}
	}
}

// Requests are all so far, in the order in which they came; of one path, if it is not empty.
func (s *Server) Requests(path string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Request
	for _, r := range s.requests {
		if path == "" || r.Path == path {
			all = append(all, *r)
		}
	}
	return all
}

// Sent is the number of bytes of bodies so far; of one path, if it is not empty.
func (s *Server) Sent(path string) (n int64) {
	for _, r := range s.Requests(path) {
		n += r.Sent
	}
	return n
}

// begin notes a request and says what goes wrong with it.
func (s *Server) begin(r *http.Request) (*Request, Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	note := &Request{Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range")}
	s.requests = append(s.requests, note)
	hit := s.hits[r.URL.Path]
	s.hits[r.URL.Path]++
	faults, own := s.faults[r.URL.Path]
	if !own {
		faults = s.faults[""]
	}
	for _, f := range faults {
		if f.Times == 0 || hit < f.Times {
			return note, f
		}
		hit -= f.Times
	}
	return note, Fault{}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.active.Add(1)
	defer s.active.Done()
	note, f := s.begin(r)
	b := &body{ResponseWriter: w, server: s, note: note, fault: f, request: r}
	switch {
	case f.Status != 0:
		if f.RetryAfter > 0 {
			b.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
		}
		http.Error(b, http.StatusText(f.Status), f.Status)
	case f.Redirect != "":
		http.Redirect(b, r, f.Redirect, http.StatusFound)
	default:
		s.file(b, r, f)
	}
	b.end()
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, f Fault) {
	// Clean with a slash before it: nothing above the folder.
	file, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(path.Clean("/"+r.URL.Path))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.IsDir() {
		http.NotFound(w, r)
		return
	}
	if f.NoRange {
		r.Header.Del("Range")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	// Resuming needs to know that the file is still the same.
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	http.ServeContent(w, r, "", info.ModTime(), &flipped{file: file, at: f.Flip - 1})
}

// flipped is a file of which one byte is another.
type flipped struct {
	file    *os.File
	at, pos int64 // at is below 0 for none
}

func (f *flipped) Seek(offset int64, whence int) (int64, error) {
	var err error
	f.pos, err = f.file.Seek(offset, whence)
	return f.pos, err
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	if i := f.at - f.pos; f.at >= 0 && i >= 0 && i < int64(n) {
		p[i] ^= 0xff
	}
	f.pos += int64(n)
	return n, err
}
