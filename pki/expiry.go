package pki

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"

	"github.com/kubewright/kubewright/config"
)

// expiresSoon is when an expiry is worth a warning: a month's notice.
const expiresSoon = 30 * 24 * time.Hour

// Problems are certificates that exist and that nobody will accept now: expired, or not
// valid yet. Each with what to do; nil if there are none.
func (s *Secrets) Problems() error {
	var all *multierror.Error
	for _, f := range s.found() {
		switch {
		case s.now.After(f.cert.NotAfter):
			all = multierror.Append(all, fmt.Errorf("%s: the certificate expired on %s: %s", f.file(), day(f.cert.NotAfter), s.renewal(f.spec)))
		case s.now.Before(f.cert.NotBefore):
			all = multierror.Append(all, fmt.Errorf("%s: the certificate is not valid before %s, and here it is %s: set the clock right",
				f.file(), f.cert.NotBefore.UTC().Format(time.RFC3339), s.now.Format(time.RFC3339)))
		}
	}
	return config.Errors(all)
}

// Warnings are about what exists and works, but not for long, or not as the document
// says. Each with what to do.
func (s *Secrets) Warnings() []string {
	var all []string
	for _, f := range s.found() {
		if left := f.cert.NotAfter.Sub(s.now); left >= 0 && left < expiresSoon {
			all = append(all, fmt.Sprintf("%s: the certificate expires on %s: %s", f.file(), day(f.cert.NotAfter), s.renewal(f.spec)))
		}
		if f.server != "" && f.spec.server(s.cluster, s.node) != f.server {
			all = append(all, fmt.Sprintf("%s: points to %s and not to %s: %s", f.file(), f.server, f.spec.server(s.cluster, s.node), s.renewal(f.spec)))
		}
		if f.name == KubeletServing && !s.signed(f.spec, []*x509.Certificate{f.cert}) {
			continue // made by the kubelet, which knows no other names
		}
		var missing []string
		for _, h := range f.hosts(s.cluster, s.node) {
			if f.cert.VerifyHostname(h) != nil {
				missing = append(missing, h)
			}
		}
		if missing != nil {
			all = append(all, fmt.Sprintf("%s: the certificate is not valid for %s: %s", f.file(), strings.Join(missing, ", "), s.renewal(f.spec)))
		}
	}
	return all
}

// found is a certificate that exists.
type found struct {
	spec
	cert   *x509.Certificate
	server string // of a kubeconfig: where it points to
}

func (s *Secrets) found() []found {
	var all []found
	for _, sp := range table {
		if b, ok := s.have[sp.name]; ok && on(sp, s.cluster, s.node) && sp.isKubeconfig() {
			conf, err := clientcmd.Load(b)
			if err != nil {
				continue // an error of New
			}
			cluster, auth, err := current(conf)
			if err != nil {
				continue
			}
			certs, err := certutil.ParseCertsPEM(auth.ClientCertificateData)
			if err == nil {
				all = append(all, found{sp, certs[0], cluster.Server})
			}
		} else if certs := s.pairs[sp.name].certs; certs != nil {
			all = append(all, found{sp, certs[0], ""})
		}
	}
	return all
}

// renewal says how to replace a certificate.
func (s *Secrets) renewal(sp spec) string {
	switch {
	case sp.isCA():
		return "roll out a new CA, see https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/"
	case sp.name == KubeletServing:
		return fmt.Sprintf("remove it and %s.key and restart the kubelet, which makes another", sp.name)
	case s.pairs[sp.parent].key == nil:
		return fmt.Sprintf("have another one signed by the CA of %s.crt", sp.parent)
	case sp.isKubeconfig():
		return "remove it and run again, and it is made anew"
	}
	return "remove it and run again, and it is made anew from its key"
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
