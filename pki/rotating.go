package pki

import (
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/cloudflare/cfssl/csr"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"

	"github.com/kubewright/kubewright/host"
)

// RotatingKubelet turns a kubelet.conf with its certificate inside into the form in which
// a kubelet leaves it after its first rotation: the certificate in a file of its own,
// behind the link that rotation moves. So kubelet.conf is final the first time, and the
// kubelet need not ask for another certificate as soon as it starts.
func RotatingKubelet(conf host.File, now time.Time) ([]host.File, error) {
	r, err := conf.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	c, err := clientcmd.Load(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conf.Path, err)
	}
	_, auth, err := current(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", conf.Path, err)
	}
	rotated, err := RotatedKubeletConf(b)
	if err != nil {
		return nil, err
	}
	// The name that client-go's certificate store gives its files.
	cert := path.Join(kubeletDir, "kubelet-client-"+now.Format("2006-01-02-15-04-05")+".pem")
	conf.Content = host.Bytes(rotated)
	return []host.File{
		{Path: cert, Mode: 0o600, Secret: true, Content: host.Bytes(slices.Concat(auth.ClientCertificateData, auth.ClientKeyData))},
		{Path: KubeletClientCurrent, Link: cert},
		conf,
	}, nil
}

// KubeletRequest makes a new key for a node's kubelet and the request with which the
// cluster's controller manager signs it a client certificate. As the kubelet's own,
// always ECDSA P-256.
func KubeletRequest(node string) (key, request []byte, err error) {
	quiet()
	request, key, err = csr.ParseRequest(&csr.CertificateRequest{
		CN: "system:node:" + node, Names: []csr.Name{{O: "system:nodes"}}, KeyRequest: &csr.KeyRequest{A: "ecdsa", S: 256},
	})
	return key, request, err
}

// BootstrappedKubelet are the files of a kubelet whose request was signed, kubelet.conf last.
func BootstrappedKubelet(cluster, server, node string, ca, cert, key []byte, now time.Time) ([]host.File, error) {
	conf, err := Kubeconfig(cluster, server, "system:node:"+node, ca, cert, key)
	if err != nil {
		return nil, err
	}
	return RotatingKubelet(host.File{Path: KubeletConf, Mode: 0o600, Secret: true, Content: host.Bytes(conf)}, now)
}

// ExternalCA tells that the cluster's CA signs elsewhere: its key is not on this host.
func (s *Secrets) ExternalCA() bool { return s.pairs[CA].key == nil }

// Pins are the pins of every certificate of a bundle (PEM).
func Pins(bundle []byte) ([]string, error) {
	certs, err := certutil.ParseCertsPEM(bundle)
	if err != nil {
		return nil, err
	}
	var pins []string
	for _, c := range certs {
		pins = append(pins, Pin(c))
	}
	return pins, nil
}
