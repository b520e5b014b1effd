package pki

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
)

// Kubeconfigs are the kubeconfigs that the host lacks: for a control plane admin,
// controller-manager, scheduler and kubelet, and super-admin if withSuperAdmin, which only
// the host of `init` has. A worker gets kubelet.conf where the CA's key is at hand; without
// it the kubelet must bootstrap with a token.
//
// An *[UnsignedError] as of [Secrets.Certificates]: the kubeconfig is made once the signed
// certificate lies beside it (admin.conf.crt).
func (s *Secrets) Kubeconfigs(withSuperAdmin bool) ([]host.File, error) {
	files, err := s.kubeconfigs()
	if withSuperAdmin || err != nil && files == nil {
		return files, err
	}
	var rest []host.File
	for _, f := range files {
		if !strings.HasPrefix(f.Path, SuperAdminConf) {
			rest = append(rest, f)
		}
	}
	var unsigned *UnsignedError
	if errors.As(err, &unsigned) {
		var others UnsignedError
		for _, m := range unsigned.Missing {
			if !strings.HasPrefix(m.Certificate, SuperAdminConf) {
				others.Missing = append(others.Missing, m)
			}
		}
		return rest, others.orNil()
	}
	return rest, err
}

func (s *Secrets) makeKubeconfigs() ([]host.File, error) {
	var files []host.File
	var unsigned UnsignedError
	for _, sp := range table {
		if !on(sp, s.cluster, s.node) || !sp.isKubeconfig() {
			continue
		}
		if _, ok := s.onHost[sp.name]; ok {
			continue
		}
		if !s.controlPlane() && s.pairs[CA].key == nil {
			continue
		}
		conf, i, err := s.makeKubeconfig(sp, sp.server(s.cluster, s.node))
		if err != nil {
			return nil, err
		}
		if conf == nil {
			files = s.addMissing(files, sp.name+".key", i.key)
			files = s.addRequest(files, sp, i, &unsigned)
			continue
		}
		files = s.addMissing(files, sp.name, conf)
	}
	return files, unsigned.orNil()
}

// makeKubeconfig returns a kubeconfig or, where an external CA has to sign first, a key and a request.
func (s *Secrets) makeKubeconfig(sp spec, server string) ([]byte, issued, error) {
	if server == "" {
		return nil, issued{}, fmt.Errorf("make %s: no address of the control plane is known: set spec.controlPlane.endpoint", sp.name)
	}
	i := issued{key: s.have[sp.name+".key"], cert: s.have[sp.name+".crt"]}
	if i.cert == nil {
		var err error
		if i, err = s.issue(sp); err != nil || i.request != nil {
			return nil, i, err
		}
	}
	conf, err := Kubeconfig(s.cluster.Metadata.Name, server, sp.commonName(s.node), s.CACert(), i.cert, i.key)
	return conf, i, err
}

// ClientConfig is a kubeconfig for ourselves, allowed everything: as super-admin, signed
// for this run, where the CA's key is at hand, since kubeadm:cluster-admins have no rights
// before RBAC grants them; else with super-admin.conf or admin.conf of the host. On a
// control plane it points to the node's own API server, as a load balancer may not send
// traffic there before it is healthy.
func (s *Secrets) ClientConfig() ([]byte, error) { return s.clientConfig() }

func (s *Secrets) makeClientConfig() ([]byte, error) {
	return s.ClientConfigAt(kubeletURL(s.cluster, s.node))
}

// ClientConfigAt is ClientConfig for the API server at a URL: for a host that joins, before
// it has one of its own.
func (s *Secrets) ClientConfigAt(server string) ([]byte, error) {
	if s.pairs[CA].key != nil {
		for _, sp := range table {
			if sp.name == SuperAdminConf {
				conf, _, err := s.makeKubeconfig(sp, server)
				return conf, err
			}
		}
	}
	for _, path := range []string{SuperAdminConf, AdminConf} {
		b, ok := s.have[path]
		if !ok {
			continue
		}
		conf, err := clientcmd.Load(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		cluster, _, err := current(conf)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		cluster.Server = server
		return clientcmd.Write(*conf)
	}
	return nil, fmt.Errorf("nothing at hand that the API server would accept: neither %s.key, %s nor %s", CA, SuperAdminConf, AdminConf)
}

// Kubeconfig is a kubeconfig whose user shows a client certificate. All PEM.
func Kubeconfig(cluster, server, user string, ca, cert, key []byte) ([]byte, error) {
	return kubeconfig(cluster, server, user, ca, &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
}

// BootstrapKubeconfig is bootstrap-kubelet.conf: with it a kubelet asks for its first certificate.
func BootstrapKubeconfig(cluster, server string, ca []byte, token string) ([]byte, error) {
	return kubeconfig(cluster, server, "tls-bootstrap-token-user", ca, &clientcmdapi.AuthInfo{Token: token})
}

func kubeconfig(cluster, server, user string, ca []byte, auth *clientcmdapi.AuthInfo) ([]byte, error) {
	name := user + "@" + cluster
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: server, CertificateAuthorityData: ca}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: cluster, AuthInfo: user}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: auth},
		CurrentContext: name,
	})
}

// RotatedKubeletConf turns a kubelet.conf with its first certificate inside into one that
// points to [KubeletClientCurrent], which the kubelet replaces before it expires. For when
// that file exists. One that points there already comes back as it is.
func RotatedKubeletConf(conf []byte) ([]byte, error) {
	c, err := clientcmd.Load(conf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", KubeletConf, err)
	}
	_, auth, err := current(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", KubeletConf, err)
	}
	if auth.ClientCertificate == KubeletClientCurrent && auth.ClientKey == KubeletClientCurrent {
		return conf, nil
	}
	auth.ClientCertificateData, auth.ClientKeyData = nil, nil
	auth.ClientCertificate, auth.ClientKey = KubeletClientCurrent, KubeletClientCurrent
	return clientcmd.Write(*c)
}

// current returns the cluster and the user of the current context.
func current(c *clientcmdapi.Config) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	ctx := c.Contexts[c.CurrentContext]
	if ctx == nil || c.Clusters[ctx.Cluster] == nil || c.AuthInfos[ctx.AuthInfo] == nil {
		return nil, nil, fmt.Errorf("its current context %q names no cluster and user", c.CurrentContext)
	}
	return c.Clusters[ctx.Cluster], c.AuthInfos[ctx.AuthInfo], nil
}

// verifyKubeconfig checks that an existing kubeconfig is one for this cluster.
func (s *Secrets) verifyKubeconfig(sp spec, b []byte) error {
	var all *multierror.Error
	report := func(format string, args ...any) {
		all = multierror.Append(all, fmt.Errorf("%s %w: restore the right file, or remove it and it is made", sp.name, fmt.Errorf(format, args...)))
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		report("is not a kubeconfig (%w)", err)
		return config.Errors(all)
	}
	cluster, auth, err := current(conf)
	if err != nil {
		report("is of no use: %w", err)
		return config.Errors(all)
	}
	if err := s.verifyTrust(cluster); err != nil {
		report("%w", err)
	}
	// Both addresses lead to this cluster, and kubeadm has changed its mind about which goes
	// where (kubelet.conf of a control plane, last). Warnings tells which is wanted.
	wanted, local := sp.server(s.cluster, s.node), LocalURL(s.cluster, s.node)
	if wanted != "" && cluster.Server != wanted && cluster.Server != ControlPlaneURL(s.cluster, s.node) && !(s.controlPlane() && cluster.Server == local) {
		report("points to %s, but this cluster is at %s", cluster.Server, wanted)
	}
	if len(auth.ClientCertificateData) == 0 {
		return config.Errors(all) // a token, or the certificate that the kubelet rotates
	}
	certs, err := certutil.ParseCertsPEM(auth.ClientCertificateData)
	if err != nil {
		report("holds no PEM certificate (%w)", err)
		return config.Errors(all)
	}
	key, err := parseKey(auth.ClientKeyData)
	switch {
	case err != nil:
		report("holds no key: %w", err)
	case !samePublicKey(certs[0].PublicKey, key.Public()):
		report("holds a key that is not its certificate's")
	case !s.signed(sp, certs):
		report("holds a certificate that is not signed by %s.crt (issuer %q, CA %q)", sp.parent, certs[0].Issuer, s.pairs[sp.parent].certs[0].Subject)
	}
	return config.Errors(all)
}

// verifyTrust checks that a kubeconfig trusts one of the CAs in ca.crt.
func (s *Secrets) verifyTrust(cluster *clientcmdapi.Cluster) error {
	trusted := cluster.CertificateAuthorityData
	if len(trusted) == 0 {
		if cluster.CertificateAuthority != CA+".crt" {
			return fmt.Errorf("has its CA in %q, where it cannot be checked (%s.crt could be)", cluster.CertificateAuthority, CA)
		}
		return nil
	}
	certs, err := certutil.ParseCertsPEM(trusted)
	if err != nil {
		return fmt.Errorf("holds no PEM certificate of a CA (%w)", err)
	}
	for _, c := range certs {
		if slices.ContainsFunc(s.pairs[CA].certs, c.Equal) {
			return nil
		}
	}
	return fmt.Errorf("trusts the CA %s, but this cluster's is %s", Pin(certs[0]), strings.Join(s.CAHashes(), " or "))
}
