package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// prober asks everything ten times a second whether it is up, and counts who is not.
type prober struct {
	stop context.CancelFunc
	gone sync.WaitGroup

	mu    sync.Mutex
	kinds map[string]*probed
}

// probed are things of one kind, one of which may be down at a time.
type probed struct {
	down  map[string]error // by host, as of the last look
	fell  map[string]int   // how often
	looks int
	bad   []string // two at once
}

// prober begins to ask API servers whether they are ready, members of etcd whether they serve, kubelets whether they listen.
func (f *fleet) prober(t *testing.T) *prober {
	t.Helper()
	ctx, stop := context.WithCancel(f.ctx)
	t.Cleanup(stop)
	p := &prober{stop: stop, kinds: map[string]*probed{}}
	pki := "/etc/kubernetes/pki/etcd/healthcheck-client"
	pair, err := tls.X509KeyPair([]byte(run(f.ctx, t, f.planes[0], "cat", pki+".crt")), []byte(run(f.ctx, t, f.planes[0], "cat", pki+".key")))
	if err != nil {
		t.Fatal(err)
	}
	// Who they are is not what is asked here.
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}}
	for _, h := range f.planes {
		p.ask(ctx, "API servers", h.Name, func() error { return get(ctx, client, "https://"+h.IP+":6443/readyz", "ok") })
		p.ask(ctx, "members of etcd", h.Name, func() error {
			return get(ctx, client, "https://"+h.IP+":2379/health?serializable=true", `"health":"true"`)
		})
	}
	for _, h := range append(f.planes[:len(f.planes):len(f.planes)], f.workers...) {
		p.ask(ctx, "kubelets", h.Name, func() error {
			conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(h.IP, "10250"))
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
	return p
}

func get(ctx context.Context, client *http.Client, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := client.Do(request)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != http.StatusOK || !strings.Contains(string(b), want)) {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	return err
}

func (p *prober) ask(ctx context.Context, kind, name string, look func() error) {
	if p.kinds[kind] == nil {
		p.kinds[kind] = &probed{down: map[string]error{}, fell: map[string]int{}}
	}
	k := p.kinds[kind]
	p.gone.Go(func() {
		for ; ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
			err := look()
			if ctx.Err() != nil {
				return
			}
			p.mu.Lock()
			k.saw(name, err)
			p.mu.Unlock()
		}
	})
}

func (k *probed) saw(name string, err error) {
	k.looks++
	was := k.down[name]
	if delete(k.down, name); err == nil {
		return
	}
	if k.down[name] = err; was != nil {
		return
	}
	if k.fell[name]++; len(k.down) > 1 {
		k.bad = append(k.bad, fmt.Sprintf("%s: %v", time.Now().Format("15:04:05.0"), k.down))
	}
}

// end wants each to have been down, and never two of a kind at a time.
func (p *prober) end(t *testing.T) {
	t.Helper()
	p.stop()
	p.gone.Wait()
	for kind, k := range p.kinds {
		t.Logf("%s: %d looks, down so often: %v", kind, k.looks, k.fell)
		for _, bad := range k.bad {
			t.Errorf("two %s were down at %s", kind, bad)
		}
	}
}
