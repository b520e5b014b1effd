package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/bundle"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/providers"
)

// hostOptions are those of init and join: what concerns this host.
type hostOptions struct {
	artifactOptions
	bundle    string
	nodeName  string
	address   string
	socket    string
	patches   string
	skip      []string
	ignore    []string
	tokenFile string
	token     string
	dryRun    bool
	config    string
	own       config.Node // what a document of kubeadm says of this host
	kubeadm   bool        // the document is one of kubeadm's
	keyFile   string
	key       string
	live      config.Versions // of the cluster whose control plane this host is
	out       func() output
}

func (o *hostOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.bundle, "bundle", "", "binaries and images, as a folder, a file (.tar, .tar.zst), or the address at which a folder is served; without it, what the host lacks is downloaded")
	o.artifactOptions.flags(f)
	f.StringVar(&o.nodeName, "node-name", "", "name of the Node (default: the host name)")
	f.StringVar(&o.address, "apiserver-advertise-address", "", "IP address of this host that others reach (default: that of the default route)")
	f.StringVar(&o.socket, "cri-socket", "", "socket of this host's container runtime (default: the only one found, else unix:///run/containerd/containerd.sock)")
	f.StringVar(&o.patches, "patches", "", "folder with patches, named as for kubeadm: target[suffix][+strategic|merge|json].{yaml,json}")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change on this host and in the API, and change nothing")
	f.StringSliceVar(&o.skip, "skip-phases", nil, "phases to leave out")
	f.StringSliceVar(&o.ignore, "ignore-preflight-errors", nil, "preflight checks whose failures are only shown, or all")
	f.StringVar(&o.token, "token", "", "bootstrap token, abcdef.0123456789abcdef; others see it in the process list, so rather use --token-file")
	f.StringVar(&o.tokenFile, "token-file", "", "file that holds the bootstrap token; - is standard input")
	f.StringVar(&o.key, "certificate-key", "", "key to the control plane's certificates in the cluster, 64 hex digits; others see it in the process list, so rather use --certificate-key-file")
	f.StringVar(&o.keyFile, "certificate-key-file", "", "file that holds the certificate key; - is standard input")
}

// readToken takes the token from its flag or its file; the zero Token where neither was given.
func (o *hostOptions) readToken() (addons.Token, error) {
	if o.keyFile == "-" && o.tokenFile == "-" {
		return addons.Token{}, errors.New("--token-file - and --certificate-key-file -: only one can be standard input")
	}
	s, err := secret("token", o.token, o.tokenFile)
	if err != nil || s == "" {
		return addons.Token{}, err
	}
	return addons.ParseToken(s)
}

// run locks this host for a command, and calls f with what phases act on, but for the
// cluster: this host, its journal, its facts and the bundle. The lock comes first: of what
// is read after it, nothing changes but by us.
func (o *hostOptions) run(ctx context.Context, command string, f func(context.Context, *phases.Target) error) error {
	if os.Geteuid() != 0 { // the rest would only say which file is not for everybody
		return &phases.NotReadyError{Err: errNotRoot}
	}
	// Of this host's commands those are run that Facts finds, as on any other host, whatever is in root's PATH.
	os.Setenv("PATH", strings.Join(append(phases.BinDirs, os.Getenv("PATH")), ":"))
	t := &phases.Target{Host: providers.Local().Host, Ledger: command != "reset", Credentials: credentials}
	if !o.dryRun { // who only looks is in nobody's way
		locked, release, err := t.Host.Lock(ctx, command)
		if err != nil {
			return err
		}
		defer release()
		ctx = locked
	}
	for _, name := range o.ignore {
		t.Ignore = append(t.Ignore, strings.ToLower(name))
	}
	var err error
	if t.Journal, err = phases.OpenJournal(ctx, t.Host); err != nil {
		return err
	}
	if err := o.openBundle(ctx, t); err != nil {
		return err
	}
	if t.Facts, err = phases.Facts(ctx, t.Host); err != nil {
		return err
	}
	return f(ctx, t)
}

// openBundle opens --bundle. What is not a folder takes a while, which is shown.
func (o *hostOptions) openBundle(ctx context.Context, t *phases.Target) (err error) {
	if o.bundle == "" {
		return nil
	}
	if info, err := os.Stat(o.bundle); err == nil && info.IsDir() {
		t.Bundle, err = o.open(ctx, o.bundle, nil)
		return err
	}
	view := newView(o.out())
	defer view.close()
	t.Report = view.event
	t.Node.Name, _ = os.Hostname() // until the document has said what the node is called
	return phases.Acquire(ctx, t, func(ctx context.Context, moved bundle.Moved) (*bundle.Bundle, error) {
		return o.open(ctx, o.bundle, moved)
	})
}

// complete fills what flags and the bundle say into the document, and validates it.
func (o *hostOptions) complete(c *config.Cluster, t *phases.Target, role config.Role) error {
	if o.socket != "" && !strings.Contains(o.socket, "://") {
		o.socket = "unix://" + o.socket // as kubeadm
	}
	if err := config.CheckSocket(o.socket); err != nil {
		return misuse(fmt.Errorf("--cri-socket %w", err))
	}
	set(&c.Spec.Patches, o.patches)
	if err := o.apply(&c.Spec.Artifacts); err != nil {
		return misuse(err)
	}
	if isURL(o.bundle) {
		set(&c.Spec.Artifacts.Mirror, o.bundle) // those that join have it from there too
	}
	o.addOwn(c, t, role)
	v := o.live // where nobody says otherwise, what runs goes on
	if t.Bundle != nil {
		v = t.Bundle.Lock().Versions("linux/" + t.Facts.Machine)
	}
	c.Default(v)
	if err := c.Validate(); err != nil {
		if o.kubeadm {
			return misuse(fmt.Errorf("%s is not valid: %s", o.config, kubeadm.In(err)))
		}
		return misuse(fmt.Errorf("the cluster document is not valid: %w", err))
	}
	t.Cluster = c
	t.Node = c.Node(o.nodeName, role, t.Facts)
	set(&t.Node.RuntimeSocket, o.socket)
	if o.address != "" {
		t.Node.Address = o.address
		if !t.Node.IP().IsValid() {
			return misuse(fmt.Errorf("--apiserver-advertise-address %q: write an IP address of this host", o.address))
		}
	}
	if c.Spec.Patches != "" {
		p, err := manifests.LoadPatches(os.DirFS(c.Spec.Patches))
		if err != nil {
			return misuse(fmt.Errorf("--patches: %w", err))
		}
		t.Patches = p
	}
	return nil
}

func set(s *string, v string) {
	if v != "" {
		*s = v
	}
}
