package phases

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// byFile finds the cluster that a kubeconfig names, whose word is the trust: the server must
// show a certificate of its CA. It returns the kubeconfig for the requests of the join.
func (d *Discovery) byFile(ctx context.Context, h host.Host, o DiscoverOptions) ([]byte, error) {
	c, auth, err := o.named()
	if err != nil {
		return nil, err
	}
	conf, err := single(c, auth)
	if err != nil {
		return nil, err
	}
	client, err := NewClient(h, conf)
	if err != nil {
		return nil, err
	}
	d.Server, d.CA = c.Server, c.CertificateAuthorityData
	waiting := o.Waiting
	err = untilFinal(ctx, o.Timeout, "cluster at "+d.Server, func(ctx context.Context) error {
		info, err := client.Get(ctx, ref("v1", "ConfigMap", "kube-public", bootstrapapi.ConfigMapClusterInfo))
		var untrusted *tls.CertificateVerificationError
		switch {
		case errors.As(err, &untrusted):
			return finalError{fmt.Errorf("%s is not the cluster of the discovery file, by whose CA its certificate should be: %w", d.Server, err)}
		case apierrors.IsUnauthorized(err):
			return finalError{fmt.Errorf("%s does not accept the credentials of the discovery file: %w", d.Server, err)}
		case apierrors.IsForbidden(err) && len(d.CA) > 0:
			return nil // closed to strangers; its certificate was the right one
		case apierrors.IsForbidden(err):
			return finalError{fmt.Errorf("the discovery file has no certificate-authority-data, and %s keeps its own to itself: %w", d.Server, err)}
		case err != nil:
			if waiting != nil {
				waiting(err)
				waiting = nil
			}
			return err
		}
		if len(d.CA) == 0 {
			d.CA, err = authorityOf(info)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if o.TLSToken != (addons.Token{}) {
		return pki.BootstrapKubeconfig("kubernetes", d.Server, d.CA, o.TLSToken.Reveal())
	}
	return conf, nil
}

// Check finds what is wrong with a discovery file before anything is done with it.
func (o DiscoverOptions) Check() error {
	if o.Kubeconfig == nil {
		return nil
	}
	_, _, err := o.named()
	return err
}

func (o DiscoverOptions) named() (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	c, auth, err := named(o.Kubeconfig)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("the discovery file %w", err)
	case o.TLSToken == (addons.Token{}) && !canLogIn(auth):
		return nil, nil, errors.New("the discovery file holds no credentials: give the token with which this host may join, --tls-bootstrap-token (or --token, --token-file); make one on a control plane with `kubewright token create`")
	}
	return c, auth, nil
}

// named is the cluster that a kubeconfig means: that of its context, else the only one.
func named(kubeconfig []byte) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	k, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("is no kubeconfig: %w", err)
	}
	var c *clientcmdapi.Cluster
	auth := &clientcmdapi.AuthInfo{}
	if context := k.Contexts[k.CurrentContext]; context != nil {
		c = k.Clusters[context.Cluster]
		if a := k.AuthInfos[context.AuthInfo]; a != nil {
			auth = a
		}
	} else if len(k.Clusters) == 1 {
		for _, only := range k.Clusters {
			c = only
		}
	}
	switch {
	case c == nil:
		return nil, nil, errors.New("does not say which cluster is meant: it needs one cluster, or a current-context")
	case !strings.HasPrefix(c.Server, "https://"):
		return nil, nil, fmt.Errorf("names the server %q: it must begin with https://", c.Server)
	case c.InsecureSkipTLSVerify:
		return nil, nil, errors.New("has insecure-skip-tls-verify, with which anybody can pose as the cluster: write certificate-authority-data instead")
	case auth.Exec != nil || auth.AuthProvider != nil:
		return nil, nil, errors.New("gets its credentials from a program: write a token, or a client certificate and its key, into it")
	}
	return c, auth, nil
}

func canLogIn(a *clientcmdapi.AuthInfo) bool {
	return a.Token != "" || len(a.ClientCertificateData) > 0 || a.Username != ""
}

// single is a kubeconfig of one cluster.
func single(c *clientcmdapi.Cluster, auth *clientcmdapi.AuthInfo) ([]byte, error) {
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"kubernetes": c},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"join": auth},
		Contexts:       map[string]*clientcmdapi.Context{"join": {Cluster: "kubernetes", AuthInfo: "join"}},
		CurrentContext: "join",
	})
}

// authorityOf is the CA in cluster-info, which came over a connection that is trusted already.
func authorityOf(info addons.Object) ([]byte, error) {
	var cm corev1.ConfigMap
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(info.Object, &cm); err != nil {
		return nil, err
	}
	c, _, err := named([]byte(cm.Data[bootstrapapi.KubeConfigKey]))
	if err == nil && len(c.CertificateAuthorityData) == 0 {
		err = errors.New("holds no certificate-authority-data")
	}
	if err != nil {
		return nil, finalError{fmt.Errorf("ConfigMap kube-public/cluster-info %w", err)}
	}
	return c.CertificateAuthorityData, nil
}
