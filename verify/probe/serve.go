package probe

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Who is the answer of GET /who.
type Who struct {
	Name   string // of the pod
	Source string // the caller's address, as the pod saw it
}

// transfer is what GET /zeros sends.
const transfer = 16 << 20

// States that serve has, by GET /is/STATE: 200 for yes, else 503. Each begins as yes, unless an
// argument of serve says otherwise: "ready=no,started=no".
type states struct {
	mu sync.Mutex
	no map[string]bool
}

func (s *states) set(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(one, "=")
		if value != "yes" && value != "no" {
			return fmt.Errorf("%q: write NAME=yes or NAME=no", one)
		}
		s.no[name] = value == "no"
	}
	return nil
}

// serve answers until it is told to end.
func serve(ctx context.Context, out Streams, begin string) error {
	s := &states{no: map[string]bool{}}
	if begin != "" {
		if err := s.set(begin); err != nil {
			return err
		}
	}
	listen := fmt.Sprintf(":%d", Port)
	stream, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	datagrams, err := net.ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(out.Out, "probe", os.Getenv("POD"))
	go sendBack(datagrams)
	server := &http.Server{Handler: s.handler(os.Getenv("POD")), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(stream) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		datagrams.Close()
		return server.Close()
	}
}

func (s *states) handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		source, _ := netip.ParseAddrPort(r.RemoteAddr)
		_ = json.NewEncoder(w).Encode(Who{name, source.Addr().Unmap().String()})
	})
	mux.HandleFunc("GET /zeros", func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 64<<10)
		for range transfer / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /is/{state}", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.no[r.PathValue("state")] {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("PUT /set/{text}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.set(r.PathValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	return mux
}

// listenLimit is how long serve may take from the start of its container until it listens, on a node that is busy.
const listenLimit = 30 * time.Second

// set changes a state of the serve in the same pod, as soon as that listens: a container runs before its program does.
func set(ctx context.Context, _ Streams, text string) (err error) {
	until(ctx, listenLimit, func(ctx context.Context) bool {
		err = put(ctx, text)
		return !errors.Is(err, syscall.ECONNREFUSED)
	})
	return err
}

func put(ctx context.Context, text string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("http://127.0.0.1:%d/set/%s", Port, text), nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s: %s", answer.Status, b)
	}
	return nil
}

// sendBack answers datagrams by their number, which are the first bytes, and the size that came.
func sendBack(c net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 8 {
			continue
		}
		_, _ = c.WriteTo(echoed(b[:n]), from)
	}
}

func echoed(datagram []byte) []byte {
	return binary.BigEndian.AppendUint32(slices.Clone(datagram[:8]), uint32(len(datagram)))
}
