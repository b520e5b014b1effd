package phases

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// checkExternalEtcd wants the files of an external etcd's client to be here, and every
// endpoint to answer with them.
func (t *Target) checkExternalEtcd(ctx context.Context) (out []Finding) {
	e := t.Cluster.Spec.Etcd.External
	if e == nil {
		return nil
	}
	add := func(name, format string, args ...any) {
		out = append(out, Finding{Name: name, Message: fmt.Sprintf(format, args...)})
	}
	config, err := t.externalEtcdTLS(ctx)
	if err != nil {
		add("ExternalEtcdClientCertificates", "external etcd: %v: put the right files there, or name others under spec.etcd.external", err)
		return out
	}
	client := &http.Client{Timeout: etcdCall, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return t.Host.Dial(ctx, network, addr)
		},
		TLSClientConfig:   config,
		DisableKeepAlives: true,
	}}
	for _, endpoint := range e.Endpoints {
		if err := answers(ctx, client, strings.TrimSuffix(endpoint, "/")+"/version"); err != nil {
			add("ExternalEtcdVersion", "etcd at %s does not answer: %v: start it, or take the endpoint out of spec.etcd.external", endpoint, err)
		}
	}
	return out
}

func answers(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "etcdserver") {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

func (t *Target) externalEtcdTLS(ctx context.Context) (*tls.Config, error) {
	e := t.Cluster.Spec.Etcd.External
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		ca, err := t.Host.ReadFile(ctx, e.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no PEM certificate", e.CAFile)
		}
	}
	if e.CertFile == "" {
		return config, nil
	}
	cert, err := t.Host.ReadFile(ctx, e.CertFile)
	key, keyErr := t.Host.ReadFile(ctx, e.KeyFile)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", e.CertFile, e.KeyFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
