package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// EtcdClient is how etcd knows us: the health check's client certificate of this host, or
// one signed for this run where the host has none yet.
func (s *Secrets) EtcdClient() (*tls.Config, error) {
	i := issued{key: s.have[EtcdHealthcheckClient+".key"], cert: s.have[EtcdHealthcheckClient+".crt"]}
	if i.cert == nil {
		for _, sp := range table {
			if sp.name != EtcdHealthcheckClient {
				continue
			}
			var err error
			if i, err = s.issue(sp); err != nil {
				return nil, err
			}
		}
	}
	if i.cert == nil {
		return nil, fmt.Errorf("no certificate that etcd would accept: neither %s.crt nor %s.key is at hand", EtcdHealthcheckClient, EtcdCA)
	}
	pair, err := tls.X509KeyPair(i.cert, i.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EtcdHealthcheckClient, err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(s.have[EtcdCA+".crt"]) {
		return nil, fmt.Errorf("%s.crt holds no certificate", EtcdCA)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: trusted, MinVersion: tls.VersionTLS12}, nil
}
