package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Only who answers a client refuses it, or who says that there is no way: that pods cannot be asked at all does not show
// that etcd is closed.
func TestWhatIsARefusal(t *testing.T) {
	server := func(auth tls.ClientAuthType) *httptest.Server {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.TLS = &tls.Config{ClientAuth: auth}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	connected := func(s *httptest.Server) net.Conn {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	closed, far := net.Pipe()
	far.Close()
	silent, keeps := net.Pipe()
	defer keeps.Close()
	late, cancel := context.WithCancel(t.Context())
	cancel()
	says := func(said string, err error) func() (string, error) {
		return func() (string, error) { return said, err }
	}
	for name, c := range map[string]struct {
		ctx      context.Context
		conn     net.Conn
		ended    func() (string, error)
		how, err string
	}{
		"the server's own words":  {t.Context(), connected(server(tls.RequireAnyClientCert)), says("", nil), "tls: certificate required", ""},
		"an answer":               {t.Context(), connected(server(tls.NoClientCert)), says("", nil), "", "it was answered, and ought to be refused"},
		"no way":                  {t.Context(), closed, says("192.0.2.1:2379: connection refused", nil), "192.0.2.1:2379: connection refused", ""},
		"nobody runs the command": {t.Context(), closed, says("", errors.New("exec in pod-2 on w-2: the kubelet does not answer")), "", "the kubelet does not answer"},
		"nothing comes":           {late, silent, says("", nil), "", "no answer: context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.conn.Close()
			how, err := refusal(c.ctx, c.conn, c.ended, "192.0.2.1:2379", nil)
			wantError(t, err, c.err)
			if how != c.how {
				t.Errorf("refused by %q, want %q", how, c.how)
			}
		})
	}
}
