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
	return etcdClient(i.cert, i.key, s.have[EtcdCA+".crt"])
}

// EtcdClientOf is EtcdClient of what a control plane has, by path.
func EtcdClientOf(existing map[string][]byte) (*tls.Config, error) {
	return etcdClient(existing[EtcdHealthcheckClient+".crt"], existing[EtcdHealthcheckClient+".key"], existing[EtcdCA+".crt"])
}

func etcdClient(cert, key, ca []byte) (*tls.Config, error) {
	if cert == nil {
		return nil, fmt.Errorf("no certificate that etcd would accept: neither %s.crt nor %s.key is at hand", EtcdHealthcheckClient, EtcdCA)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EtcdHealthcheckClient, err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s.crt holds no certificate", EtcdCA)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: trusted, MinVersion: tls.VersionTLS12}, nil
}
