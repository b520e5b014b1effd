package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/phases"
)

const joinHint = "print a whole command on a control plane with `kubewright token create --print-join-command`"

// find is how the cluster is found: as the document says, or the flags.
func (o *joinOptions) find(args []string) (kubeadm.Discovery, error) {
	token, err := o.readToken()
	if err != nil {
		return kubeadm.Discovery{}, err
	}
	flags := kubeadm.Discovery{Pins: o.pins, SkipCA: o.unsafe, File: o.file, Token: o.discoveryToken, TLSToken: o.tlsToken}
	if len(args) == 1 {
		flags.Endpoint = args[0]
	}
	if o.config != "" {
		if flags.Pins != nil || flags.SkipCA || flags.File != "" || flags.Token != "" || flags.TLSToken != "" || flags.Endpoint != "" || token != (addons.Token{}) {
			return kubeadm.Discovery{}, errors.New("--config and HOST:PORT, --token or a flag of discovery: the document says it all, so write it there")
		}
		return o.fromConfig()
	}
	orToken := func(s *string, flag string) error {
		if *s != "" {
			if _, err := addons.ParseToken(*s); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
		} else if token != (addons.Token{}) { // as kubeadm: --token is both
			*s = token.Reveal()
		}
		return nil
	}
	if err := orToken(&flags.TLSToken, "--tls-bootstrap-token"); err != nil {
		return flags, err
	}
	if flags.File != "" {
		if flags.Endpoint != "" || flags.Pins != nil || flags.SkipCA || flags.Token != "" {
			return flags, errors.New("--discovery-file names the cluster and its CA: give neither HOST:PORT nor a flag that begins with --discovery-token")
		}
		return flags, nil
	}
	if err := orToken(&flags.Token, "--discovery-token"); err != nil {
		return flags, err
	}
	switch {
	case flags.Endpoint == "":
		return flags, errNoServer
	case flags.Token == "":
		return flags, errors.New("join needs a bootstrap token: --token or --token-file; " + joinHint)
	case len(flags.Pins) == 0 && !flags.SkipCA:
		return flags, errors.New("join needs --discovery-token-ca-cert-hash sha256:HEX, by which it knows the cluster; " + joinHint)
	}
	return flags, nil
}

var errNoServer = errors.New("name the API server: kubewright join HOST:PORT --token TOKEN --discovery-token-ca-cert-hash sha256:HEX; or give --discovery-file or --config")

// fromConfig takes the JoinConfiguration of --config.
func (o *joinOptions) fromConfig() (kubeadm.Discovery, error) {
	b, err := config.Read(o.config)
	if err != nil {
		return kubeadm.Discovery{}, err
	}
	if !kubeadm.Is(b) {
		return kubeadm.Discovery{}, fmt.Errorf("%s: no JoinConfiguration of kubeadm is in it; a Cluster document is for init: the cluster has it", o.config)
	}
	d, err := kubeadm.Parse(b)
	if err == nil && d.Join == nil {
		err = errors.New("no JoinConfiguration is in it: the documents are for `kubewright init --config`")
	}
	if err != nil {
		return kubeadm.Discovery{}, fmt.Errorf("%s: %w", o.config, err)
	}
	o.take(d.Join)
	o.controlPlane = o.controlPlane || d.Join.ControlPlane
	o.bindPort = cmp.Or(o.bindPort, d.Join.BindPort)
	o.kubeadm, o.timeouts = true, d.Join.Timeouts
	return d.Join.Discovery, nil
}

// discoverOptions reads what a discovery refers to.
func discoverOptions(ctx context.Context, d kubeadm.Discovery) (o phases.DiscoverOptions, err error) {
	o.Pins, o.SkipCA = d.Pins, d.SkipCA
	if d.TLSToken != "" {
		if o.TLSToken, err = addons.ParseToken(d.TLSToken); err != nil {
			return o, err
		}
	}
	if d.File != "" {
		if o.Kubeconfig, err = discoveryFile(ctx, d.File); err != nil {
			return o, fmt.Errorf("the discovery file %s: %w", d.File, err)
		}
		return o, o.Check()
	}
	if o.Token, err = addons.ParseToken(d.Token); err != nil {
		return o, err
	}
	name, port, err := config.SplitEndpoint(d.Endpoint, 6443)
	if err != nil {
		return o, fmt.Errorf("the API server's address: %w", err)
	}
	o.Endpoint = net.JoinHostPort(name, strconv.Itoa(int(port)))
	return o, nil
}

// discoveryFile reads a kubeconfig, and what it refers to if it is of this host.
func discoveryFile(ctx context.Context, path string) ([]byte, error) {
	if strings.HasPrefix(path, "https://") {
		return download(ctx, path)
	}
	k, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	if err := clientcmd.ResolveLocalPaths(k); err != nil { // they are relative to it
		return nil, err
	}
	if err := clientcmdapi.FlattenConfig(k); err != nil {
		return nil, err
	}
	for _, a := range k.AuthInfos {
		if a.TokenFile != "" {
			b, err := os.ReadFile(a.TokenFile)
			if err != nil {
				return nil, err
			}
			a.Token, a.TokenFile = strings.TrimSpace(string(b)), ""
		}
	}
	return clientcmd.Write(*k)
}

// download trusts the certificate authorities of this host.
func download(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return b, err
}
