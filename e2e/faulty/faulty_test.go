package faulty

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const filePath = "/example.com/v1/file"

// content is of 100000 bytes, no two of them in a row alike.
func content() []byte {
	b := make([]byte, 100_000)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func serve(t *testing.T, o Options) *Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, filepath.FromSlash(filePath))
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content(), 0o644)); err != nil {
		t.Fatal(err)
	}
	s, err := Serve(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// get returns what a plain client sees; err is of the body.
func get(t *testing.T, s *Server, path, ranged string) (*http.Response, []byte, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	if s.CA != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(s.CA)
		client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

func TestFaults(t *testing.T) {
	all := content()
	flipped := content()
	flipped[49_999] ^= 0xff
	for name, c := range map[string]struct {
		fault  Fault
		ranged string
		status int
		length int64 // as the server says it
		body   []byte
		broken bool // the client notices that the body ended too soon
		header map[string]string
	}{
		"none":                      {status: 200, length: 100_000, body: all},
		"none, with a range":        {ranged: "bytes=60000-", status: 206, length: 40_000, body: all[60_000:]},
		"cut":                       {fault: Fault{Cut: 12_345}, status: 200, length: 100_000, body: all[:12_345], broken: true},
		"cut, with a range":         {fault: Fault{Cut: 10}, ranged: "bytes=60000-", status: 206, length: 40_000, body: all[60_000:60_010], broken: true},
		"cut at once":               {fault: Fault{Cut: -1}, status: 200, length: 100_000, body: []byte{}, broken: true},
		"cut in the second piece":   {fault: Fault{Cut: 50_000, Trickle: 30_000}, status: 200, length: 100_000, body: all[:50_000], broken: true},
		"longer than it is":         {fault: Fault{AddLength: 5}, status: 200, length: 100_005, body: all, broken: true},
		"shorter than it is":        {fault: Fault{AddLength: -5}, status: 200, length: 99_995, body: all[:99_995]},
		"a range's length too":      {fault: Fault{AddLength: -5}, ranged: "bytes=60000-", status: 206, length: 39_995, body: all[60_000:99_995]},
		"a false length and a cut":  {fault: Fault{AddLength: 5, Cut: 10}, status: 200, length: 100_005, body: all[:10], broken: true},
		"another byte":              {fault: Fault{Flip: 50_000}, status: 200, length: 100_000, body: flipped},
		"another byte of the range": {fault: Fault{Flip: 50_000}, ranged: "bytes=49999-50000", status: 206, length: 2, body: flipped[49_999:50_001]},
		"another byte elsewhere":    {fault: Fault{Flip: 50_000}, ranged: "bytes=60000-", status: 206, length: 40_000, body: all[60_000:]},
		"no ranges":                 {fault: Fault{NoRange: true}, ranged: "bytes=60000-", status: 200, length: 100_000, body: all, header: map[string]string{"Accept-Ranges": "none"}},
		"slowly":                    {fault: Fault{Trickle: 30_000, Pause: time.Millisecond}, status: 200, length: 100_000, body: all},
		"not now": {fault: Fault{Status: 503, RetryAfter: 2 * time.Second}, status: 503, length: 20, body: []byte("Service Unavailable\n"),
			header: map[string]string{"Retry-After": "2"}},
		"elsewhere": {fault: Fault{Redirect: "/other"}, status: 302, length: 29, body: []byte("<a href=\"/other\">Found</a>.\n\n"),
			header: map[string]string{"Location": "/other"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{})
			s.Break(filePath, c.fault)
			resp, body, err := get(t, s, filePath, c.ranged)
			if resp.StatusCode != c.status || resp.ContentLength != c.length {
				t.Errorf("got status %d and %d bytes promised, not %d and %d", resp.StatusCode, resp.ContentLength, c.status, c.length)
			}
			if !bytes.Equal(body, c.body) {
				t.Errorf("got %d bytes, not the %d that should come", len(body), len(c.body))
			}
			if errors.Is(err, io.ErrUnexpectedEOF) != c.broken || !c.broken && err != nil {
				t.Errorf("got %v", err)
			}
			for k, v := range c.header {
				if resp.Header.Get(k) != v {
					t.Errorf("%s is %q", k, resp.Header.Get(k))
				}
			}
			s.Close() // waits until the request is noted
			r := s.Requests("")
			if len(r) != 1 || r[0].Path != filePath || r[0].Range != c.ranged || r[0].Status != c.status || r[0].Sent < int64(len(body)) {
				t.Errorf("noted %+v", r)
			}
		})
	}
}

func TestFaultsComeInTurnAndEnd(t *testing.T) {
	s := serve(t, Options{TLS: true})
	s.Break("", Fault{Times: 2, Status: 500}, Fault{Times: 1, Cut: 10})
	s.Break("/well")
	outcomes := func(path string, n int) string {
		var seen []string
		for range n {
			resp, _, err := get(t, s, path, "")
			seen = append(seen, resp.Status[:3])
			if err != nil {
				seen[len(seen)-1] += " cut"
			}
		}
		return strings.Join(seen, ", ")
	}
	if got := outcomes(filePath, 5); got != "500, 500, 200 cut, 200, 200" {
		t.Errorf("got %s", got)
	}
	if got := outcomes("/absent", 3); got != "500, 500, 404 cut" {
		t.Errorf("another path begins anew: got %s", got)
	}
	if got := outcomes("/well", 1); got != "404" {
		t.Errorf("a path with no faults of its own: got %s", got)
	}
	s.Break(filePath, Fault{Times: 1, Status: 503})
	if got := outcomes(filePath, 2); got != "503, 200" {
		t.Errorf("told again: got %s", got)
	}
	if n := len(s.Requests(filePath)); n != 7 {
		t.Errorf("%d requests", n)
	}
	if n := s.Sent("/well"); n != 19 { // 404 page not found
		t.Errorf("sent %d", n)
	}
}

func TestNothingAboveTheFolderIsServed(t *testing.T) {
	s := serve(t, Options{})
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.dir), "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/../secret", "/%2e%2e/secret", "/example.com", "/"} {
		if resp, body, _ := get(t, s, p, ""); resp.StatusCode != 404 {
			t.Errorf("%s: %d %s", p, resp.StatusCode, body)
		}
	}
}

func TestCloseEndsASlowAnswer(t *testing.T) {
	for name, f := range map[string]Fault{"honest": {}, "of a false length": {AddLength: 1}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{})
			f.Trickle, f.Pause = 10, time.Hour
			s.Break("", f)
			resp, err := http.Get(s.URL + filePath)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Error("the answer ended as if it were whole")
			}
			if n := s.Sent(""); n != 10 {
				t.Errorf("sent %d", n)
			}
		})
	}
}

func TestCloseEndsAnAnswerThatNobodyReads(t *testing.T) {
	s := serve(t, Options{})
	if err := os.Truncate(filepath.Join(s.dir, filepath.FromSlash(filePath)), 64<<20); err != nil { // more than sockets hold
		t.Fatal(err)
	}
	s.Break("", Fault{AddLength: 1})
	resp, err := http.Get(s.URL + filePath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.Close()
	if n := s.Sent(""); n >= 64<<20 {
		t.Errorf("sent %d", n)
	}
}
