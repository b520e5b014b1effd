package servers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry is an image registry with TLS and a password.
type Registry struct {
	*process
	Address        string // host:port
	CA             []byte // that signed its certificate, PEM
	User, Password string
}

// StartRegistry runs the binary of github.com/distribution/distribution (the lab's Binary "registry") with an empty
// storage, and waits until it answers. It listens at the address, 127.0.0.1:0 say; port 0 is a free one. For hosts
// of a lab, and through a proxy, take the address of [Reachable].
func StartRegistry(ctx context.Context, binary, address string) (*Registry, error) {
	p, err := newProcess("registry")
	if err != nil {
		return nil, err
	}
	r := &Registry{process: p, User: "tester", Password: rand.Text()}
	if err := r.start(ctx, binary, address); err != nil {
		return nil, fmt.Errorf("start a registry: %w", errors.Join(err, r.Close()))
	}
	return r, nil
}

func (r *Registry) start(ctx context.Context, binary, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	cert, err := NewCertificate(host)
	if err != nil {
		return err
	}
	r.CA = cert.CA
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost) // each request pays for it
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{ // YAML as well
		"version": "0.1",
		"log":     map[string]any{"level": "info"},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": r.file("storage")}, "delete": map[string]any{"enabled": true}},
		"http": map[string]any{"addr": address, "secret": rand.Text(),
			"tls": map[string]any{"certificate": r.file("cert.pem"), "key": r.file("key.pem")}},
		"auth": map[string]any{"htpasswd": map[string]any{"realm": "test", "path": r.file("htpasswd")}},
	})
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"config.yml": string(config), "htpasswd": r.User + ":" + string(hash) + "\n",
		"cert.pem": string(cert.Cert), "key.pem": string(cert.Key),
	} {
		if err := r.write(name, content); err != nil {
			return err
		}
	}
	client := &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: cert.Pool()}}}
	return r.run(ctx, func() error { return r.answers(client) }, binary, "serve", r.file("config.yml"))
}

var listening = regexp.MustCompile(`listening on (\S+), tls`)

// answers finds the port in the log, and asks there.
func (r *Registry) answers(client *http.Client) error {
	m := listening.FindStringSubmatch(r.Log())
	if m == nil {
		return errors.New("it does not listen")
	}
	r.Address = m[1]
	req, err := http.NewRequest(http.MethodGet, "https://"+r.Address+"/v2/", nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(r.User, r.Password)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/v2/ answers %s", resp.Status)
	}
	return nil
}

// DockerConfig is a Docker config.json with the password.
func (r *Registry) DockerConfig() []byte {
	b, err := json.Marshal(map[string]any{"auths": map[string]any{
		// JSON has bytes in base64, as Docker has them.
		r.Address: map[string]any{"auth": []byte(r.User + ":" + r.Password)}}})
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}
