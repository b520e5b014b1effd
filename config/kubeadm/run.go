package kubeadm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/cluster-bootstrap/token/api"

	"github.com/kubewright/kubewright/config"
)

// Run is what a document says of one run of init or join and of its host, not of the
// cluster. It holds secrets: never print it.
type Run struct {
	// Node is this host: name, address, taints and the kubelet's arguments, as far as the
	// document says.
	Node                  config.Node
	SkipPhases            []string
	IgnorePreflightErrors []string
	DryRun                bool
	CertificateKey        string  // 64 hexadecimal digits; secret
	Tokens                []Token // that init makes

	// Of a join alone; for init they are in the Cluster.
	Discovery    Discovery
	ControlPlane bool
	BindPort     int32 // of this control plane's API server
	Socket       string
	Patches      string
	Timeouts     config.Timeouts
}

// Token is a bootstrap token that init makes.
type Token struct {
	Text        string // ID.SECRET; empty: a random one
	Description string
	TTL         time.Duration // 0: it never expires
	Expires     time.Time     // zero: by TTL
	Usages      []string
	Groups      []string
}

// Discovery is how a joining host finds the cluster and knows that it is the right one: by
// Token, or by File.
type Discovery struct {
	Endpoint string // HOST:PORT, with Token
	Token    string
	Pins     []string // sha256:HEX of a CA's public key
	SkipCA   bool
	File     string // path or https URL of a kubeconfig
	TLSToken string // that the API's requests show; empty: Token, or what File holds
}

// problems collects errors, each with the path of its field.
type problems struct{ all []error }

func (p *problems) add(path, format string, args ...any) {
	p.all = append(p.all, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (k nodeRegistration) node(e apiEndpoint) config.Node {
	n := config.Node{Name: strings.ToLower(k.Name), Taints: k.Taints, KubeletArgs: k.KubeletExtraArgs, Address: e.AdvertiseAddress}
	if n.IP().IsValid() && n.IP().IsUnspecified() { // kubeadm's word for that of the default route
		n.Address = ""
	}
	return n
}

func (p *problems) init(k initConfiguration, s *config.Spec) *Run {
	r := &Run{
		Node:       k.NodeRegistration.node(k.LocalAPIEndpoint),
		SkipPhases: k.SkipPhases, IgnorePreflightErrors: k.NodeRegistration.IgnorePreflightErrors,
		DryRun: k.DryRun, CertificateKey: k.CertificateKey,
	}
	for i, t := range k.BootstrapTokens {
		r.Tokens = append(r.Tokens, p.token(fmt.Sprintf("InitConfiguration.bootstrapTokens[%d]", i), t))
	}
	p.endpoint("InitConfiguration.localAPIEndpoint", k.LocalAPIEndpoint)
	s.ControlPlane.BindPort = k.LocalAPIEndpoint.BindPort
	s.Runtime.Socket = k.NodeRegistration.CRISocket
	s.Patches = k.Patches.Directory
	s.Timeouts = k.Timeouts
	return r
}

func (p *problems) join(k joinConfiguration) *Run {
	r := &Run{
		Node:       k.NodeRegistration.node(apiEndpoint{}),
		SkipPhases: k.SkipPhases, IgnorePreflightErrors: k.NodeRegistration.IgnorePreflightErrors,
		DryRun: k.DryRun, Socket: k.NodeRegistration.CRISocket, Patches: k.Patches.Directory, Timeouts: k.Timeouts,
	}
	if c := k.ControlPlane; c != nil {
		p.endpoint("JoinConfiguration.controlPlane.localAPIEndpoint", c.LocalAPIEndpoint)
		r.Node = k.NodeRegistration.node(c.LocalAPIEndpoint)
		r.ControlPlane, r.CertificateKey, r.BindPort = true, c.CertificateKey, c.LocalAPIEndpoint.BindPort
	}
	const at = "JoinConfiguration.discovery"
	d := k.Discovery
	switch {
	case d.BootstrapToken == nil && d.File == nil:
		p.add(at, "write bootstrapToken, or file")
	case d.BootstrapToken != nil && d.File != nil:
		p.add(at, "bootstrapToken and file: write one of them")
	case d.File != nil:
		if r.Discovery.File = strings.TrimPrefix(d.File.KubeConfigPath, "file://"); r.Discovery.File == "" {
			p.add(at+".file.kubeConfigPath", "write the path or the https URL of a kubeconfig that names the cluster")
		}
	default:
		b := d.BootstrapToken
		r.Discovery = Discovery{Endpoint: b.APIServerEndpoint, Token: b.Token, Pins: b.CACertHashes, SkipCA: b.UnsafeSkipCAVerification}
		p.secret(at+".bootstrapToken.token", b.Token)
		if _, _, err := config.SplitEndpoint(b.APIServerEndpoint, 6443); err != nil {
			p.add(at+".bootstrapToken.apiServerEndpoint", "%v", err)
		}
		if len(b.CACertHashes) == 0 && !b.UnsafeSkipCAVerification {
			p.add(at+".bootstrapToken.caCertHashes", "write sha256:HEX, by which the cluster is known; print it on a control plane with `kubewright token create --print-join-command`")
		}
	}
	if r.Discovery.TLSToken = d.TLSBootstrapToken; d.TLSBootstrapToken != "" {
		p.secret(at+".tlsBootstrapToken", d.TLSBootstrapToken)
	}
	return r
}

func (p *problems) endpoint(path string, e apiEndpoint) {
	if a := e.AdvertiseAddress; a != "" && !(config.Node{Address: a}).IP().IsValid() {
		p.add(path+".advertiseAddress", "%q is not an IP address", a)
	}
	if e.BindPort < 0 || e.BindPort > 65535 {
		p.add(path+".bindPort", "%d is not a port: write a number from 1 to 65535", e.BindPort)
	}
}

var tokenForm = regexp.MustCompile(api.BootstrapTokenPattern)

func (p *problems) secret(path, token string) {
	if !tokenForm.MatchString(token) {
		p.add(path, "a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9")
	}
}

// token gives a wish for one its defaults, which are kubeadm's.
func (p *problems) token(path string, k bootstrapToken) Token {
	t := Token{Text: k.Token, Description: k.Description, TTL: 24 * time.Hour, Expires: k.Expires, Usages: k.Usages, Groups: k.Groups}
	if k.Token != "" {
		p.secret(path+".token", k.Token)
	}
	if k.TTL != nil {
		t.TTL = k.TTL.Duration
		if !k.Expires.IsZero() {
			p.add(path, "ttl and expires: write one of them")
		}
		if t.TTL < 0 {
			p.add(path+".ttl", "%s is less than nothing: write 24h, say, or 0s for a token that never expires", k.TTL)
		}
	}
	if len(t.Usages) == 0 {
		t.Usages = slices.Clone(api.KnownTokenUsages)
	}
	if len(t.Groups) == 0 {
		t.Groups = []string{"system:bootstrappers:kubeadm:default-node-token"}
	}
	for i, u := range t.Usages {
		if !slices.Contains(api.KnownTokenUsages, u) {
			p.add(fmt.Sprintf("%s.usages[%d]", path, i), "%q: write signing or authentication", u)
		}
	}
	for i, g := range t.Groups {
		if !strings.HasPrefix(g, api.BootstrapDefaultGroup+":") {
			p.add(fmt.Sprintf("%s.groups[%d]", path, i), "%q: the API server takes only groups that begin with %s:", g, api.BootstrapDefaultGroup)
		}
	}
	return t
}
