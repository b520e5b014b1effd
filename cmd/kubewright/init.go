package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/config/kubeadm"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/pki"
)

type initOptions struct {
	hostOptions
	document      config.Cluster // from flags
	tokens        []kubeadm.Token
	keyOfDocument bool // the certificate key is not a flag's
	certSANs      []string
	gates         []string
	ttl           time.Duration
	upload        bool
	running       *config.Cluster // what this control plane is of already; nil: it answers not, or there is none
}

func newInit(out func() output) *cobra.Command {
	o := &initOptions{hostOptions: hostOptions{out: out}}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make this host the control plane of a new cluster",
		Long: `Make this host the control plane of a new cluster.

What the host lacks is installed from --bundle, or downloaded; certificates, static pods, kubelet,
kube-proxy, CoreDNS and the pod network are made. It ends with a kubeconfig in
/etc/kubernetes/admin.conf and prints the command with which workers join.

--config takes a Cluster document, or kubeadm's InitConfiguration, ClusterConfiguration,
KubeletConfiguration and KubeProxyConfiguration. A field that kubewright does not honour is
an error. What they leave open gets our default: keys are ECDSA-P256, say. They have no word
for the pod network: it is flannel where they give podSubnet, else none; --cni chooses.

Phases, each also as "kubewright init phase NAME":
` + describePhases(phases.Init()),
		Example: `  kubewright init
  kubewright init --bundle kubernetes.tar.zst --dry-run
  kubewright init --bundle /mnt/bundle
  kubewright init --config cluster.yaml --bundle /mnt/bundle
  kubewright init --config kubeadm.yaml --bundle /mnt/bundle --cni none
  kubewright init --pod-network-cidr 10.10.0.0/16 --control-plane-endpoint api.example.org`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), phases.Init()) },
	}
	o.flags(cmd.PersistentFlags())
	f, s := cmd.PersistentFlags(), &o.document.Spec
	f.StringVar(&o.config, "config", "", "file with a Cluster document, or with kubeadm's; - is standard input")
	f.StringVar(&s.KubernetesVersion, "kubernetes-version", "", "version to install (default: that of the bundle, else the newest that kubewright was tried with)")
	f.StringVar(&s.ControlPlane.Endpoint, "control-plane-endpoint", "", "stable HOST[:PORT] for all API servers")
	f.Int32Var(&s.ControlPlane.BindPort, "apiserver-bind-port", 0, "port of the API server (default 6443)")
	f.StringSliceVar(&o.certSANs, "apiserver-cert-extra-sans", nil, "further names and addresses in the API server's certificate")
	f.StringVar(&s.Network.PodCIDR, "pod-network-cidr", "", "range of pod addresses (default 10.244.0.0/16)")
	f.StringVar(&s.Network.ServiceCIDR, "service-cidr", "", "range of service addresses (default 10.96.0.0/12)")
	f.StringVar(&s.Network.DNSDomain, "service-dns-domain", "", "domain of services (default cluster.local)")
	f.StringVar(&s.ImageRepository, "image-repository", "", "registry of the control plane's images (default registry.k8s.io)")
	f.StringVar(&s.Network.CNI.Name, "cni", "", "pod network: "+strings.Join(config.CNIs, ", ")+" (default flannel)")
	f.StringSliceVar(&o.gates, "feature-gates", nil, "NAME=true|false of Kubernetes' features")
	f.DurationVar(&o.ttl, "token-ttl", addons.TokenTTL, "after this the token expires; 0: never")
	f.BoolVar(&o.upload, "upload-certs", false, "store the control plane's certificates in the cluster for two hours, encrypted, so that further control planes can join")
	cmd.MarkFlagsMutuallyExclusive("token", "token-file")
	must(cmd.MarkPersistentFlagDirname("cache-dir"))
	must(cmd.MarkPersistentFlagDirname("patches"))
	must(cmd.MarkPersistentFlagFilename("config", "yaml", "yml", "json"))
	addPhases(cmd, "", phases.Init(), func(cmd *cobra.Command, list []phases.Phase, _ []string) error {
		return o.run(cmd.Context(), list)
	})
	completePhases(cmd, phases.Init())
	return cmd
}

// cluster is the document: the file, or the flags.
func (o *initOptions) cluster() (*config.Cluster, error) {
	o.document.Spec.ControlPlane.CertSANs = o.certSANs
	for _, g := range o.gates {
		name, value, ok := strings.Cut(g, "=")
		if !ok || value != "true" && value != "false" {
			return nil, fmt.Errorf("--feature-gates %q: write NAME=true or NAME=false", g)
		}
		if o.document.Spec.FeatureGates == nil {
			o.document.Spec.FeatureGates = map[string]bool{}
		}
		o.document.Spec.FeatureGates[name] = value == "true"
	}
	if o.config == "" {
		return &o.document, nil
	}
	b, err := config.Read(o.config)
	if err != nil {
		return nil, err
	}
	cni := o.document.Spec.Network.CNI.Name
	if o.kubeadm = kubeadm.Is(b); o.kubeadm {
		o.document.Spec.Network.CNI.Name = "" // their documents cannot say it
	}
	if other := o.fromFlags(); other != "" {
		return nil, fmt.Errorf("--config and --%s: the document says it all, so write it there", other)
	}
	var c *config.Cluster
	if o.kubeadm {
		c, err = o.fromKubeadm(b, cni)
	} else {
		c, err = config.Parse(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.config, err)
	}
	return c, nil
}

// fromFlags names a flag whose place is in the document; empty where there is none.
func (o *initOptions) fromFlags() string {
	s := o.document.Spec
	given := map[string]bool{
		"kubernetes-version": s.KubernetesVersion != "", "control-plane-endpoint": s.ControlPlane.Endpoint != "",
		"apiserver-bind-port": s.ControlPlane.BindPort != 0, "apiserver-cert-extra-sans": o.certSANs != nil,
		"pod-network-cidr": s.Network.PodCIDR != "", "service-cidr": s.Network.ServiceCIDR != "",
		"service-dns-domain": s.Network.DNSDomain != "", "image-repository": s.ImageRepository != "",
		"cni": s.Network.CNI.Name != "", "feature-gates": o.gates != nil,
	}
	var names []string
	for name, yes := range given {
		if yes {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", --")
}

func (o *initOptions) run(ctx context.Context, list []phases.Phase) error {
	c, err := o.inputs(list)
	if err != nil {
		return misuse(err)
	}
	token, tokens, err := o.bootstrapTokens()
	if err != nil {
		return misuse(err)
	}
	key, err := o.uploadKey(list)
	if err != nil {
		return misuse(err)
	}
	return o.hostOptions.run(ctx, "init", func(ctx context.Context, t *phases.Target) error {
		t.TTL, t.Tokens = o.ttl, tokens
		t.UploadCerts, t.CertificateKey = o.upload, key
		if uploadsAlone(list) && o.config == "" && o.fromFlags() == "" {
			if c, err = phases.LiveCluster(ctx, t.Host); err != nil {
				return err
			}
		} else if o.config == "" && o.fromFlags() == "" && !freshHost(t) {
			// Nothing is wished for: what runs goes on. Where it does not answer, this finishes a first init.
			if live, err := phases.LiveCluster(ctx, t.Host); err == nil {
				c = live
			}
		}
		return o.on(ctx, t, c, token, list)
	})
}

// uploadKey is the key that encrypts certificates, a new one where nobody gives one.
func (o *initOptions) uploadKey(list []phases.Phase) (addons.CertificateKey, error) {
	key, err := o.readKey()
	switch {
	case err != nil:
	case uploadsAlone(list) && !o.upload:
		err = errors.New("nothing is uploaded unless you ask for it: add --upload-certs")
	case !o.upload && o.keyOfDocument: // as kubeadm: it is for when they are uploaded
	case !o.upload && key != addons.CertificateKey{}:
		err = errors.New("--certificate-key encrypts what --upload-certs stores: pass both, or neither")
	case o.upload && key == addons.CertificateKey{}:
		key = addons.NewCertificateKey()
	}
	return key, err
}

// inputs are what the user wrote.
func (o *initOptions) inputs(list []phases.Phase) (*config.Cluster, error) {
	if o.ttl < 0 {
		return nil, fmt.Errorf("--token-ttl %s is less than nothing: write 24h, say, or 0 for a token that never expires", o.ttl)
	}
	if err := phases.CheckIgnore(o.ignore); err != nil { // before those of a document, which an older kubeadm may have had
		return nil, err
	}
	c, err := o.cluster()
	if err != nil {
		return nil, err
	}
	return c, phases.CheckSkip(list, o.skip) // the document may name some
}

// on runs phases on a host.
func (o *initOptions) on(ctx context.Context, t *phases.Target, c *config.Cluster, token addons.Token, list []phases.Phase) error {
	view := newView(o.out())
	defer view.close()
	if err := o.prepare(ctx, t, c); err != nil {
		return err
	}
	t.Report = view.event
	networks := phases.Networks(list, o.skip)
	if networks && o.running != nil {
		if err := phases.KeptNetwork(o.running, t.Cluster); err != nil {
			return &phases.NotReadyError{Err: err}
		}
	}
	if acquires, err := o.acquires(ctx, t, list); err != nil {
		return err
	} else if acquires {
		if err := o.acquire(ctx, t, c, nil); err != nil {
			return err
		}
	}
	if networks {
		var err error
		if t.Material, err = o.material(ctx, t.Cluster, t.Bundle, o.bundle != "", t.Platform()); err != nil {
			return err
		}
	}
	o.tellLock(t)
	whole := len(list) == len(phases.Init())
	fresh := freshHost(t)
	t.JoinToken = phases.JoinToken(t.API, token, fresh)
	result := initResult{Kind: "Init", Kubeconfig: pki.AdminConf}
	early := whole && (fresh || token != (addons.Token{}))
	if early && o.out() == "json" && !o.dryRun {
		// A program can start the joins now: they wait for the API server themselves.
		if err := o.joinCommands(ctx, t, &result); err != nil {
			return err
		}
		view.result(result)
	}
	done, err := o.runOrPlan(ctx, list, t, view)
	if err != nil || !done {
		return err
	}
	view.close()
	switch {
	case uploadsAlone(list):
		return o.printKey(t)
	case !whole, early && o.out() == "json":
		return nil
	}
	if err := o.joinCommands(ctx, t, &result); err != nil {
		return err
	}
	if o.out() == "json" {
		view.result(result)
		return nil
	}
	fmt.Printf(initDone, pki.AdminConf)
	if result.Join != "" {
		fmt.Printf(initJoin, result.Join)
	}
	if result.JoinControlPlane != "" {
		fmt.Printf(uploadDone, result.JoinControlPlane)
	}
	return nil
}

// freshHost tells that no API server has run here.
func freshHost(t *phases.Target) bool {
	return !t.Facts.Present[manifests.Path(manifests.APIServer)] && !t.Facts.Present["/var/lib/etcd/member"]
}

const initDone = `
The control plane is up. As root, or with a copy of the file that is yours:

  export KUBECONFIG=%s
  kubectl get nodes
`

const initJoin = `
Make other hosts workers of this cluster, as root on each; what they lack is downloaded, or comes
from --bundle. The token is a secret:

  %s
`

// prepare reads everything that phases need, and changes nothing.
func (o *initOptions) prepare(ctx context.Context, t *phases.Target, c *config.Cluster) (err error) {
	if !freshHost(t) {
		if live, err := phases.LiveCluster(ctx, t.Host); err == nil {
			o.running = live
			if t.Bundle == nil {
				o.live = live.Versions()
			}
		}
	}
	if l, err := o.named(); err != nil {
		return err
	} else if l != nil && t.Bundle == nil {
		o.live = l.Versions(t.Platform())
	}
	if err := o.complete(c, t, config.ControlPlaneRole); err != nil {
		return err
	}
	c.FitMTU(o.running, t.Facts.MTUs[t.Node.IP()])
	if err := phases.OtherCluster(ctx, t); err != nil {
		return err
	}
	existing, err := phases.Existing(ctx, t.Host, t.Node)
	if err != nil {
		return err
	}
	if t.Secrets, err = pki.New(t.Cluster, t.Node, existing, time.Now()); err != nil {
		return err
	}
	kubeconfig, err := t.Secrets.ClientConfig()
	if err != nil && t.Secrets.ExternalCA() {
		t.API = phases.NoAPI{Err: err} // nobody gets that far: certs ends with the requests to have signed
		return nil
	}
	if err != nil {
		return err
	}
	client, err := phases.NewClient(t.Host, kubeconfig)
	if err != nil {
		return err
	}
	t.API = client.Within(t.Cluster.Spec.Timeouts.KubernetesAPICall.Duration)
	return nil
}

var errNotRoot = errors.New("this is not root, which preflight knows as IsPrivilegedUser: run it with sudo")

// joinCommands fills in how other hosts join.
func (o *initOptions) joinCommands(ctx context.Context, t *phases.Target, r *initResult) (err error) {
	if r.Join, err = t.JoinCommand(ctx); err == nil && r.Join != "" && t.UploadCerts {
		r.JoinControlPlane = phases.ControlPlaneJoinCommand(r.Join, t.CertificateKey)
	}
	return err
}

// initResult is what init prints as JSON.
type initResult struct {
	Kind       string `json:"kind"`
	Kubeconfig string `json:"kubeconfig"`
	// Not there where no token is left, and the other where no certificates were uploaded.
	Join             string `json:"join,omitempty"`
	JoinControlPlane string `json:"joinControlPlane,omitempty"`
}
